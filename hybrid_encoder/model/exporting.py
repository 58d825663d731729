"""Whether `torch.export` traces a model now."""

from __future__ import annotations

import torch


def is_exporting() -> bool:
    """Whether `torch.export` traces now: image sizes that are compared would become conditions of its program."""
    tell = getattr(torch.compiler, "is_exporting", None)  # torch 2.7
    return tell is not None and bool(tell())
