"""What the training loop asks of a trainer: its nets and figures, and the options of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..options import TrainingOptions
from .processes import Processes


class Task(Protocol):
    """What a trainer brings to the loop.

    `model(batch)` returns scalar tensors, among them "loss"; `schedule_per_step` says whether the schedule moves per
    step or per epoch. `validate` is called in eval mode without gradients and returns figures; it may be broken off
    anywhere, so that what it asks of other processes (`Processes.total`) comes last. `save` writes the weights of an
    epoch for the user; `extra_state` is whatever else a resumed run needs.
    """

    @property
    def model(self) -> nn.Module: ...
    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def scheduler(self) -> LRScheduler: ...
    @property
    def schedule_per_step(self) -> bool: ...

    def to_device(self, batch: Any, device: torch.device) -> Any: ...
    def names(self, batch: Any) -> list[str]: ...
    def start_epoch(self, epoch: int) -> None: ...
    def validate(self, processes: Processes) -> dict[str, float]: ...
    def save(self, epoch: int, figures: dict[str, float], best: bool) -> None: ...
    def extra_state(self) -> dict[str, Any]: ...
    def load_extra_state(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class LoopOptions:
    """How to run; `folder` takes states, metrics and TensorBoard events."""

    folder: Path
    epochs: int
    resume: bool = False
    compile: bool = False
    checkpoint_activations: bool = False
    sync_bn: bool = False
    clip_grad: float | None = None
    log_frequency: int = 50
    save_frequency: int = 1
    save_minutes: float = 30.0
    validate_first: bool = False
    precision: str = "float32"
    accumulate: int = 1
    max_bad_steps: int = 10
    seed: int = 0
    best: tuple[str, str] | None = None
    """Which validation figure chooses the best epoch, and "min" or "max"."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What must be the same for a run to go on in its folder (`identity.identity`)."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Text files to leave in the folder, by name."""

    @classmethod
    def of(cls, options: TrainingOptions, **own: Any) -> LoopOptions:
        """From the options that all training runs share, and what is the trainer's own."""
        shared = {field.name for field in fields(cls)} & {field.name for field in fields(TrainingOptions)}
        return cls(**{name: getattr(options, name) for name in shared}, **own)
