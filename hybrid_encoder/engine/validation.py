"""Validation between epochs: its metrics, and whether they are the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .processes import Processes
from .signals import Interrupted, Stop
from .task import LoopOptions, Task


class Validation:
    """Validates a task's nets.

    Attributes:
        metrics: of the last validation, averaged over processes.
        best: the best value so far of the metric that chooses the best epoch.
        warnings_in_a_row: how many of the last validations found something wrong with the run.
    """

    def __init__(self, task: Task, processes: Processes, stop: Stop, options: LoopOptions) -> None:
        self.task, self.processes, self.stop = task, processes, stop
        self.chosen_by, self.warn = options.best, options.warn
        self.metrics: dict[str, float] = {}
        self.best: float | None = None
        self.warnings_in_a_row = 0

    def run(self, model: nn.Module) -> dict[str, float]:
        """The metrics of the nets, which `model` wraps. Leaves the random state as it was.

        Raises:
            Interrupted: a stop was asked for.
        """
        if self.processes.any(self.stop.asked):
            raise Interrupted
        model.eval()
        self.processes.share_buffers(self.task.model)
        device = self.processes.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(0)
            with self.stop.at_once():
                metrics = self.task.validate(self.processes)
        self.metrics = self.processes.mean(metrics)
        return self.metrics

    def is_best(self) -> bool:
        """Whether the last metrics are better than the best value so far."""
        if self.chosen_by is None:
            return False
        name, direction = self.chosen_by
        value = self.metrics.get(name, math.nan)
        sign = 1 if direction == "min" else -1
        return math.isfinite(value) and (self.best is None or sign * value < sign * self.best)

    def keep_best(self) -> None:
        """Takes the last metrics for the best ones."""
        if self.chosen_by is not None:
            self.best = self.metrics[self.chosen_by[0]]

    def warning(self) -> str:
        """What is wrong with the run by the last metrics, in one line; empty: nothing is. Counts them."""
        found = self.warn(self.metrics) if self.warn is not None else ""
        self.warnings_in_a_row = self.warnings_in_a_row + 1 if found else 0
        return found

    def non_finite(self) -> str:
        """Names of the last metrics that are not finite, for messages."""
        return ", ".join(name for name, value in self.metrics.items() if not math.isfinite(value))

    def state(self) -> dict[str, Any]:
        """What a resumed run needs of it."""
        return {"best": self.best, "metrics": self.metrics, "warnings_in_a_row": self.warnings_in_a_row}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` gave."""
        self.best, self.metrics = state["best"], state["metrics"]
        self.warnings_in_a_row = state.get("warnings_in_a_row", 0)  # which older states lack
