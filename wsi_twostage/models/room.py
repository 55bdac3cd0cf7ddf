"""Room in a device's memory: threads share it, and one that finds too little has all of it for once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

_SAID = ("out of memory", "ALLOC_FAILED")
"""By CUDA, cuBLAS and cuDNN, for what torch does not take from its own pool."""


class _Room:
    """Of this process; like a lock for readers and a writer."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside, self._wanted = 0, False
        self._here = threading.local()

    @property
    def mine(self) -> bool:
        """Whether this thread is in it."""
        return bool(getattr(self._here, "inside", False))

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Beside others; not while one is alone, or waits to be."""
        with self._changed:
            self._changed.wait_for(lambda: not self._wanted)
            self._inside += 1
        self._here.inside = True
        try:
            yield
        finally:
            self._here.inside = False
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Once all others have left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._wanted)
            self._wanted = True
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._inside)
            self._here.inside = True
            yield
        finally:
            self._here.inside = False
            with self._changed:
                self._wanted = False
                self._changed.notify_all()


_ROOM = _Room()


def with_room(work: Callable[[], T]) -> T:
    """What the work gives; where it finds no memory beside other threads' work it is tried again alone.

    Work inside of other work is tried again with it. What is raised the second time says `is_full`, if that
    is why.
    """
    if _ROOM.mine:
        return work()
    try:
        with _ROOM.shared():
            return work()
    except RuntimeError as error:
        if not is_full(error):
            raise
    # here, where the error is gone, and with it the tensors that its traceback held
    with _ROOM.alone():
        torch.cuda.empty_cache()
        return work()


def within_room() -> bool:
    """Whether this thread is at work in it: what is raised here is tried again outside."""
    return _ROOM.mine


def is_full(error: RuntimeError) -> bool:
    """Whether a device had too little memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in _SAID)


def reason(error: RuntimeError) -> str:
    """What was asked for, without the inventory that torch adds."""
    first = str(error).splitlines()[0]
    return first.split(" GPU ")[0].rstrip(". ")
