"""Checks before a run starts that the files of samples exist."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import UserError

T = TypeVar("T")
LISTED = 5
"""How many missing files a message lists."""


class Folders:
    """The names in folders: each folder is listed once, rather than asked for each of a hundred thousand files."""

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def names(self, folder: Path) -> frozenset[str]:
        """The names in a folder; empty where there is no such folder."""
        if folder not in self._names:
            names = (file.name for file in folder.iterdir()) if folder.is_dir() else ()
            self._names[folder] = frozenset(names)
        return self._names[folder]

    def has(self, path: Path) -> bool:
        """Whether a file exists."""
        return path.name in self.names(path.parent)


def complete_samples(
    samples: Sequence[T],
    files: Callable[[T, Folders], Mapping[Path, str]],
    what: str,
    skip_bad: int | None,
    remedy: Callable[[Path, Folders], str],
) -> list[T]:
    """The samples all of whose files exist; stderr reports how many samples are left out.

    Args:
        files: the files that a sample needs, each with a description for messages (may be empty).
        what: what is missing, for messages: "images that the split needs are missing from DATA".
        skip_bad: how many samples may lack files (`--skip_bad`); None: none, and the command has no such option.
        remedy: what to do about the first missing file.

    Raises:
        UserError: more samples than `skip_bad` lack files, or all do; gives their number and the first missing files.
    """
    folders = Folders()
    complete: list[T] = []
    missing: dict[Path, str] = {}
    for sample in samples:
        absent = {path: text for path, text in files(sample, folders).items() if not folders.has(path)}
        missing |= absent
        if not absent:
            complete.append(sample)
    if not missing:
        return complete
    lacking = len(samples) - len(complete)
    counts = f"{len(missing)} {what} ({lacking} of {len(samples)} samples lack them)"
    lines = [f"{path} ({text})" if text else str(path) for path, text in missing.items()]
    if complete and lacking <= (skip_bad or 0):
        print(f"left out: {counts}, the first is {lines[0]}", file=sys.stderr)
        return complete
    listed = "".join(f"\n  {line}" for line in lines[:LISTED])
    more = f"\n  and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
    leave_out = f"; or leave these samples out: --skip_bad {lacking}" if complete and skip_bad is not None else ""
    raise UserError(f"{counts}:{listed}{more}\n{remedy(next(iter(missing)), folders)}{leave_out}")
