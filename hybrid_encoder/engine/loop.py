"""The training loop that stage 1 and every trainer share: steps, validation, saving, resuming, stopping."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from ..data.source import EpochSampler
from ..errors import UserError
from .processes import Processes
from .record import Recorder, device_memory, progress
from .state import exclusive, load_state, save_state

EXIT_INTERRUPTED = 3
"""Exit status of a run that was asked to stop, saved its state and did."""


class Interrupted(Exception):  # noqa: N818 (not an error: the run did as asked)
    """The run was asked to stop and has saved its state."""


class Task(Protocol):
    """What a trainer brings to the loop.

    `model(batch)` returns scalar tensors, among them "loss"; `scheduler_steps` says whether the schedule moves per
    step or per epoch. `validate` is called in eval mode without gradients and returns figures. `save` writes the
    weights of an epoch for the user; `extra_state` is whatever else a resumed run needs.
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
    clip_grad: float | None = None
    log_frequency: int = 50
    save_frequency: int = 1
    validate_first: bool = False
    precision: str = "float32"
    accumulate: int = 1
    max_bad_steps: int = 10
    seed: int = 0
    best: tuple[str, str] | None = None
    """Which validation figure chooses the best epoch, and "min" or "max"."""


def fit(task: Task, loader: DataLoader[Any], options: LoopOptions, processes: Processes) -> dict[str, float]:
    """Trains to the last epoch and returns the last validation's figures.

    A run that was interrupted goes on where its last state was saved: nets, optimiser, schedule, position within the
    epoch. Random numbers are a function of seed, step and process, so that there is no random state to lose.

    Raises:
        Interrupted: SIGTERM or SIGINT came; the state is saved.
        UserError: too many non-finite losses, a full disk, a folder in use, or one that holds another run.
    """
    with _only_main_locks(options.folder, processes), _stop_on_signal() as stop:
        return _Loop(task, loader, options, processes, stop).run()


class _Loop:
    def __init__(
        self, task: Task, loader: DataLoader[Any], options: LoopOptions, processes: Processes, stop: _Stop
    ) -> None:
        self.task, self.loader, self.options, self.processes, self.stop = task, loader, options, processes, stop
        self.device = processes.device
        self.epoch = self.step_in_epoch = self.step = self.bad_steps = 0
        self.best: float | None = None
        self.figures: dict[str, float] = {}
        self._resume()
        self.model = processes.wrap(task.model)
        self.recorder = Recorder(options.folder if processes.is_main else None, self.step)

    def run(self) -> dict[str, float]:
        try:
            if self.options.validate_first and self.step == 0:
                self._validate()
                self.best = None  # nets that were not trained are no candidate
            while self.epoch < self.options.epochs:
                self._train_epoch()
                self.epoch += 1
                self.step_in_epoch = 0
                if not self.task.schedule_per_step:
                    self.task.scheduler.step()
                is_best = self._validate()
                last = self.epoch == self.options.epochs
                if self.processes.is_main and (last or is_best or self.epoch % self.options.save_frequency == 0):
                    self.task.save(self.epoch - 1, self.figures, is_best)
                self._save_state()
            return self.figures
        finally:
            self.recorder.close()

    def _train_epoch(self) -> None:
        sampler = self.loader.sampler
        if isinstance(sampler, EpochSampler):
            sampler.set_epoch(self.epoch, self.step_in_epoch * (self.loader.batch_size or 1))
        self.task.start_epoch(self.epoch)
        self.model.train()
        total = self.step_in_epoch + len(self.loader)
        with progress(total, self.step_in_epoch, self.epoch, self.options.epochs, self.processes.is_main) as bar:
            waited = time.perf_counter()
            for batch in self.loader:
                loading = time.perf_counter() - waited
                scalars = self._step(batch)
                self.step += 1
                self.step_in_epoch += 1
                seconds = time.perf_counter() - waited
                bar.update()
                images = len(self.task.names(batch)) * self.processes.world_size
                if scalars and (self.step % self.options.log_frequency == 0 or self.step == 1):
                    numbers = self.processes.mean({name: float(value) for name, value in scalars.items()})
                    bar.set_postfix(
                        loss=f"{numbers['loss']:.4f}", img_s=f"{images / seconds:.1f}", **device_memory(self.device)
                    )
                    numbers["learning_rate"] = self.task.optimizer.param_groups[0]["lr"]
                    numbers["images_per_second"] = images / seconds
                    numbers["loading_share"] = loading / seconds
                    self.recorder.scalars("train", self.step, self.epoch, numbers)
                if self.processes.any(self.stop.asked):
                    self._save_state()
                    raise Interrupted(f"stopped at step {self.step}, state saved: run the same command again to go on")
                waited = time.perf_counter()

    def _step(self, batch: Any) -> dict[str, Tensor]:
        """One step of the optimiser; an empty result where the loss or a gradient was not finite and the step was
        skipped."""
        task, options = self.task, self.options
        names = task.names(batch)
        torch.manual_seed(self.options.seed + self.step * self.processes.world_size + self.processes.rank)
        batch = task.to_device(batch, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            scalars: dict[str, Tensor] = self.model(batch)
        loss = scalars["loss"] / options.accumulate
        finite = bool(torch.isfinite(loss))
        if self.processes.world_size > 1 or finite:
            # Under several processes all must take part in the reduction, also with a loss that is not finite.
            loss.backward()
        boundary = (self.step + 1) % options.accumulate == 0
        parameters = [p for group in task.optimizer.param_groups for p in group["params"]]
        if finite and boundary:
            norm = nn.utils.clip_grad_norm_(parameters, options.clip_grad or math.inf)
            finite = bool(torch.isfinite(norm))
        if self.processes.any(not finite):
            task.optimizer.zero_grad(set_to_none=True)
            self._count_bad_step(names, float(scalars["loss"].detach()))
            return {}
        if boundary:
            task.optimizer.step()
            task.optimizer.zero_grad(set_to_none=True)
            if task.schedule_per_step:
                task.scheduler.step()
        return {name: value.detach() for name, value in scalars.items()}

    def _count_bad_step(self, names: list[str], loss: float) -> None:
        self.bad_steps += 1
        where = f"step {self.step + 1} skipped: loss {loss} or its gradient is not finite; samples: {', '.join(names)}"
        print(where, file=sys.stderr)
        if self.bad_steps > self.options.max_bad_steps:
            raise UserError(
                f"{self.bad_steps} steps were not finite, the last on {', '.join(names)}: the run stops, its last good "
                f"state is in {self.options.folder}. Lower the learning rate or look at these samples"
            )

    def _validate(self) -> bool:
        """Figures of the validation set; whether they are the best so far. Leaves the random state as it was."""
        self.model.eval()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(0)
            self.figures = self.processes.mean(self.task.validate(self.processes))
        if self.figures:
            self.recorder.scalars("val", self.step, self.epoch, self.figures)
            if self.processes.is_main:
                listed = "  ".join(f"{name} {value:.4f}" for name, value in self.figures.items())
                print(f"validation after epoch {self.epoch}: {listed}", flush=True)
        if self.options.best is None or self.options.best[0] not in self.figures:
            return False
        value = self.figures[self.options.best[0]]
        sign = 1 if self.options.best[1] == "min" else -1
        if self.best is None or sign * value < sign * self.best:
            self.best = value
            return True
        return False

    def _save_state(self) -> None:
        if not self.processes.is_main:
            return
        state = {
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "step": self.step,
            "bad_steps": self.bad_steps,
            "best": self.best,
            "figures": self.figures,
            "model": self.task.model.state_dict(),
            "optimizer": self.task.optimizer.state_dict(),
            "scheduler": self.task.scheduler.state_dict(),
            "extra": self.task.extra_state(),
        }
        save_state(self.options.folder, state, self.step)

    def _resume(self) -> None:
        state = load_state(self.options.folder)
        if state is None:
            return
        if not self.options.resume:
            raise UserError(
                f"{self.options.folder} holds a run: add --resume to go on with it, or choose another folder"
            )
        task = self.task
        # Extra state first: a trainer may freeze nets, and so rebuild its optimiser, by what it finds there.
        task.load_extra_state(state["extra"])
        try:
            task.model.load_state_dict(state["model"])
            task.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{self.options.folder} holds a run of another architecture: {error}") from error
        task.scheduler.load_state_dict(state["scheduler"])
        self.epoch, self.step_in_epoch, self.step = state["epoch"], state["step_in_epoch"], state["step"]
        self.bad_steps, self.best, self.figures = state["bad_steps"], state["best"], state["figures"]
        if self.processes.is_main:
            print(f"going on at epoch {self.epoch + 1}, step {self.step} ({self.options.folder})", flush=True)


class _Stop:
    asked = False


@contextmanager
def _stop_on_signal() -> Iterator[_Stop]:
    """SIGTERM and SIGINT ask for a stop after the step at hand; a second one exits at once."""
    stop = _Stop()

    def ask(number: int, _: FrameType | None) -> None:
        if stop.asked:
            os._exit(128 + number)
        stop.asked = True

    before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            before[number] = signal.signal(number, ask)
        except ValueError:  # not in the main thread, where Python allows no handlers
            continue
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _only_main_locks(folder: Path, processes: Processes) -> Iterator[None]:
    if processes.is_main:
        with exclusive(folder):
            yield
    else:
        yield
