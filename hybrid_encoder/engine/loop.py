"""The training loop that stage 1 and every trainer share: steps, validation, saving, resuming, stopping."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.loader import EpochSampler, SampleLoader
from ..errors import UserError
from ..writing import write_text
from .checkpointer import Checkpointer
from .failures import check_batch_norm, check_workers, explain
from .folder import RunFolder, hold
from .processes import Processes
from .reporter import Reporter, describe_run
from .signals import Interrupted, Stop, stop_on_signal
from .step import build_stepper, step_schedule
from .task import LoopOptions, Task, load_task_state, task_state
from .validation import Validation

WARNINGS_TO_STOP = 2
"""Validations in a row that find something wrong, before `LoopOptions.stop_on_warning` stops a run: one may be
passing."""

__all__ = ["Interrupted", "LoopOptions", "Task", "fit"]


def fit(task: Task, loader: DataLoader[Any], options: LoopOptions, processes: Processes) -> dict[str, float]:
    """Trains to the last epoch and returns the last validation's metrics.

    A run that was interrupted resumes where its last state was saved: nets, optimiser, schedule, position within the
    epoch. Random numbers are a function of seed, step and process, so that there is no random state to lose.

    Raises:
        Interrupted: SIGTERM, SIGINT or SIGHUP came; the state is saved.
        UserError: too many non-finite losses, a run gone wrong (`LoopOptions.stop_on_warning`), a full disk, lost
            workers or processes, a folder in use or deleted, one that holds another run or results without a state, or
            batches that batch norm cannot take.
    """
    check_workers(loader.num_workers)
    check_batch_norm(task.model, options.smallest_map)
    if processes.is_main:
        print(describe_run(task.model, loader, options.epochs, processes), flush=True)
    with stop_on_signal(processes.world_size > 1) as stop:
        try:
            with hold(options.folder, processes) as folder:
                return _Loop(task, loader, options, processes, stop, folder).run()
        except (UserError, OSError, RuntimeError, ValueError) as error:
            found = explain(error, options.folder, processes.world_size)
            if found is None or found is error:
                raise
            if stop.asked and isinstance(error, RuntimeError):  # workers and processes end together when asked to
                raise Interrupted(f"asked to stop; {found}") from error
            raise found from error


class _Loop:
    """One run, from its start or its last state to its end.

    Attributes:
        epoch, step_in_epoch: position: epochs that are done, and batches of the epoch at hand.
        step: batches over all epochs.
    """

    def __init__(
        self,
        task: Task,
        loader: DataLoader[Any],
        options: LoopOptions,
        processes: Processes,
        stop: Stop,
        folder: RunFolder,
    ) -> None:
        self.task, self.loader, self.options, self.processes = task, loader, options, processes
        self.stop, self.folder = stop, folder
        self.epoch = self.step_in_epoch = self.step = 0
        self.steps_per_epoch = len(loader)
        self.validation = Validation(task, processes, stop, options)
        self.checkpointer = Checkpointer(folder, processes, options, self.steps_per_epoch, self._state)
        state = self.checkpointer.load()
        if state is not None:
            self._restore(state)
        if processes.mean({"step": float(self.step)})["step"] != self.step:
            raise UserError(f"the processes see different states in {options.folder}: it must be one folder for all")
        self.stepper = build_stepper(task.model, processes, options)
        self.stepper.skipped = state["skipped"] if state else 0
        self.reporter = Reporter(folder, processes, state["lines"] if state else 0)
        if state is not None:
            self.reporter.resumed(self.step, self.epoch, options.epochs)
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
            if non_finite := self.validation.non_finite():
                raise UserError(
                    f"the run is finished, but {non_finite} of validation is not finite: look at its samples, or train "
                    "into another folder with a lower learning rate"
                )
            return self.validation.metrics
        except Interrupted:
            where = self.checkpointer.save_before_stop()
            raise Interrupted(f"stopped at step {self.step}, {where}: the same command resumes the run") from None
        except (UserError, OSError, RuntimeError):
            self.checkpointer.rescue()
            raise
        finally:
            self.reporter.recorder.close()

    def _train_epoch(self) -> None:
        sampler, total = self.loader.sampler, self.steps_per_epoch
        if isinstance(sampler, EpochSampler):
            sampler.set_epoch(self.epoch, self.step_in_epoch * (self.loader.batch_size or 1))
        self.stepper.model.train()
        if self.step_in_epoch == total:
            return
        with self.reporter.epoch(self.epoch, self.options.epochs, self.step_in_epoch, total) as report:
            for batch in self.loader:
                report.got(len(self.task.sample_names(batch)))
                boundary, scalars = self._step(batch)
                report.trained()
                if scalars and (self.step % self.options.log_frequency == 0 or self.step == 1):
                    report.log(self.step, scalars, self._optimizer_state())
                if boundary:
                    if self.processes.any(self.stop.asked):
                        raise Interrupted
                    self.checkpointer.save_if_due()
                report.waits()

    def _step(self, batch: Any) -> tuple[bool, dict[str, Tensor]]:
        """One batch; whether the optimiser's step ended with it, and its scalars (none if it was skipped)."""
        task, stepper, size = self.task, self.stepper, self.options.accumulate
        self.checkpointer.step_begins()
        task.start_step(self.epoch, self.step)
        torch.manual_seed(self.options.seed + self.step * self.processes.world_size + self.processes.rank)
        position = self.step_in_epoch % size
        size = min(size, self.steps_per_epoch - self.step_in_epoch + position)  # an epoch's last group may be smaller
        skipped, on_device = stepper.skipped, task.to_device(batch, self.processes.device)
        scalars = stepper.run(task.optimizer, on_device, task.sample_names(batch), position, size)
        self.step += 1
        self.step_in_epoch += 1
        if stepper.skipped > skipped:
            self._count_skipped()
        boundary = position + 1 == size
        if boundary:
            if stepper.finish(task.optimizer) and task.schedule_per_step:
                task.scheduler.step()
            self.checkpointer.step_ends(self.step, stepper.in_a_row)
        return boundary, scalars

    def _count_skipped(self) -> None:
        """Records that a step was skipped.

        Raises:
            UserError: there were too many.
        """
        stepper = self.stepper
        values = {"skipped_steps": stepper.skipped, "samples": stepper.skipped_names}
        self.reporter.record("skipped", self.step, self.epoch, values)
        if stepper.skipped > self.options.max_bad_steps:
            last = f", the last on {', '.join(stepper.skipped_names)}" if stepper.skipped_names else ""
            raise self._not_finite(f"{stepper.skipped} steps were not finite{last}")

    def _optimizer_state(self) -> dict[str, float]:
        """Numbers of the optimiser, for the record."""
        skipped = {"skipped_steps": self.stepper.skipped} if self.stepper.skipped else {}
        return {"learning_rate": self.task.optimizer.param_groups[0]["lr"], **skipped}

    def _end_epoch(self) -> None:
        """Validates and saves; broken off anywhere in between, all of it is done again.

        Raises:
            UserError: metrics that are not finite, after steps that were not.
        """
        done = self.epoch + 1
        self._validate(done)
        warning = self.validation.warning()
        self.reporter.warned(self.step, done, warning)
        if self.stepper.in_a_row and (non_finite := self.validation.non_finite()):
            raise self._not_finite(f"{non_finite} of validation were not finite")
        is_best = self.validation.is_best()
        due = done == self.options.epochs or done % self.options.save_frequency == 0
        if self.processes.is_main and (is_best or due):
            self.folder.check()
            self.task.save(self.epoch, self.validation.metrics, is_best)
        if is_best:
            self.validation.keep_best()
        self.epoch, self.step_in_epoch = done, 0
        if not self.task.schedule_per_step:
            step_schedule(self.task.scheduler)
        self.checkpointer.save()
        if self.options.stop_on_warning and self.validation.warnings_in_a_row >= WARNINGS_TO_STOP:
            raise UserError(f"the run stops after epoch {done}, its state is saved: {warning}")

    def _validate(self, epoch: int) -> None:
        self.reporter.validated(self.step, epoch, self.validation.run(self.stepper.model))

    def _not_finite(self, what: str) -> UserError:
        """The error that ends a run whose numbers are not finite."""
        kept = self.checkpointer.drop_unproven()
        return UserError(
            f"{what}: the run stops, {kept}. Train into another folder with a lower learning rate, or look at these "
            "samples"
        )

    def _state(self) -> dict[str, Any]:
        """All that a run resumes from; `_restore` takes it."""
        return {
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "step": self.step,
            "skipped": self.stepper.skipped,
            "lines": self.reporter.recorder.lines,
            "problems": self.loader.problems if isinstance(self.loader, SampleLoader) else [],
            **self.validation.state(),
            **task_state(self.task),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        folder = self.options.folder
        try:
            load_task_state(self.task, state)
            self.epoch, self.step_in_epoch, self.step = state["epoch"], state["step_in_epoch"], state["step"]
            self.validation.load_state(state)
            if isinstance(self.loader, SampleLoader):
                self.loader.problems = list(state["problems"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{folder} holds a run of another architecture or version: {error}") from error
