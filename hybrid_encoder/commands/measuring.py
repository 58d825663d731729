"""Time and memory of a call, and what can be measured without data: frames in memory and a training step."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ..data.sample import FrameId
from ..engine.memory import peak_gib
from ..engine.processes import Processes
from ..engine.step import Stepper
from ..options import Precision
from ..stage2.model import DepthBatch

Measures = dict[str, float]


def machine(device: torch.device) -> str:
    """Describes the machine: processor or GPU, threads and versions."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        info = Path("/proc/cpuinfo")
        models = (
            [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
        )
        name = models[0].split(":")[1].strip() if models else platform.processor() or platform.machine()
        name = f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    # The towers' libraries are slow to import: their versions are read from what pip has noted.
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, timm {version('timm')}"
    return f"{name}; {versions}, open_clip {version('open_clip_torch')}"


def median_seconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median duration of a call in seconds, after one warm-up: wall time, or on a GPU the time between its events."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return statistics.median([_gpu_seconds(call) for _ in range(repeats + 1)][1:])
    return statistics.median([_wall_seconds(call) for _ in range(repeats + 1)][1:])


def _wall_seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _gpu_seconds(call: Callable[[], object]) -> float:
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    started.record()
    call()
    ended.record()
    ended.synchronize()
    return float(started.elapsed_time(ended)) / 1000


def peak_memory(device: torch.device) -> Measures:
    """Peak memory in GiB: of tensors on the GPU, or of this process on the CPU; empty where that is unknown."""
    gib = peak_gib(device)
    return {} if gib is None else {"peak_memory_gib": gib}


def frames_in_memory(batch: int, height: int, width: int, device: torch.device | None = None) -> DepthBatch:
    """A batch as the trainers' loader makes it: a smooth random scene that moves sideways, with KITTI's intrinsics."""
    torch.manual_seed(0)
    K = torch.tensor([[0.58 * width, 0, 0.5 * width], [0, 1.92 * height, 0.5 * height], [0, 0, 1]], device=device)
    coarse = torch.rand(batch, 3, height // 8, width // 8).to(device)
    wide = F.interpolate(coarse, (height, width + 16), mode="bilinear")
    frames: dict[FrameId, Tensor] = {i: wide[..., 8 + 2 * i : 8 + 2 * i + width].contiguous() for i in (0, -1, 1)}
    unmoved = torch.eye(4, device=device).repeat(batch, 1, 1)
    return DepthBatch(frames, frames, K.repeat(batch, 1, 1), unmoved, ["sample"] * batch)


def training_step(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Sequence[Any],
    processes: Processes,
    precision: Precision = "float32",
    called: Any = None,
) -> Callable[[], float]:
    """A function that runs a step of the training loop on batches in memory, and returns the last loss.

    Args:
        called: the compiled model; None: it is not compiled.
    """
    stepper = Stepper(model, called or model, processes, precision, None)

    def step() -> float:
        for position, batch in enumerate(batches):
            scalars = stepper.run(optimizer, batch, batch.sample_names, position, len(batches))
        stepper.finish(optimizer)
        return float(scalars["loss"])

    return step
