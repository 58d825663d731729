"""Decides when a run saves its state, and which saved states are trusted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from ..errors import UserError
from .folder import FolderLost, RunFolder
from .processes import Processes
from .same_run import check_same_inputs, check_same_run
from .state import drop_state, load_state, save_state
from .task import LoopOptions

_DOUBTFUL = 2
"""After this many skipped steps in a row the nets are suspected, rather than a single sample."""


class Checkpointer:
    """Saves a run's state between two steps, but never a state with non-finite values.

    Three rules:

    - A state is saved only between two steps.
    - After `_DOUBTFUL` skipped steps in a row, no state is saved any more.
    - A saved state is proven once a step from it was not skipped. When the run ends because of non-finite values, the
      newest state is deleted if it is not proven.
    """

    def __init__(
        self,
        folder: RunFolder,
        processes: Processes,
        options: LoopOptions,
        steps_per_epoch: int,
        state: Callable[[], dict[str, Any]],
    ) -> None:
        """
        Args:
            folder: where states are saved.
            options: tell when a state is due, and what must be the same for the run to resume.
            steps_per_epoch: number of batches in an epoch.
            state: returns the state to save.
        """
        self.folder, self.options, self._writes, self._state = folder, options, processes.is_main, state
        own = {"processes": processes.world_size, "steps_of_an_epoch": steps_per_epoch}
        self._same_run = {**options.same_run, **own}
        self._saved_at = time.monotonic()
        self._step = 0
        self._skipped_in_a_row = 0
        self._unsaved = False  # whether the nets are between two steps and this state is not saved yet
        self._saved: int | None = None  # step of the newest saved state
        self._proven: int | None = None  # step of the newest proven state, or of the state that the run resumed from

    def load(self) -> dict[str, Any] | None:
        """The state that the run resumes from, if there is one.

        Raises:
            UserError: the state is damaged, or belongs to another run.
        """
        path, resume = self.folder.path, self.options.resume
        state = load_state(path)
        if state is None:
            if resume and self._writes:
                print(f"{path} holds no state to resume from: starting anew", flush=True)
            return None
        try:
            check_same_run(path, state["identity"], self._same_run)
            check_same_inputs(path, state["inputs"], self.options.inputs, accept=resume)
            self._step = self._saved = self._proven = state["step"]
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} holds a run of another version of this package: {error}") from error
        return state

    def step_begins(self) -> None:
        """Called when a step begins: the nets must not be saved before it ends."""
        self._unsaved = False

    def step_ends(self, step: int, skipped_in_a_row: int) -> None:
        """Called when a step ends: the optimiser has taken it, or it was skipped.

        Args:
            step: number of batches so far.
            skipped_in_a_row: number of steps skipped since the last one that was taken.
        """
        self._step, self._skipped_in_a_row, self._unsaved = step, skipped_in_a_row, True
        if not skipped_in_a_row:
            self._proven = self._saved

    def save(self) -> None:
        """Saves the current state."""
        self._saved_at = time.monotonic()
        self._unsaved, self._saved = False, self._step
        if self._writes:
            self.folder.check()
            same = {"identity": self._same_run, "inputs": dict(self.options.inputs)}
            save_state(self.folder.path, {**self._state(), **same}, self._step)

    def save_if_due(self) -> None:
        """Saves if `save_minutes` have passed since the last state and the last step was not skipped."""
        if time.monotonic() - self._saved_at > 60 * self.options.save_minutes and not self._skipped_in_a_row:
            self.save()

    def save_before_stop(self) -> str:
        """Saves if allowed, because the run was asked to stop; returns words on what is saved."""
        if not self._step:
            return "before the first step"
        if self._may_save:
            self.save()
        return self._describe(self._saved)

    def rescue(self) -> None:
        """Saves after a failure, if the nets are between two steps."""
        if not (self._unsaved and self._may_save):
            return
        try:
            self.save()
            if self._writes:
                print(f"state of step {self._step} saved in {self.folder.path}", file=sys.stderr)
        except FolderLost:
            return  # the run ends with this error anyway
        except (UserError, RuntimeError) as error:  # nothing can be read from a GPU that failed
            print(f"and the state could not be saved: {error}", file=sys.stderr)

    def drop_unproven(self) -> str:
        """Deletes the newest state if it is not proven; returns words on what is left."""
        self._unsaved = False
        if self._saved != self._proven and self._writes:
            self.folder.check()
            drop_state(self.folder.path, self._saved)
        return self._describe(self._proven)

    @property
    def _may_save(self) -> bool:
        return self._step > 0 and self._skipped_in_a_row < _DOUBTFUL

    def _describe(self, step: int | None) -> str:
        if step is None:
            return "no state is saved yet"
        return f"state{'' if step == self._step else f' of step {step}'} saved in {self.folder.path}"
