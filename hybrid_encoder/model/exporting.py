"""What models ask while `torch.export` traces them: sizes must not become constants or conditions of its program."""

from __future__ import annotations

import torch
from torch import Tensor


def is_exporting() -> bool:
    """Whether `torch.export` traces now: image sizes that are compared become conditions of its program."""
    tell = getattr(torch.compiler, "is_exporting", None)  # torch 2.7
    return tell is not None and bool(tell())


def length(values: Tensor) -> Tensor:
    """The number of values (N,) as a scalar of their type: a size that becomes a float becomes a constant."""
    return torch.ones_like(values).sum()
