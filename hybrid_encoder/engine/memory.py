"""How much memory this process took."""

from __future__ import annotations

import sys

import torch

if sys.platform != "win32":
    import resource


def peak_gib(device: torch.device) -> float | None:
    """GiB that tensors on the GPU, or on a CPU this process, took at most; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
