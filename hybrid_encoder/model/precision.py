"""What stays in full precision under bf16 autocast."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def in_own_precision(net: nn.Module, x: Tensor) -> Tensor:
    """A net's answer in the precision of its parameters, outside of autocast.

    For the last layer before disparities and poses: rounded to bfloat16, neighbours among far disparities lie three
    hundredths apart.
    """
    with torch.autocast(x.device.type, enabled=False):
        found: Tensor = net(x.to(next(net.parameters()).dtype))
    return found
