"""Validation between epochs: its metrics, and whether they are the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from .processes import Processes
from .signals import Interrupted, Stop
from .task import LoopOptions, Task


class Validation:
    """Validates a task's nets.

    Attributes:
        metrics: of the last validation, averaged over processes.
        pictures: of the last validation, in the first process.
        best: the best value so far of the metric that chooses the best epoch.
        since_best: epochs since then.
        warnings_in_a_row: how many of the last validations found something wrong with the run.
    """

    def __init__(self, task: Task, processes: Processes, stop: Stop, options: LoopOptions) -> None:
        self.task, self.processes, self.stop = task, processes, stop
        self.options, self.warn = options, options.warn
        self.metrics: dict[str, float] = {}
        self.pictures: Mapping[str, np.ndarray] = {}
        self.best: float | None = None
        self.since_best = 0
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
                if self.options.pictures is not None and self.processes.is_main:
                    self.pictures = self.options.pictures()
        self.metrics = self.processes.mean(metrics)
        return self.metrics

    def is_best(self) -> bool:
        """Whether the last metrics are better than the best value so far."""
        name, sign = self._choice()
        value = self.metrics.get(name, math.nan)
        return math.isfinite(value) and (self.best is None or sign * value < sign * self.best)

    def end_epoch(self, is_best: bool) -> None:
        """Counts an epoch; takes its metrics for the best ones where they are."""
        self.since_best = 0 if is_best else self.since_best + 1
        if is_best:
            self.best = self.metrics[self._choice()[0]]

    def stops_after(self, epochs: int) -> bool:
        """Whether so many epochs without a better one are as many as `LoopOptions.early_stop` waits for."""
        return self.options.early_stop is not None and epochs >= self.options.early_stop

    def _choice(self) -> tuple[str, int]:
        """The metric that chooses the best epoch, and 1 where less of it is better, else -1."""
        name, direction = self.options.best or ("", "min")
        if self.options.best is not None and name not in self.metrics:
            name, direction = "loss", "min"
        return name, 1 if direction == "min" else -1

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
        names = ("best", "metrics", "warnings_in_a_row", "since_best")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes what `state` gave."""
        self.best, self.metrics = state["best"], state["metrics"]
        self.warnings_in_a_row = state.get("warnings_in_a_row", 0)  # which older states lack, and the next one, too
        self.since_best = state.get("since_best", 0)
