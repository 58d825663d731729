"""Settings of the C library's memory allocation, for training on a CPU."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Lets the C library keep freed memory for later allocations of this process, up to its peak.

    By default it returns much of this memory to the system at once, which has to clear every page before it is used
    again: this takes a few hundredths of the time on a CPU. Does nothing if the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, -1)  # never
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the largest value; by default glibc raises the threshold up to it
