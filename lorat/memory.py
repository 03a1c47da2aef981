"""What the process does with memory it has freed."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # mallopt(3)
_TRIM_BYTES, _MMAP_BYTES = 1 << 30, 32 << 20  # as much as glibc takes


def keep_freed_memory() -> bool:
    """Have the allocator keep what a forward pass frees for the next one. Returns whether it does (glibc only).

    By default glibc hands blocks of some hundred kilobytes back at once, and the kernel zeroes each page again at
    its next use: on a CPU that is up to a third of a forward pass with many adapters. One arena for all threads,
    so that what one thread freed serves the others.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    settings = {_M_MMAP_THRESHOLD: _MMAP_BYTES, _M_TRIM_THRESHOLD: _TRIM_BYTES, _M_ARENA_MAX: 1}
    taken = [mallopt(option, value) for option, value in settings.items()]
    return all(taken)
