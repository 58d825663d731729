"""A run's folder: one run at a time writes to it, and it notices if the folder is deleted or taken over."""

from __future__ import annotations

import errno
import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from ..errors import UserError
from ..writing import write_text
from .processes import Processes
from .state import start_anew

if sys.platform != "win32":
    import fcntl

_LOCK = ".lock"
_OWNER = ".owner"
"""File that says which run writes to the folder. The lock file cannot: closing it after reading drops the lock."""
_LEFTOVER = re.compile(
    r"\.(state_[0-9]+|metrics|opt|stage1|stage1_last|weights_[0-9]+|weights_best)"
    r"\.[0-9]+\.(replaced\.)?partial(\.(pt|pth|json|jsonl))?"
)
"""Names of files that a run is still writing."""
_HELD_BY_ANOTHER = (errno.EAGAIN, errno.EACCES)

_held: set[Path] = set()
"""Folders that this process holds: the system's locks keep out other processes only."""


class FolderLost(UserError):  # noqa: N818 (named for what happened)
    """The run's folder was deleted, or another run took it over: nothing more may be written there."""


class RunFolder:
    """A folder, for the run that holds it."""

    def __init__(self, path: Path, mark: str | None) -> None:
        """
        Args:
            mark: the content that the run wrote to the folder's `.owner`; None in processes that write nothing.
        """
        self.path, self._mark = path, mark

    def check(self) -> None:
        """To be called before anything is written.

        Raises:
            FolderLost: `.owner` is gone, or belongs to another run.
        """
        if self._mark is None:
            return
        try:
            found = (self.path / _OWNER).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise FolderLost(f"{self.path} was deleted while the run wrote to it: the run stops") from None
        if found != self._mark:
            raise FolderLost(f"{self.path} was taken over by another run: this one stops and leaves it alone")


@contextmanager
def hold(folder: Path, processes: Processes) -> Iterator[RunFolder]:
    """Lets the first process hold the folder; if it cannot, all processes raise an error.

    Raises:
        UserError: as `exclusive` and `start_anew`.
    """
    refused: UserError | None = None
    held = RunFolder(folder, None)
    with ExitStack() as stack:
        if processes.is_main:
            try:
                held = stack.enter_context(exclusive(folder))
                start_anew(folder)
            except UserError as error:
                refused = error
        if processes.any(refused is not None):
            raise refused or UserError(f"{folder} cannot be used: see the first process's message")
        yield held


@contextmanager
def exclusive(folder: Path) -> Iterator[RunFolder]:
    """Keeps other runs out of a folder until the block ends, and deletes the unfinished files of a run that was killed.

    The lock of a killed run ends with its process.

    Raises:
        UserError: another run holds the folder, or it cannot be created.
    """
    key = folder.resolve()
    if key in _held:
        raise _in_use(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("a")
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): choose another folder") from error
    with lock:
        if _is_locked(lock, folder):
            _clear_leftovers(folder)
        mark = uuid.uuid4().hex
        write_text(folder / _OWNER, mark)
        _held.add(key)
        try:
            yield RunFolder(folder, mark)
        finally:
            _held.discard(key)


def _is_locked(lock: IO[str], folder: Path) -> bool:
    """Locks a file; False where the system or the file system has no locks.

    Raises:
        UserError: another process has locked it.
    """
    if sys.platform == "win32":
        return False
    try:
        # The lock belongs to the process, not to the open file: data workers of a killed run must not inherit it.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            raise _in_use(folder) from None
        print(
            f"{folder} is on a file system without locks ({error.strerror}): start no second run in it", file=sys.stderr
        )
        return False
    return True


def _clear_leftovers(folder: Path) -> None:
    for left in [*folder.glob(".*.partial*"), *folder.glob("models/.*.partial*")]:
        if not _LEFTOVER.fullmatch(left.name):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _in_use(folder: Path) -> UserError:
    return UserError(f"{folder} is in use by another run: wait for it, or choose another folder")
