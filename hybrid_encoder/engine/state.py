"""Saved states of a run: a state is written whole or not at all, and checked when it is read; the last two are kept.

Only files named exactly `state_<step>.pt` are states; a user's copy under any other name is neither read nor deleted.
"""

from __future__ import annotations

import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..writing import NO_ROOM, not_written, serialized, write_bytes, write_text

_KEEP = 2
_NAME = re.compile(r"state_([0-9]{9,})\.pt")
_SUM_MARK = b"\nSHA-256 "
_SUM_LENGTH = len(_SUM_MARK) + 64
NO_STATE_YET = ".no_state_yet"
"""Marks the folder of a run that has not saved a state yet: its other files may be written again."""
TRACES = (
    "metrics.jsonl", "metrics.json", "models/*", "tensorboard/events.*", "events.out.tfevents.*",
    "*/events.out.tfevents.*", "stage1.pth", "stage1_last.pth",
)  # fmt: skip
"""Patterns of the files besides states that trainers leave in their folder: ours, and the originals'."""


def start_anew(folder: Path) -> None:
    """Marks a folder without states as the folder of a run that has not saved a state yet.

    Raises:
        UserError: the folder holds results of a run whose states are gone; a new run would overwrite them.
    """
    if _states(folder) or (folder / NO_STATE_YET).exists():
        return
    found = next((path for pattern in TRACES for path in sorted(folder.glob(pattern))), None)
    if found is not None:
        raise UserError(
            f"{folder} holds results of a run ({found.relative_to(folder)}) but none of its states (state_*.pt): it "
            "cannot be resumed, and a new run would write over them. Choose another folder (--model_name, for stage 1 "
            "--out), or move this one away"
        )
    write_text(folder / NO_STATE_YET, "This run has not saved a state yet.\n")


def save_state(folder: Path, state: dict[str, Any], step: int) -> Path:
    """Writes `state_<step>.pt` with its SHA-256 at the end, then deletes all but the newest two states.

    If the disk is full, the older of two states is deleted first, to make room for the new one.

    Raises:
        UserError: the disk is full or the folder cannot be written; the previous state is still there.
    """
    content = serialized(state)
    parts = (content, _sum_of(content))
    path = _state_path(folder, step)
    try:
        try:
            write_bytes(path, *parts)
        except OSError as error:
            older = [old for old in _states(folder)[1:] if old != path]
            if error.errno not in NO_ROOM or not older:
                raise
            print(f"no room for {path.name} ({error.strerror}): dropping {older[-1].name} first", file=sys.stderr)
            older[-1].unlink()
            write_bytes(path, *parts)
    except OSError as error:
        raise not_written(path, error) from error
    (folder / NO_STATE_YET).unlink(missing_ok=True)
    # States of later steps are damaged: otherwise the run would have resumed from them.
    states = _states(folder)
    at = states.index(path)
    for old in [*states[:at], *states[at + _KEEP :]]:
        old.unlink(missing_ok=True)
    return path


def drop_state(folder: Path, step: int | None) -> None:
    """Deletes the state of a step, if there is one."""
    if step is not None:
        _state_path(folder, step).unlink(missing_ok=True)
        if not _states(folder):
            write_text(folder / NO_STATE_YET, "This run has dropped the only state that it had saved.\n")


def with_sum(data: bytes) -> bytes:
    """Data with their SHA-256 at the end, where PyTorch's reader ignores it."""
    return data + _sum_of(data)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest whole state of a folder, on the CPU; None where there is none. Damaged ones are reported on stderr.

    Raises:
        UserError: there are states, and all of them are damaged.
    """
    paths = _states(folder)
    for path in paths:
        problem = "its SHA-256 is not the one at its end"
        try:
            data = path.read_bytes()
            if data[-_SUM_LENGTH:] == _sum_of(memoryview(data)[:-_SUM_LENGTH]):
                state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
                if isinstance(state, dict):
                    return state
                problem = f"it holds a {type(state).__name__}"
        except OSError as error:
            problem = str(error.strerror)
        except Exception as error:  # the unpickler raises many classes; all mean a file that this package did not write
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
        print(f"{path} is damaged ({problem}); trying the one before", file=sys.stderr)
    if paths:
        raise UserError(f"{folder}: every saved state is damaged: delete the folder or choose another to start anew")
    return None


def _sum_of(data: bytes | memoryview) -> bytes:
    return _SUM_MARK + hashlib.sha256(data).hexdigest().encode()


def _state_path(folder: Path, step: int) -> Path:
    return folder / f"state_{step:09d}.pt"


def _states(folder: Path) -> list[Path]:
    """The files of all states, newest first."""
    steps: dict[int, Path] = {}
    for path in folder.glob("state_*.pt"):
        named = _NAME.fullmatch(path.name)
        if named and path == _state_path(folder, int(named[1])) and not path.is_dir():
            steps[int(named[1])] = path
    return [steps[step] for step in sorted(steps, reverse=True)]
