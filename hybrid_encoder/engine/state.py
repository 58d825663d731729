"""The state of a run on disk: written whole or not at all, checked when read, the one before kept."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..files import atomic_path

if sys.platform != "win32":
    import fcntl

_KEEP = 2


def save_state(folder: Path, state: dict[str, Any], step: int) -> Path:
    """Writes `state_<step>.pt` and its SHA-256, then drops all but the newest two.

    Raises:
        UserError: the disk is full or the folder cannot be written; the older states are still there.
    """
    data = _serialized(state)
    path = folder / f"state_{step:09d}.pt"
    try:
        # The sum first: a state that is there always has its sum beside it.
        write_bytes(path.with_suffix(".sha256"), hashlib.sha256(data).hexdigest().encode())
        write_bytes(path, data)
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror}): free some space, then run again") from error
    for old in _states(folder)[_KEEP:]:
        old.unlink()
        old.with_suffix(".sha256").unlink(missing_ok=True)
    return path


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest whole state of a folder, on the CPU; None where there is none. Damaged ones are reported on stderr.

    Raises:
        UserError: there are states, and all of them are damaged.
    """
    paths = _states(folder)
    for path in paths:
        data = path.read_bytes()
        sum_file = path.with_suffix(".sha256")
        expected = sum_file.read_text(errors="replace").strip() if sum_file.exists() else "missing"
        if hashlib.sha256(data).hexdigest() == expected:
            state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            return state
        print(f"{path} is damaged (its SHA-256 differs from {sum_file.name}); trying the one before", file=sys.stderr)
    if paths:
        raise UserError(f"{folder}: every saved state is damaged: delete the folder or choose another to start anew")
    return None


def write_torch(path: Path, content: dict[str, Any]) -> None:
    """`torch.save`, whole or not at all.

    Raises:
        UserError: the disk is full or the folder cannot be written; an older file is still there.
    """
    try:
        write_bytes(path, _serialized(content))
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror}): free some space, then run again") from error


def _serialized(content: dict[str, Any]) -> memoryview:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Writes a file so that after a crash either the old or the new one is there, whole."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keeps a second run out of a folder for as long as this one lives; a killed run leaves it open again.

    Raises:
        UserError: another run holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): choose another folder") from error
    with lock:
        if sys.platform != "win32":
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"{folder} is in use by another run: wait for it, or choose another folder") from None
        yield


def _states(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("state_*.pt"), reverse=True)
