"""What bad luck does to a process, and tasks and slides that do it; light to import, for the workers."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PARENT = os.environ.setdefault("WSI_TEST_PARENT", str(os.getpid()))  # worker processes inherit it


class Killed(BaseException):
    """Like a SIGKILL: nobody is asked."""


def die_of(poison: int, numbers: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers, unless the poison is among them."""
    if poison in numbers:
        os._exit(1)
    time.sleep(0.05)
    return numbers


@dataclass(frozen=True)
class BadView:
    """A view of a slide with a bad spot, (row, col) in its pixels, that only worker processes suffer from."""

    view: object
    kind: str
    spot: tuple[int, int]
    flag: Path
    """A file that is there while the spot is bad; a spot that hangs does so once."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.view, name)

    @property
    def path(self) -> str:
        gone = self.kind == "missing" and str(os.getpid()) != PARENT and self.flag.exists()
        return f"{self.view.path}{'.gone' if gone else ''}"  # type: ignore[attr-defined]

    def read(self, box: object) -> NDArray[np.uint8]:
        row, col = self.spot
        inside = box.top <= row < box.bottom and box.left <= col < box.right  # type: ignore[attr-defined]
        if str(os.getpid()) != PARENT and self.flag.exists():
            if inside and self.kind == "crash":
                os._exit(1)
            if inside and self.kind == "hang":
                self.flag.unlink()
                time.sleep(1000)
        return self.view.read(box)  # type: ignore[attr-defined, no-any-return]
