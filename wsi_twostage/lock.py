"""Locks that end with the process that holds them: one run at a time on an output, a draft of a file."""

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wsi_twostage.errors import Busy, StoreError, WriteError

try:
    import fcntl as _fcntl
except ImportError:  # Windows
    _LOCKS: Any = None
else:
    _LOCKS = _fcntl

HAS_LOCKS = _LOCKS is not None
"""Of the system; a file system may have none all the same."""


def this_process() -> str:
    """For whoever finds the lock held."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def new_holder() -> str:
    """A run of this process, unlike any other run."""
    return f"{this_process()}, run {uuid.uuid4().hex[:8]}"


def is_here(holder: str) -> bool:
    """Whether the holder is this process."""
    return holder.startswith(f"{this_process()},")


@contextmanager
def locked(folder: Path, held_by: str | None = None) -> Iterator[None]:
    """Hold the lock of an existing folder; leaves no file behind.

    Where the file system knows no locks there is none.

    Parameters
    ----------
    held_by
        Who has it, if somebody else does.

    Raises
    ------
    Busy
        Another run holds it, or has just put another folder in its place.
    StoreError
        The folder cannot be opened.
    """
    if _LOCKS is None:
        yield
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if isinstance(error, FileNotFoundError):  # it was there a moment ago
            raise Busy(f"{folder} has just been removed by another run; give the command again") from error
        raise StoreError(f"{folder}: cannot be opened ({error.strerror})") from error
    try:
        if _is_taken(descriptor):
            who = (held_by or "another run").split(",")[0]
            raise Busy(f"{folder} is being written by {who}; wait for it")
        if not _lies_there(folder, descriptor):  # nobody else who looks for the lock would find this one
            raise Busy(f"{folder} has just been replaced by another run; give the command again")
        yield
    finally:
        os.close(descriptor)


def _lies_there(folder: Path, descriptor: int) -> bool:
    """Whether what was opened is what has the name now."""
    try:
        return os.path.samestat(os.stat(folder), os.fstat(descriptor))
    except OSError:
        return False


@contextmanager
def in_turn(path: Path, waits: Callable[[], None]) -> Iterator[None]:
    """Make ``path``, one process at a time; ``waits`` is called where it has to, and may raise instead.

    Leaves no file behind.

    Where the file system knows no locks nobody waits.

    Raises
    ------
    WriteError
        The lock, a file beside it, cannot be made.
    """
    if _LOCKS is None:
        yield
        return
    lock = path.with_name(f".{path.name}.lock")
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise WriteError.of(path, error) from error
        if _is_taken(descriptor):
            try:
                waits()
            except BaseException:
                os.close(descriptor)
                raise
            lock_file(descriptor, wait=True)
        if _lies_there(lock, descriptor):
            break
        os.close(descriptor)  # who had it has removed it
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _is_taken(descriptor: int) -> bool:
    """Whether somebody else holds the lock of an open file, which is ours if not; there may be no locks."""
    if _LOCKS is None:
        return False
    try:
        _LOCKS.flock(descriptor, _LOCKS.LOCK_EX | _LOCKS.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # not on this file system
        pass
    return False


def lock_file(descriptor: int, *, wait: bool = False) -> bool:
    """Lock an open file until it is closed.

    False where there are no locks, and, without ``wait``, where somebody else holds it.
    """
    if _LOCKS is None:
        return False
    try:
        _LOCKS.flock(descriptor, _LOCKS.LOCK_EX | (0 if wait else _LOCKS.LOCK_NB))
    except OSError:
        return False
    return True
