"""The training loop that stage 1 and every trainer share: steps, validation, saving, resuming, stopping."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..data.loader import EpochSampler, SampleLoader
from ..errors import UserError
from ..writing import write_text
from .activation_checkpointing import checkpoint_activations
from .failures import explain
from .processes import Processes
from .record import Recorder, device_memory, progress
from .same_run import check_same_run
from .signals import EXIT_INTERRUPTED, Interrupted, Stop, stop_on_signal
from .state import drop_state, exclusive, load_state, save_state
from .step import Stepper
from .task import LoopOptions, Task

__all__ = ["EXIT_INTERRUPTED", "Interrupted", "LoopOptions", "Task", "fit"]


def fit(task: Task, loader: DataLoader[Any], options: LoopOptions, processes: Processes) -> dict[str, float]:
    """Trains to the last epoch and returns the last validation's metrics.

    A run that was interrupted goes on where its last state was saved: nets, optimiser, schedule, position within the
    epoch. Random numbers are a function of seed, step and process, so that there is no random state to lose.

    Raises:
        Interrupted: SIGTERM or SIGINT came; the state is saved.
        UserError: too many non-finite losses, a full disk, lost workers or processes, a folder in use, or one that
            holds another run.
    """
    with stop_on_signal(processes.world_size > 1) as stop:
        try:
            with _locked(options.folder, processes):
                return _Loop(task, loader, options, processes, stop).run()
        except (UserError, OSError, RuntimeError) as error:
            found = explain(error, options.folder, processes.world_size)
            if found is None or found is error:
                raise
            if stop.asked and isinstance(error, RuntimeError):  # workers and processes end together when asked to
                raise Interrupted(f"asked to stop; {found}") from error
            raise found from error


class _Loop:
    def __init__(
        self, task: Task, loader: DataLoader[Any], options: LoopOptions, processes: Processes, stop: Stop
    ) -> None:
        self.task, self.loader, self.options, self.processes, self.stop = task, loader, options, processes, stop
        self.epoch = self.step_in_epoch = self.step = lines = 0
        self.steps_per_epoch = len(loader)
        self.best: float | None = None
        self.metrics: dict[str, float] = {}
        self.saved_at = time.monotonic()
        # Whether what would be saved is the state between two steps, and one that is not saved yet.
        self.unsaved = False
        # The state saved last, and the last one from which a step could be taken, or that was there before.
        self.saved_step: int | None = None
        self.good_step: int | None = None
        state = load_state(options.folder)
        if state is not None:
            self._restore(state)
            lines, self.saved_step, self.good_step = state["lines"], self.step, self.step
        elif options.resume and processes.is_main:
            print(f"{options.folder} holds no state to go on from: starting anew", flush=True)
        if processes.mean({"step": float(self.step)})["step"] != self.step:
            raise UserError(f"the processes see different states in {options.folder}: it must be one folder for all")
        if options.checkpoint_activations:
            checkpoint_activations(task.model)
        model = processes.wrap(task.model, options.sync_bn)
        if options.compile:
            # Sizes that differ from batch to batch, as the number of stage 1's sequences does, become variables.
            model = cast(nn.Module, torch.compile(model))
        self.stepper = Stepper(task.model, model, processes, options.precision, options.clip_grad)
        self.stepper.skipped = state["skipped"] if state else 0
        self.recorder = Recorder(options.folder if processes.is_main else None, lines)
        for name, text in options.notes.items():
            if processes.is_main:
                write_text(options.folder / name, text)

    def run(self) -> dict[str, float]:
        try:
            if self.options.validate_first and self.step == 0:
                self._validate(0)
            while self.epoch < self.options.epochs:
                self._train_epoch()
                self._end_epoch()
            if non_finite := self._non_finite_metrics():
                raise UserError(
                    f"the run is finished, but {non_finite} of validation is not finite: look at its samples, or train "
                    "into another folder with a lower learning rate"
                )
            return self.metrics
        except Interrupted:
            if self.step > 0 and self.stepper.in_a_row < 2:
                self._save_state()
            where = self._kept(self.saved_step) if self.step else "before the first step"
            raise Interrupted(f"stopped at step {self.step}, {where}: run the same command again to go on") from None
        except (UserError, OSError, RuntimeError):
            self._rescue()
            raise
        finally:
            self.recorder.close()

    def _train_epoch(self) -> None:
        sampler, total = self.loader.sampler, self.steps_per_epoch
        if isinstance(sampler, EpochSampler):
            sampler.set_epoch(self.epoch, self.step_in_epoch * (self.loader.batch_size or 1))
        self.stepper.model.train()
        if self.step_in_epoch == total:
            return
        main, epochs = self.processes.is_main, self.options.epochs
        with progress(total, self.step_in_epoch, self.epoch, epochs, main) as bar:
            # Since the last logged step: images of all processes, seconds that loading took, and when it was.
            images, loading, logged = 0, 0.0, time.perf_counter()
            waited = logged
            for batch in self.loader:
                loading += time.perf_counter() - waited
                images += len(self.task.sample_names(batch)) * self.processes.world_size
                boundary, scalars = self._step(batch)
                bar.update()
                if scalars and (self.step % self.options.log_frequency == 0 or self.step == 1):
                    numbers = self.processes.mean({name: float(value) for name, value in scalars.items()})
                    seconds = time.perf_counter() - logged  # reading the numbers has waited for the device
                    self._log(bar, numbers, images / seconds, loading / seconds)
                    images, loading, logged = 0, 0.0, time.perf_counter()
                if boundary:
                    if self.processes.any(self.stop.asked):
                        raise Interrupted
                    due = time.monotonic() - self.saved_at > 60 * self.options.save_minutes
                    if due and not self.stepper.in_a_row:
                        self._save_state()
                waited = time.perf_counter()

    def _log(self, bar: tqdm[Any], numbers: dict[str, float], images_per_second: float, loading_share: float) -> None:
        """Numbers of a step, of all processes, on the bar and in the record."""
        shown = device_memory(self.processes.device)
        bar.set_postfix(loss=f"{numbers['loss']:.4f}", img_s=f"{images_per_second:.1f}", **shown)
        numbers["learning_rate"] = self.task.optimizer.param_groups[0]["lr"]
        numbers.update(images_per_second=images_per_second, loading_share=loading_share)
        if self.stepper.skipped:
            numbers["skipped_steps"] = self.stepper.skipped
        self.recorder.scalars("train", self.step, self.epoch, numbers)

    def _step(self, batch: Any) -> tuple[bool, dict[str, Tensor]]:
        """One batch; whether the optimiser's step ended with it, and its scalars (none if it was skipped)."""
        task, stepper, size = self.task, self.stepper, self.options.accumulate
        self.unsaved = False
        task.start_step(self.epoch, self.step)
        torch.manual_seed(self.options.seed + self.step * self.processes.world_size + self.processes.rank)
        position = self.step_in_epoch % size
        size = min(size, self.steps_per_epoch - self.step_in_epoch + position)  # an epoch's last group may be smaller
        skipped, names = stepper.skipped, task.sample_names(batch)
        on_device = task.to_device(batch, self.processes.device)
        scalars = stepper.run(task.optimizer, on_device, names, position, size)
        self.step += 1
        self.step_in_epoch += 1
        if stepper.skipped > skipped:
            values = {"skipped_steps": stepper.skipped, "samples": stepper.skipped_names}
            self.recorder.scalars("skipped", self.step, self.epoch, values)
            if stepper.skipped > self.options.max_bad_steps:
                last = f", the last on {', '.join(stepper.skipped_names)}" if stepper.skipped_names else ""
                raise self._not_finite(f"{stepper.skipped} steps were not finite{last}")
        boundary = position + 1 == size
        if boundary:
            if stepper.finish(task.optimizer):
                self.good_step = self.saved_step
                if task.schedule_per_step:
                    task.scheduler.step()
            self.unsaved = True
        return boundary, scalars

    def _end_epoch(self) -> None:
        """Validates and saves; broken off anywhere in between, all of it is done again.

        Raises:
            UserError: metrics that are not finite, after steps that were not.
        """
        is_best = self._validate(self.epoch + 1)
        done = self.epoch + 1
        if self.stepper.in_a_row and (non_finite := self._non_finite_metrics()):
            raise self._not_finite(f"{non_finite} of validation were not finite")
        if self.processes.is_main and (
            is_best or done == self.options.epochs or done % self.options.save_frequency == 0
        ):
            self.task.save(self.epoch, self.metrics, is_best)
        if is_best and self.options.best is not None:
            self.best = self.metrics[self.options.best[0]]
        self.epoch, self.step_in_epoch = done, 0
        if not self.task.schedule_per_step:
            with warnings.catch_warnings():
                # Of a run resumed here, PyTorch thinks that it has not made a step yet.
                warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step")
                self.task.scheduler.step()
        self.unsaved = True
        self._save_state()

    def _non_finite_metrics(self) -> str:
        """Names of the last validation's metrics that are not finite."""
        return ", ".join(name for name, value in self.metrics.items() if not math.isfinite(value))

    def _validate(self, epoch: int) -> bool:
        """Figures of the validation set; whether they are the best so far. Leaves the random state as it was."""
        if self.processes.any(self.stop.asked):
            raise Interrupted
        self.stepper.model.eval()
        self.processes.share_buffers(self.task.model)
        device = self.processes.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(0)
            with self.stop.at_once():
                metrics = self.task.validate(self.processes)
        self.metrics = self.processes.mean(metrics)
        if self.metrics:
            self.recorder.scalars("val", self.step, epoch, self.metrics)
            if self.processes.is_main:
                listed = "  ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
                print(f"validation after epoch {epoch}: {listed}", flush=True)
        if self.options.best is None or epoch == 0:  # nets that were not trained are no candidate
            return False
        value = self.metrics.get(self.options.best[0], math.nan)
        sign = 1 if self.options.best[1] == "min" else -1
        return math.isfinite(value) and (self.best is None or sign * value < sign * self.best)

    def _save_state(self) -> None:
        self.saved_at = time.monotonic()
        self.unsaved, self.saved_step = False, self.step
        if self.processes.is_main:
            state = {
                "epoch": self.epoch,
                "step_in_epoch": self.step_in_epoch,
                "step": self.step,
                "skipped": self.stepper.skipped,
                "best": self.best,
                "metrics": self.metrics,
                "lines": self.recorder.lines,
                "problems": self.loader.problems if isinstance(self.loader, SampleLoader) else [],
                "identity": self._identity(),
                "model": self.task.model.state_dict(),
                "optimizer": self.task.optimizer.state_dict(),
                "scheduler": self.task.scheduler.state_dict(),
                "extra": self.task.extra_state(),
            }
            save_state(self.options.folder, state, self.step)

    def _kept(self, step: int | None) -> str:
        """Which state is there, for messages."""
        if step is None:
            return "no state is saved yet"
        return f"state{'' if step == self.step else f' of step {step}'} saved in {self.options.folder}"

    def _not_finite(self, what: str) -> UserError:
        """The error that ends a run whose numbers are not finite; a state that no step has proven good is dropped."""
        self.unsaved = False
        if self.saved_step != self.good_step and self.processes.is_main:
            drop_state(self.options.folder, self.saved_step)
        return UserError(
            f"{what}: the run stops, {self._kept(self.good_step)}. Train into another folder with a lower learning "
            "rate, or look at these samples"
        )

    def _rescue(self) -> None:
        """Saves what was trained before something failed, where that is the state between two steps."""
        if self.unsaved and self.step > 0 and self.stepper.in_a_row < 2:
            try:
                self._save_state()
                if self.processes.is_main:
                    print(f"state of step {self.step} saved in {self.options.folder}", file=sys.stderr)
            except (UserError, RuntimeError) as error:  # of a GPU that failed, nothing can be read any more
                print(f"and the state could not be saved: {error}", file=sys.stderr)

    def _identity(self) -> dict[str, Any]:
        own = {"processes": self.processes.world_size, "steps_of_an_epoch": self.steps_per_epoch}
        return {**self.options.identity, **own}

    def _restore(self, state: dict[str, Any]) -> None:
        task, folder = self.task, self.options.folder
        try:
            check_same_run(folder, state["identity"], self._identity())
            # Extra state first: a trainer may freeze nets, and so rebuild its optimiser, by what it finds there.
            task.load_extra_state(state["extra"])
            task.model.load_state_dict(state["model"])
            task.optimizer.load_state_dict(state["optimizer"])
            task.scheduler.load_state_dict(state["scheduler"])
            self.epoch, self.step_in_epoch, self.step = state["epoch"], state["step_in_epoch"], state["step"]
            self.best, self.metrics = state["best"], state["metrics"]
            if isinstance(self.loader, SampleLoader):
                self.loader.problems = list(state["problems"])
        except UserError:
            raise
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{folder} holds a run of another architecture or version: {error}") from error
        if self.processes.is_main:
            finished = self.epoch >= self.options.epochs
            where = "the run is finished" if finished else f"going on at epoch {self.epoch + 1}"
            print(f"{where}, step {self.step} ({folder})", flush=True)


@contextmanager
def _locked(folder: Path, processes: Processes) -> Iterator[None]:
    """The first process holds the folder; all end alike where it cannot."""
    refused: UserError | None = None
    with ExitStack() as held:
        if processes.is_main:
            try:
                held.enter_context(exclusive(folder))
            except UserError as error:
                refused = error
        if processes.any(refused is not None):
            raise refused or UserError(f"{folder} cannot be used: see the first process's message")
        yield
