"""When a run ends early: at a time, or because it was asked to; tasks look before each window."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from wsi_twostage.errors import ExitCode

ECHO_S = 0.5
"""A signal that comes again so soon is the same one: `timeout` and others tell a process and its group."""

ASKED = threading.Event()
"""Set, every run in this process ends within seconds, with a valid store."""


class Stopped(Exception):
    """A run was asked to end, or its time was over; what it did is in the store."""


_ASKED_RUNS = set[str]()  # of which this process is a worker


def ask(run: str) -> None:
    """Ask a run to end whose tasks are at work in this process, but which is led from another one."""
    _ASKED_RUNS.add(run)


def over(until: float | None, *, in_seconds: float = 0.0, run: str = "") -> bool:
    """Whether to stop now, given a time (of `time.time`) and how long the next piece of work takes."""
    asked = ASKED.is_set() or run in _ASKED_RUNS
    return asked or (until is not None and time.time() + in_seconds > until)


@contextmanager
def on_signals() -> Iterator[None]:
    """SIGINT and SIGTERM ask to stop; a second one ends the process at once, whatever hangs in it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    first: float | None = None

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first is not None and time.monotonic() - first > ECHO_S:
            os._exit(ExitCode.INTERRUPTED)
        first = first or time.monotonic()
        ASKED.set()

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        ASKED.clear()
