"""When a run saves its state, and which of the saved ones it trusts."""

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
"""So many steps skipped in a row mean that the nets, not one sample, are at fault."""


class Checkpointer:
    """Saves a run's state between two steps, never one that holds values that are not finite.

    Three rules:

    - A state is saved only between two steps.
    - After `_DOUBTFUL` steps in a row that had to be skipped, none is saved any more.
    - A saved state is proven once a step was taken from it. When the run ends because its numbers are not finite, a
      newest state that is not proven is dropped.
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
            folder: takes the states.
            options: say when a state is due, and what must be the same for the run to resume.
            steps_per_epoch: batches of an epoch.
            state: what to save.
        """
        self.folder, self.options, self._writes, self._state = folder, options, processes.is_main, state
        own = {"processes": processes.world_size, "steps_of_an_epoch": steps_per_epoch}
        self._same_run = {**options.same_run, **own}
        self._saved_at = time.monotonic()
        self._step = 0
        self._skipped_in_a_row = 0
        self._unsaved = False  # whether the nets are between two steps, in a state that is not saved yet
        self._saved: int | None = None  # step of the newest saved state
        self._proven: int | None = None  # step of the newest state that is proven, or that was there before

    def load(self) -> dict[str, Any] | None:
        """The state that the run resumes from, if there is one.

        Raises:
            UserError: it is damaged, or the state of another run.
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
        """From here on the nets are in the middle of a step."""
        self._unsaved = False

    def step_ends(self, step: int, skipped_in_a_row: int) -> None:
        """The optimiser has moved, or the step was skipped.

        Args:
            step: batches up to now.
            skipped_in_a_row: steps skipped since the last one that was taken.
        """
        self._step, self._skipped_in_a_row, self._unsaved = step, skipped_in_a_row, True
        if not skipped_in_a_row:
            self._proven = self._saved

    def save(self) -> None:
        """Writes the state as it is now."""
        self._saved_at = time.monotonic()
        self._unsaved, self._saved = False, self._step
        if self._writes:
            self.folder.check()
            same = {"identity": self._same_run, "inputs": dict(self.options.inputs)}
            save_state(self.folder.path, {**self._state(), **same}, self._step)

    def save_if_due(self) -> None:
        """Saves when the last state is old enough and no step had to be skipped just now."""
        if time.monotonic() - self._saved_at > 60 * self.options.save_minutes and not self._skipped_in_a_row:
            self.save()

    def save_before_stop(self) -> str:
        """Saves where it may, because the run was asked to stop; says what is saved."""
        if not self._step:
            return "before the first step"
        if self._may_save:
            self.save()
        return self._describe(self._saved)

    def rescue(self) -> None:
        """Saves what was trained before something failed, where the nets are between two steps."""
        if not (self._unsaved and self._may_save):
            return
        try:
            self.save()
            if self._writes:
                print(f"state of step {self._step} saved in {self.folder.path}", file=sys.stderr)
        except FolderLost:
            return  # which is what the run ends with anyhow
        except (UserError, RuntimeError) as error:  # of a GPU that failed, nothing can be read any more
            print(f"and the state could not be saved: {error}", file=sys.stderr)

    def drop_unproven(self) -> str:
        """Drops the newest state if no step could be taken from it; says what is left."""
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
