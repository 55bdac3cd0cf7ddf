"""Keep freed memory for the next window instead of giving it back to the system each time."""

import ctypes
import platform

_GLIBC = {-8: 1, -4: 0, -1: 2**28}  # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD


def keep_freed_memory() -> bool:
    """Set glibc's allocator for a process that runs networks on a CPU; says whether it could.

    A window's activations are tens of megabytes each. By default each is mapped anew, and its pages are
    cleared by the kernel at first touch, which takes a good part of a run. It holds for a whole process, so
    the command and workers that it prepares call it, the library by itself never does.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    taken = [libc.mallopt(option, value) == 1 for option, value in _GLIBC.items()]
    return all(taken)
