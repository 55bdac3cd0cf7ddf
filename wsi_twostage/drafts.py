"""Files that are whole or as they were: filled beside their place; no draft stays of a killed process."""

import hashlib
import os
import re
import socket
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsi_twostage.errors import WriteError
from wsi_twostage.lock import HAS_LOCKS, lock_file


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to fill; it takes the place of ``path`` only when the block succeeds.

    Raises
    ------
    WriteError
        The disk is full, a folder is none, or whatever else the system says.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(path) as draft:
            yield draft
            draft.replace(path)
    except OSError as error:
        raise WriteError.of(path, error) from error


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """An empty, hidden file beside ``path``, to be filled and then moved; what is not moved is removed.

    It is locked while this process lives. So drafts of the same path that nobody will ever finish are known,
    and are removed here: those that a process on this machine, of this user, left when it was killed.
    """
    _remove_left_behind(path)
    draft, descriptor = _new(path)
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


def _new(path: Path) -> tuple[Path, int | None]:
    """A draft, and what holds its lock."""
    while True:
        draft = path.with_name(f".{path.name}.{_here()}-{uuid.uuid4().hex[:8]}.new")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if not lock_file(descriptor, wait=True):
            os.close(descriptor)
            return draft, None
        if draft.exists():
            return draft, descriptor
        os.close(descriptor)  # taken for one that was left behind, in the moment before it was locked


def _remove_left_behind(path: Path) -> None:
    """Remove drafts of ``path`` that nobody is at work on."""
    if not HAS_LOCKS:
        return
    ours = re.compile(rf"\.{re.escape(path.name)}\.{_here()}-[0-9a-f]{{8}}\.new")
    with suppress(OSError):  # a folder that can be written, but not listed
        names = [name for name in os.listdir(path.parent) if ours.fullmatch(name)]
        for draft in map(path.with_name, names):
            with suppress(OSError):  # gone, or another user's
                _remove_if_nobody_holds(draft)


def _remove_if_nobody_holds(draft: Path) -> None:
    descriptor = os.open(draft, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and lock_file(descriptor):
            draft.unlink()
    finally:
        os.close(descriptor)


def _here() -> str:
    """This machine, in a file's name: not every file system tells one machine of the locks of another."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
