"""Every error a user can cause, and the exit code it ends with.

* WsiError
  + SlideError    (missing, unreadable, truncated)
    + NoScale     (no micrometres per pixel, or implausible ones)
    + UnreadableRegion
    + LostSlide   (went away, or was replaced, during a run)
    + NoCases     (nothing left to calibrate on)
  + ConfigError   (a value the user can fix)
  + BundleError   (not a bundle, or weights that do not fit the architecture)
  + StoreError    (an output that exists, or is not ours)
    + WriteError  (a full disk, a file system that went away)
    + Busy        (another run is at work on it)
  + ClusterError  (workers that were lost during a run)
  + DeviceFull    (a window that does not fit a GPU's memory)

Each message is one line: where, what was found, what would work.
Bugs stay ``AssertionError`` and ``TypeError`` and keep their traceback.
"""

import os
from collections.abc import Iterable
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import Self

_ALIKE = 0.75
"""Of a file's name, and of a missing one, before one is taken for the other."""

_MOST_NAMES = 10_000
"""Of a folder that are compared."""


class ExitCode(IntEnum):
    """How the command ends."""

    OK = 0
    FAILED = 1  # every slide failed, or an internal error
    USAGE = 2  # refused before any work was done
    SOME_FAILED = 3
    INTERRUPTED = 75  # what is on disk is valid


class WsiError(Exception):
    """Something the user can understand and change."""


class SlideError(WsiError):
    """A slide that cannot be read."""


class UnreadableRegion(SlideError):
    """A region of an open slide whose pixels cannot be decoded; the rest may be sound."""


class NoScale(SlideError):
    """A slide that does not say how large its pixels are, where nobody else does."""


class LostSlide(SlideError):
    """A slide that can be read no more; what is on disk is valid, and can be gone on with."""


class NoCases(SlideError):
    """Inputs of a calibration of which none could be used, as is known once all were seen."""


class ConfigError(WsiError):
    """A value that does not make sense."""


class BundleError(WsiError):
    """A model file that cannot be used."""


class StoreError(WsiError):
    """An output that cannot be written or read."""


class WriteError(StoreError):
    """An output that can be written no more; what is there is valid, and can be gone on with."""

    @classmethod
    def of(cls, path: object, error: OSError) -> Self:
        """One line about a file that could not be written."""
        return cls(f"{path}: cannot be written ({error.strerror or error})")


class Busy(StoreError):
    """An output that another run is writing; what is on disk is valid, and can be gone on with after it."""


class ClusterError(WsiError):
    """Workers that were lost; what is on disk is valid, and can be gone on with."""


class DeviceFull(WsiError):
    """A device without the memory for a window; what is on disk is valid, and can be gone on with."""


def one_line(error: BaseException) -> str:
    """The first line of what an error of another library says; its kind, if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """The end of a line about an unknown word: the known one that is nearest to it, if one is near.

    >>> did_you_mean("fp61", ("fp32", "fp16"))
    '; did you mean fp16?'
    """
    from difflib import get_close_matches

    words = {word.lower(): word for word in known}
    near = get_close_matches(str(given).lower(), words, 1)
    return f"; did you mean {words[near[0]]}?" if near else ""


def similar_file(missing: str | os.PathLike[str]) -> str:
    """The end of a line about a missing file: one that is there under nearly the same name, if there is.

    Names with other digits are other slides, not slips.
    """
    from difflib import SequenceMatcher

    place = Path(missing)
    while not place.parent.is_dir() and place.parent != place:
        place = place.parent  # the first part of the path that is missing

    def likeness(there: Path) -> tuple[float, float]:
        pairs = (there.stem, place.stem), (there.suffix, place.suffix)
        stem, suffix = (SequenceMatcher(None, a.lower(), b.lower()).ratio() for a, b in pairs)
        return stem, suffix

    try:
        names = [
            there
            for there in islice(place.parent.iterdir(), _MOST_NAMES)
            if _digits(there.stem) == _digits(place.stem) and there != place
        ]
    except OSError:
        return ""
    nearest = max(names, key=likeness, default=None)
    return f"; did you mean {nearest}?" if nearest and likeness(nearest)[0] >= _ALIKE else ""


def _digits(name: str) -> list[str]:
    return [letter for letter in name if letter.isdigit()]
