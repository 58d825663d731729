"""The state of a run on disk: written whole or not at all, checked when read, the one before kept."""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..writing import NO_ROOM, not_written, serialized, write_bytes

if sys.platform != "win32":
    import fcntl

_KEEP = 2
_SUM_MARK = b"\nSHA-256 "
_SUM_LENGTH = len(_SUM_MARK) + 64

_held: set[Path] = set()
"""Folders that this process holds: a lock of the system's keeps out other processes only."""


def save_state(folder: Path, state: dict[str, Any], step: int) -> Path:
    """Writes `state_<step>.pt`, its SHA-256 at its end, then drops all but the newest two.

    Where the disk is full, the older of two states makes room for the new one.

    Raises:
        UserError: the disk is full or the folder cannot be written; the newest state before is still there.
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
    # States of later steps are damaged ones, or else the run would have gone on from there.
    states = _states(folder)
    at = states.index(path)
    for old in [*states[:at], *states[at + _KEEP :]]:
        old.unlink(missing_ok=True)
    return path


def drop_state(folder: Path, step: int | None) -> None:
    """Takes the state of a step away, if there is one."""
    if step is not None:
        _state_path(folder, step).unlink(missing_ok=True)


def with_sum(data: bytes) -> bytes:
    """Data with the SHA-256 at its end, where PyTorch's reader takes no notice of it."""
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
        except Exception as error:  # the unpickler raises many kinds, each of them a file that this package never wrote
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
        print(f"{path} is damaged ({problem}); trying the one before", file=sys.stderr)
    if paths:
        raise UserError(f"{folder}: every saved state is damaged: delete the folder or choose another to start anew")
    return None


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keeps a second run out of a folder for as long as this one lives, and clears away what a killed one left half
    written; a killed run leaves the folder open again.

    Raises:
        UserError: another run holds it, or it cannot be made.
    """
    in_use = f"{folder} is in use by another run: wait for it, or choose another folder"
    key = folder.resolve()
    if key in _held:
        raise UserError(in_use)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): choose another folder") from error
    with lock:
        if sys.platform != "win32":
            try:
                # A lock of the process, not of the open file: the data workers of a killed run must not inherit it.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(in_use) from None
        _held.add(key)
        try:
            for left in [*folder.glob(".*.partial*"), *folder.glob("models/.*.partial*")]:
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
            yield
        finally:
            _held.discard(key)


def _sum_of(data: bytes | memoryview) -> bytes:
    return _SUM_MARK + hashlib.sha256(data).hexdigest().encode()


def _state_path(folder: Path, step: int) -> Path:
    return folder / f"state_{step:09d}.pt"


def _states(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("state_*.pt"), reverse=True)
