"""How trained models run: without gradients, in the precision asked for, compiled if wished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from ..options import Precision

Model = TypeVar("Model", bound=nn.Module)
_WORTH = 0.9
"""bf16 is taken where it needs at most this share of the time."""
_REPEATS = 2


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
def inference(device: torch.device, precision: Precision = "float32") -> Iterator[None]:
    """No gradients; under "bf16" nets run in bfloat16, while the last layers of disparity and pose heads, lengths of
    features and costs stay in float32."""
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


def faster_precision(see: Callable[[], object]) -> Precision:
    """The precision in which a model on the CPU sees an image faster, as measured.

    AbsRel of the package's weights moves by 0.0003 of itself in bf16 (benchmarks/README.md); others were not looked at.

    Args:
        see: lets the model see an image.
    """
    plain, mixed = _seconds(see, "float32"), _seconds(see, "bf16")
    return "bf16" if mixed <= _WORTH * plain else "float32"


def is_cpu_with_bf16(device: torch.device) -> bool:
    """Whether the device is a CPU that has instructions for bf16 (AMX, AVX512-BF16), as far as PyTorch tells."""
    if device.type != "cpu":
        return False
    tell = getattr(torch.cpu, "get_capabilities", None)  # older versions of PyTorch do not
    able = {} if tell is None else tell()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


def _seconds(see: Callable[[], object], precision: Precision) -> float:
    """The fewest seconds of a call, after a warm-up."""
    durations = []
    with inference(torch.device("cpu"), precision):
        for _ in range(_REPEATS + 1):
            started = time.perf_counter()
            see()
            durations.append(time.perf_counter() - started)
    return min(durations[1:])
