"""How trained models run: without gradients, in the precision asked for, compiled if wished."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def prepare(model: Model, device: torch.device, compile: bool = False) -> Model:
    """The model on the device, in eval mode and with convolutions in channels-last order.

    Args:
        compile: let torch.compile translate it when it is first called, which takes a minute or so.
    """
    model = model.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compile:
        model.compile(dynamic=False)
    return model


@contextmanager
def inference(device: torch.device, precision: str = "float32") -> Iterator[None]:
    """No gradients; under "bf16" nets run in bfloat16, while the last layers of disparity and pose heads, lengths of
    features and costs stay in float32."""
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield
