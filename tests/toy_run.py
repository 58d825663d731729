"""A run of the engine as small as can be: a net with batch norm and dropout on made-up numbers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

from hybrid_encoder.data.loader import LoaderOptions, SampleDataset, make_loader
from hybrid_encoder.engine.loop import LoopOptions, fit
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.errors import UserError

SAMPLES = 22
BATCH = 2
ALONE = Processes(torch.device("cpu"))
At = Callable[["ToyModel", Tensor], Tensor]


class ToyDataset(SampleDataset[dict[str, Any]]):
    """Numbers drawn by (epoch, index); those at `bad` cannot be read."""

    def __init__(self, bad: tuple[int, ...] = (), before: Callable[[int], None] | None = None) -> None:
        self.bad, self.before = bad, before

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, key: Any) -> dict[str, Any]:
        epoch, index = key
        if self.before:
            self.before(index)
        if index in self.bad:
            raise UserError(f"the image {index}.jpg is cut off")
        generator = torch.Generator().manual_seed(1000 * epoch + index)
        return {"x": torch.randn(4, generator=generator), "name": f"sample {index}"}


class ToyModel(nn.Module):
    """`at` is called in every training step with the model and its input; what it returns is the input."""

    def __init__(self, at: At | None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.at = at
        self.calls = 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.training:
            self.calls += 1
            if self.at is not None:
                x = self.at(self, x)
        return {"loss": (self.net(x) - x.sum(1, keepdim=True)).square().mean()}


class ToyTask:
    def __init__(
        self, at: At | None, per_step: bool, bad: tuple[int, ...] = (), device: torch.device = ALONE.device
    ) -> None:
        torch.manual_seed(5)
        self.device = device
        self.model = ToyModel(at).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.scheduler: Any = StepLR(self.optimizer, 3, 0.7)
        self.schedule_per_step = per_step
        self.saved: list[tuple[int, bool]] = []
        self.val_loader = make_loader(ToyDataset(bad), BATCH, train=False, options=LoaderOptions(skip_bad=len(bad)))

    def to_device(self, batch: Any, device: torch.device) -> Tensor:
        x: Tensor = batch["x"].to(device)
        return x

    def sample_names(self, batch: Any) -> list[str]:
        return list(batch["name"])

    def start_step(self, epoch: int, step: int) -> None:
        pass

    def validate(self, processes: Processes) -> dict[str, float]:
        return {"error": sum(float(self.model(batch["x"].to(self.device))["loss"]) for batch in self.val_loader)}

    def save(self, epoch: int, metrics: dict[str, float], best: bool) -> None:
        self.saved.append((epoch, best))

    def extra_state(self) -> dict[str, Any]:
        return {"saved": self.saved}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.saved = [tuple(entry) for entry in state["saved"]]


def run(
    folder: Path,
    at: At | None = None,
    *,
    processes: Processes = ALONE,
    per_step: bool = False,
    bad: tuple[int, ...] = (),
    before: Callable[[int], None] | None = None,
    workers: int = 0,
    skip_bad: int = 0,
    **options: Any,
) -> ToyTask:
    """Trains three epochs in a folder, or what is left of them."""
    task = ToyTask(at, per_step, bad, processes.device)
    loading = LoaderOptions(workers, rank=processes.rank, world_size=processes.world_size, skip_bad=skip_bad)
    loader = make_loader(ToyDataset(bad, before), BATCH, train=True, options=loading)
    settings: dict[str, Any] = {
        "epochs": 3, "clip_grad": 1.0, "log_frequency": 2, "validate_first": True, "best": ("error", "min"), **options,
    }  # fmt: skip
    try:
        fit(task, loader, LoopOptions(folder, **settings), processes)
    finally:
        # An exception that a test keeps also keeps the loader; garbage collection then closes the queues of its workers
        # before it ends them, which takes 5 s for each.
        loader.end_workers()
    return task


def signal_at(step: int, number: int = signal.SIGTERM) -> At:
    """Sends this process a signal in the middle of a step."""

    def act(model: ToyModel, x: Tensor) -> Tensor:
        if model.calls == step:
            os.kill(os.getpid(), number)
        return x

    return act


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two states differ by as much as a bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: keys"]
        return [found for key in a for found in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return [f"{where}: length"]
        return [found for i in range(len(a)) for found in differences(a[i], b[i], f"{where}.{i}")]
    return [] if a == b else [where]
