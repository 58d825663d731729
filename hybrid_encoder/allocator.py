"""How this process's memory is managed on a CPU."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc, malloc.h


def keep_freed_memory() -> None:
    """Lets the C library keep what is freed for the next allocation of this process, up to its peak.

    By default it hands large tensors back to the system, which clears every page anew: a tenth of the time of a
    forward pass on a CPU (benchmarks/README.md). Does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, -1)  # never
        mallopt(_MMAP_MAX, 0)
