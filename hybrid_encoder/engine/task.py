"""What the training loop asks of a trainer: its nets and metrics, and the options of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .options import TrainingOptions
from .processes import Processes


class Task(Protocol):
    """What a trainer brings to the loop.

    Attributes:
        model: all nets as one module; `model(batch)` returns scalar tensors, among them "loss".
        optimizer, scheduler: of its parameters.
        schedule_per_step: whether the schedule moves per step of the optimiser, else per epoch.
    """

    @property
    def model(self) -> nn.Module: ...
    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def scheduler(self) -> LRScheduler: ...
    @property
    def schedule_per_step(self) -> bool: ...

    def to_device(self, batch: Any, device: torch.device) -> Any:
        """A collated batch of the loader as the model takes it."""

    def sample_names(self, batch: Any) -> list[str]:
        """The samples of a collated batch, for messages."""

    def start_step(self, epoch: int, step: int) -> None:
        """Called before each batch in training: what changes with epochs (from 0) or batches (from 0, over all
        epochs)."""

    def validate(self, processes: Processes) -> dict[str, float]:
        """Metrics of the validation part, in eval mode and without gradients.

        It may be broken off anywhere, so that what it asks of other processes (`Processes.total`) comes last.
        """

    def save(self, epoch: int, metrics: dict[str, float], best: bool) -> None:
        """Writes the weights of an epoch for the user."""

    def extra_state(self) -> dict[str, Any]:
        """What a resumed run needs besides nets, optimiser and schedule."""

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes what `extra_state` gave; called before nets and optimiser are filled."""


def task_state(task: Task) -> dict[str, Any]:
    """What a task's run resumes from."""
    return {
        "model": task.model.state_dict(),
        "optimizer": task.optimizer.state_dict(),
        "scheduler": task.scheduler.state_dict(),
        "extra": task.extra_state(),
    }


def load_task_state(task: Task, state: Mapping[str, Any]) -> None:
    """Takes what `task_state` gave; raises what PyTorch does for tensors of other shapes."""
    # Extra state first: a trainer may freeze nets, and so rebuild its optimiser, by what it finds there.
    task.load_extra_state(state["extra"])
    task.model.load_state_dict(state["model"])
    task.optimizer.load_state_dict(state["optimizer"])
    task.scheduler.load_state_dict(state["scheduler"])


@dataclass(frozen=True)
class LoopOptions:
    """How to run; `folder` takes states, metrics and TensorBoard events."""

    folder: Path
    epochs: int
    resume: bool = False
    dry_run: bool = False
    compile: bool = False
    checkpoint_activations: bool = False
    sync_bn: bool = False
    clip_grad: float | None = None
    clip_parts: tuple[str, ...] = ()
    """Names of the model's parts whose gradients are cut, each for itself; none: all gradients together."""
    log_frequency: int = 50
    save_frequency: int = 1
    save_minutes: float = 30.0
    validate_first: bool = False
    precision: str = "float32"
    accumulate: int = 1
    max_bad_steps: int = 10
    seed: int = 0
    best: tuple[str, str] | None = None
    """Which metric of validation chooses the best epoch, and "min" or "max"; the least loss does where validation has
    no such metric."""
    early_stop: int | None = None
    """Stop after so many epochs in a row without a better one."""
    warn: Callable[[Mapping[str, float]], str] | None = None
    """Says in one line what is wrong with a run by the metrics of a validation, and what helps; empty: nothing is."""
    stop_on_warning: bool = False
    """Stop where two validations in a row have such a line."""
    pictures: Callable[[], Mapping[str, np.ndarray]] | None = None
    """Makes pictures after each validation for TensorBoard, uint8 RGB (H, W, 3) by name."""
    smallest_map: int | None = None
    """Values of a channel in a batch's smallest feature map, which batch norm averages over; None: not known."""
    same_run: Mapping[str, Any] = field(default_factory=dict)
    """Options that must be the same for a run to resume in its folder (`same_run.fixed_options`)."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """What the run reads, each input by its name and what tells it from others (`same_run`)."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Text files to leave in the folder, by name."""

    @classmethod
    def of(cls, options: TrainingOptions, **own: Any) -> LoopOptions:
        """From the options that all training runs share, and what is the trainer's own."""
        shared = {field.name for field in fields(cls)} & {field.name for field in fields(TrainingOptions)}
        return cls(**{name: getattr(options, name) for name in shared}, **own)
