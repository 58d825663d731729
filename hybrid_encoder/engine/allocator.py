"""How this process's memory is managed on a CPU."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Lets the C library keep what is freed for the next allocation of this process, up to its peak.

    By default it hands much of it back to the system at once, which has to clear every page before it serves again: a
    few hundredths of the time on a CPU. Does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, -1)  # never
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the largest; left alone, glibc moves up to it
