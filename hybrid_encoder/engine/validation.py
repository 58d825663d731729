"""Validation between epochs: its metrics, and whether they are the best so far."""

from __future__ import annotations

import math

import torch
from torch import nn

from .processes import Processes
from .signals import Interrupted, Stop
from .task import Task


class Validation:
    """Validates a task's nets.

    Attributes:
        metrics: of the last validation, averaged over processes.
        best: the best value so far of the metric that chooses the best epoch.
    """

    def __init__(self, task: Task, processes: Processes, stop: Stop, chosen_by: tuple[str, str] | None) -> None:
        """
        Args:
            chosen_by: name of the metric that chooses the best epoch, and "min" or "max"; None: there is no best one.
        """
        self.task, self.processes, self.stop, self.chosen_by = task, processes, stop, chosen_by
        self.metrics: dict[str, float] = {}
        self.best: float | None = None

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

    def non_finite(self) -> str:
        """Names of the last metrics that are not finite, for messages."""
        return ", ".join(name for name, value in self.metrics.items() if not math.isfinite(value))
