"""A folder for results: can it be written to, how much and how fast, and what its file system can do."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from wsi_twostage.doctor.finding import Finding, note, ok, problem
from wsi_twostage.lock import HAS_LOCKS, lock_file

_LEAST, _LITTLE = 2**28, 2**32  # bytes that are free
_SLOW = 20e6  # bytes a second
_BLOCK, _BLOCKS, _FILES = 2**20, 64, 200


def examine_place(folder: Path) -> Iterator[Finding]:
    """Write to a folder that is made in ``folder`` and removed again."""
    place = folder.absolute()
    while not os.path.exists(place):  # as pathlib's own, but a place that nobody may look at is none
        place = place.parent
    elsewhere = "give another --output"
    said = f"{folder}" if place == folder.absolute() else f"{folder} is not there yet; {place}"
    try:
        free = shutil.disk_usage(place).free
        with tempfile.TemporaryDirectory(prefix=".wsi-seg-doctor-", dir=place) as inside:
            said += f": {free / 2**30:.1f} GiB free{_file_system(place)}"
            if free < _LEAST:
                yield problem("folder", said, f"make room, or {elsewhere}")
                return
            if free < _LITTLE:
                yield note("folder", said, f"wsi-seg plan SLIDE says what a result takes; or {elsewhere}")
            else:
                yield ok("folder", said)
            yield _speed(Path(inside))
            yield _locks(Path(inside))
            yield _renames(Path(inside))
    except OSError as error:
        yield problem("folder", f"{said}: cannot be written to ({error.strerror or error})", elsewhere)


def _file_system(place: Path) -> str:
    """Its kind, in words that follow the rest."""
    mounted = [part for part in psutil.disk_partitions(all=True) if place.is_relative_to(part.mountpoint)]
    nearest = max(mounted, key=lambda part: len(part.mountpoint), default=None)
    return f" on {nearest.fstype}" if nearest and nearest.fstype else ""


def _speed(inside: Path) -> Finding:
    """Of a large file down to the disk, and of many small ones, which is what a store is."""
    block, start = os.urandom(_BLOCK), time.perf_counter()
    with (inside / "large").open("wb", buffering=0) as file:
        for _ in range(_BLOCKS):
            file.write(block)
        os.fsync(file.fileno())
    large = _BLOCK * _BLOCKS / (time.perf_counter() - start)
    start = time.perf_counter()
    for number in range(_FILES):
        (inside / "small.partial").write_bytes(block[:4096])
        (inside / "small.partial").replace(inside / f"small-{number}")
    small = _FILES / (time.perf_counter() - start)
    said = f"{large / 1e6:.0f} MB a second, {small:.0f} small files a second"
    if large < _SLOW:
        return note("writing", said, "a local disk is faster; copy the results afterwards")
    return ok("writing", said)


def _locks(inside: Path) -> Finding:
    """Whether `flock` keeps a second run away, as a run asks it to."""
    alone = "start no two runs on one result; here nothing keeps the second away"
    if not HAS_LOCKS:
        return note("locks", "this system has no flock", alone)
    first, second = (os.open(inside, os.O_RDONLY) for _ in range(2))
    try:
        if not lock_file(first):
            return note("locks", "no flock on this file system", alone)
        if lock_file(second):
            return note("locks", "flock does not keep a second run away on this file system", alone)
    finally:
        os.close(first)
        os.close(second)
    return ok("locks", "flock keeps a second run away")


def _renames(inside: Path) -> Finding:
    """Whether a file and a folder take another's place in one step, as shards and whole stores do."""
    what, new, old = "renaming", inside / "new", inside / "old"
    new.write_text("new")
    old.write_text("old")
    try:
        new.replace(old)
        (inside / "draft").mkdir()
        (inside / "draft" / "inside").touch()
        (inside / "draft").rename(inside / "whole")
    except OSError as error:
        return problem(what, f"cannot replace a file or a folder ({error.strerror})", "give another --output")
    if new.exists() or old.read_text() != "new" or not (inside / "whole" / "inside").exists():
        return problem(what, "what was renamed is not where it should be", "give another --output")
    return ok(what, "files and folders are replaced in one step")
