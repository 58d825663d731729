"""What stays in full precision under bf16 autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Within it, nothing is rounded by autocast; devices without autocast, such as "meta", have nothing to switch
    off."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def in_own_precision(net: nn.Module, x: Tensor) -> Tensor:
    """A net's answer in the precision of its parameters, outside of autocast.

    For the last layer before disparities and poses: rounded to bfloat16, neighbours among far disparities lie three
    hundredths apart.
    """
    with without_autocast(x.device):
        found: Tensor = net(x.to(next(net.parameters()).dtype))
    return found
