"""The interface between a trainer and the training loop: its nets and metrics, and the options of the run."""

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

from ..options import Precision
from .options import TrainingOptions
from .processes import Processes


class Task(Protocol):
    """A trainer, as the loop sees it.

    Attributes:
        model: all nets as one module; `model(batch)` returns scalar tensors, among them "loss".
        optimizer, scheduler: of the model's parameters.
        schedule_per_step: whether the schedule moves after each step of the optimiser rather than each epoch.
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
        """Turns a collated batch of the loader into the model's input."""

    def sample_names(self, batch: Any) -> list[str]:
        """Names of the samples in a collated batch, for messages."""

    def start_step(self, epoch: int, step: int) -> None:
        """Called before each batch in training, for what changes with epochs (from 0) or batches (from 0, over all
        epochs)."""

    def validate(self, processes: Processes) -> dict[str, float]:
        """Metrics of the validation part, in eval mode and without gradients.

        It may be interrupted anywhere: so exchanges with other processes (`Processes.total`) come last.
        """

    def save(self, epoch: int, metrics: dict[str, float], best: bool) -> None:
        """Writes the weights of an epoch for the user."""

    def extra_state(self) -> dict[str, Any]:
        """The state that a resumed run needs besides nets, optimiser and schedule."""

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what `extra_state` returned; called before nets and optimiser are filled."""


class PlainTask:
    """What a trainer need not write if its collated batches are dicts with the key "name", nothing changes between its
    steps, and a resumed run needs nets, optimiser and schedule alone."""

    def sample_names(self, batch: Any) -> list[str]:
        names: list[str] = batch["name"]
        return names

    def start_step(self, epoch: int, step: int) -> None:
        """Nothing changes between steps."""

    def extra_state(self) -> dict[str, Any]:
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """There is none."""


def task_state(task: Task) -> dict[str, Any]:
    """The state from which a run of this task resumes."""
    return {
        "model": task.model.state_dict(),
        "optimizer": task.optimizer.state_dict(),
        "scheduler": task.scheduler.state_dict(),
        "extra": task.extra_state(),
    }


def load_task_state(task: Task, state: Mapping[str, Any]) -> None:
    """Restores what `task_state` returned; PyTorch's errors for tensors of other shapes are not caught."""
    # Extra state first: by it a trainer may freeze nets and rebuild its optimiser.
    task.load_extra_state(state["extra"])
    task.model.load_state_dict(state["model"])
    task.optimizer.load_state_dict(state["optimizer"])
    _lay_like_weights(task.optimizer)
    task.scheduler.load_state_dict(state["scheduler"])


def _lay_like_weights(optimizer: Optimizer) -> None:
    """Lays an optimiser's state out in memory like its weights: fused optimisers on CPUs take both in order of memory,
    and the run that saved the state may have had another layout, on a GPU or before version 0.2."""
    for weights, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == weights.shape and value.stride() != weights.stride():
                state[name] = torch.empty_like(weights, dtype=value.dtype).copy_(value)


@dataclass(frozen=True)
class LoopOptions:
    """How to run; states, metrics and TensorBoard events are written to `folder`."""

    folder: Path
    epochs: int
    resume: bool = False
    dry_run: bool = False
    compile: bool = False
    checkpoint_activations: bool = False
    sync_bn: bool = False
    clip_grad: float | None = None
    clip_parts: tuple[str, ...] = ()
    """Names of the model's parts whose gradients are clipped, each part by its own norm; empty: all together."""
    log_frequency: int = 50
    save_frequency: int = 1
    save_minutes: float = 30.0
    validate_first: bool = False
    precision: Precision = "float32"
    accumulate: int = 1
    max_bad_steps: int = 10
    seed: int = 0
    best: tuple[str, str] | None = None
    """The validation metric that decides the best epoch, and "min" or "max"; without such a metric, the lowest loss
    decides."""
    early_stop: int | None = None
    """Stop after so many epochs in a row without a better one."""
    warn: Callable[[Mapping[str, float]], str] | None = None
    """From the metrics of a validation, one line on what is wrong with the run and what helps; empty: nothing is
    wrong."""
    stop_on_warning: bool = False
    """Stop if two validations in a row give such a line."""
    pictures: Callable[[], Mapping[str, np.ndarray]] | None = None
    """Makes pictures after each validation for TensorBoard, uint8 RGB (H, W, 3) by name."""
    smallest_map: int | None = None
    """Number of values per channel in a batch's smallest feature map, for batch norm; None: unknown."""
    same_run: Mapping[str, Any] = field(default_factory=dict)
    """Options that must be the same for a run to resume in its folder (`same_run.fixed_options`)."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Digests of what the run reads, by the name of the input (`same_run`)."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Text files that are written to the folder, by name."""

    @classmethod
    def of(cls, options: TrainingOptions, **own: Any) -> LoopOptions:
        """From the options that all trainers share, and `own`, which the trainer sets itself."""
        shared = {field.name for field in fields(cls)} & {field.name for field in fields(TrainingOptions)}
        return cls(**{name: getattr(options, name) for name in shared}, **own)
