"""Memory of this process: kept for the next window instead of given back each time, and its peak."""

import ctypes
import platform
import sys
from typing import Any

import psutil

try:
    import resource as _resource
except ImportError:  # Windows
    _USAGE: Any = None
else:
    _USAGE = _resource

_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1  # malloc.h
ALL = -1


def keep_freed_memory(most: int = 2**28) -> bool:
    """Set glibc's allocator for a process that runs networks on a CPU; says whether it could.

    A window's activations are tens of megabytes each. By default each is mapped anew, and its pages are
    cleared by the kernel at first touch, which takes a good part of a run. It holds for a whole process, so
    the command and workers that it prepares call it, the library by itself never does.

    Parameters
    ----------
    most
        Bytes at the end of the heap; `ALL` for trainings, which free gigabytes after each step.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    options = (_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, most)
    taken = [libc.mallopt(option, value) == 1 for option, value in options]
    return all(taken)


def peak_memory() -> int:
    """Bytes that this process has taken at most so far."""
    if _USAGE is None:
        told = psutil.Process().memory_info()
        return int(getattr(told, "peak_wset", told.rss))
    return int(_USAGE.getrusage(_USAGE.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
