"""Files and folders that are whole or as they were: filled beside their place; of a kill nothing stays."""

import hashlib
import os
import re
import shutil
import socket
import stat
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsi_twostage.errors import StoreError, WriteError
from wsi_twostage.lock import HAS_LOCKS, lock_file, locked

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
"""A drive of Windows has one letter."""


def ensure_new(path: Path) -> None:
    """Raise StoreError where something is at ``path``."""
    if path.exists() or path.is_symlink():
        raise StoreError(f"{path} exists; give another --output")


def ensure_writable(path: Path) -> None:
    """Raise WriteError if no file can be written at ``path``; what is there stays."""
    ensure_here(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(path):
            pass
    except OSError as error:
        raise WriteError.of(path, error) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to fill; it takes the place of ``path`` only when the block succeeds.

    Raises
    ------
    WriteError
        The disk is full, a folder is none, or whatever else the system says.
    StoreError
        ``path`` is a URL.
    """
    ensure_here(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(path) as draft:
            yield draft
            draft.replace(path)
    except OSError as error:
        raise WriteError.of(path, error) from error


@contextmanager
def whole_folder(path: Path, *, ensure_free: Callable[[], None]) -> Iterator[Path]:
    """An empty folder to fill, as `whole_file`; ``ensure_free`` raises if what is at ``path`` must stay.

    Raises
    ------
    StoreError
        ``path`` is a URL, the folder around it cannot be made, or somebody is at work on what is to be
        replaced.
    """
    ensure_here(path)
    ensure_free()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot be made a folder ({error.strerror})") from error
    with draft_of(path, folder=True) as draft:
        yield draft
        ensure_free()  # a block takes time, and what came meanwhile is not ours to remove
        if not path.exists():
            draft.rename(path)
            return
        with locked(path), draft_of(path, folder=True) as old:
            ensure_free()
            old.rmdir()
            path.rename(old)
            try:
                draft.rename(path)
            except BaseException:
                old.rename(path)
                raise


def ensure_only(folder: Path, ours: Collection[str]) -> None:
    """Raise StoreError for what somebody else put into a folder that is to be replaced.

    Numbers, of levels, are ours, and hidden files, of systems and of zarr, are nobody's.
    """
    names = sorted(name for name in os.listdir(folder) if not name.startswith(".") and not name.isdecimal())
    if others := [name for name in names if name not in ours and not name.endswith(".partial")]:
        raise StoreError(
            f"{folder / others[0]} was put into what is to be overwritten; move it, or give another --output"
        )


def ensure_here(path: Path) -> None:
    """Raise StoreError for a URL, or what is left of one: as a path it would be a folder of that name."""
    if _URL.match(str(path)):
        raise StoreError(f"{path}: outputs are files and folders of this machine; copy them there afterwards")


@contextmanager
def draft_of(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """An empty, hidden file or folder beside ``path``, to be filled and moved; what is not moved is removed.

    It is locked while this process lives. So drafts of the same path that nobody will ever finish are known,
    and are removed here: those that a process on this machine, of this user, left when it was killed.
    """
    _remove_left_behind(path, folder)
    draft, descriptor = _new(path, folder)
    try:
        yield draft
    finally:
        _remove(draft, folder)
        if descriptor is not None:
            os.close(descriptor)


def clear(folder: Path, ours: re.Pattern[str]) -> None:
    """Remove what is ``ours`` by its whole name, and the folder if nothing else is in it; no error if not."""
    with suppress(OSError):
        for path in filter(lambda path: ours.fullmatch(path.name), folder.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        folder.rmdir()


def _new(path: Path, folder: bool) -> tuple[Path, int | None]:
    """A draft, and what holds its lock."""
    while True:
        draft = path.with_name(f".{path.name}.{_here()}-{uuid.uuid4().hex[:8]}.new")
        if folder:
            draft.mkdir()
            if not HAS_LOCKS:  # and folders cannot be opened
                return draft, None
        flags = os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
        descriptor = os.open(draft, flags, 0o666)
        if not lock_file(descriptor, wait=True):
            os.close(descriptor)
            return draft, None
        if draft.exists():
            return draft, descriptor
        os.close(descriptor)  # taken for one that was left behind, in the moment before it was locked


def _remove(draft: Path, folder: bool) -> None:
    if folder:
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)


def _remove_left_behind(path: Path, folder: bool) -> None:
    """Remove drafts of ``path`` that nobody is at work on."""
    if not HAS_LOCKS:
        return
    ours = re.compile(rf"\.{re.escape(path.name)}\.{_here()}-[0-9a-f]{{8}}\.new")
    with suppress(OSError):  # a folder that can be written, but not listed
        names = [name for name in os.listdir(path.parent) if ours.fullmatch(name)]
        for draft in map(path.with_name, names):
            with suppress(OSError):  # gone, another user's, or of the other kind
                _remove_if_nobody_holds(draft, folder)


def _remove_if_nobody_holds(draft: Path, folder: bool) -> None:
    kind, is_kind = (os.O_DIRECTORY, stat.S_ISDIR) if folder else (os.O_RDWR, stat.S_ISREG)
    descriptor = os.open(draft, kind | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if is_kind(found.st_mode) and found.st_uid == os.geteuid() and lock_file(descriptor):
            _remove(draft, folder)
    finally:
        os.close(descriptor)


def _here() -> str:
    """This machine, in a file's name: not every file system tells one machine of the locks of another."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
