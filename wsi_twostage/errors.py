"""Every error a user can cause, and the exit code it ends with.

* WsiError
  + SlideError    (missing, unreadable, truncated, no mpp)
    + UnreadableRegion
  + ConfigError   (a value the user can fix)
  + BundleError   (not a bundle, or weights that do not fit the architecture)
  + StoreError    (an output that exists, or is not ours)
    + WriteError  (a full disk, a file system that went away)
  + ClusterError  (workers that were lost during a run)

Each message is one line: where, what was found, what would work.
Bugs stay ``AssertionError`` and ``TypeError`` and keep their traceback.
"""

from enum import IntEnum
from typing import Self


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


class ClusterError(WsiError):
    """Workers that were lost; what is on disk is valid, and can be gone on with."""
