"""A worker process that hangs ends itself, so that its task goes to another."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 300.0
"""How long a window, or a write, may take; a window is worth a second or so."""


@contextmanager
def ended_after(seconds: float | None, what: str) -> Iterator[None]:
    """End this process if the block takes longer; None: never.

    A read that hangs in a file system or a codec cannot be interrupted in any other way.
    """
    if seconds is None:
        yield
        return

    def end() -> None:
        logging.getLogger(__name__).critical("%s took more than %g s; this worker ends", what, seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
