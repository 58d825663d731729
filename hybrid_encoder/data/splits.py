"""Split files: which frames of a data set are for training, validation and test, one "folder frame side" a line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from .text import read_lines

SPLIT_FILES = {"train": "train_files.txt", "val": "val_files.txt", "test": "test_files.txt"}
"""The files of a split folder, by part."""

FORM = '"folder frame side", for instance "2011_09_26/2011_09_26_drive_0001_sync 17 l"'
_FRAME = re.compile(r"[0-9]{1,10}")
_SEQUENCE = re.compile(r"[0-9]{1,2}")
_MAX_PATH, _MAX_NAME = 1024, 255
"""Largest lengths in bytes of a path, and of a file's or folder's name, that every file system accepts."""


class SplitEntry(NamedTuple):
    """One line of a split file."""

    folder: str
    """Folder of the drive within the data folder ("day/drive"), or the number of an odometry sequence."""
    frame: int
    side: str
    """Camera of the stereo pair: "l" or "r"."""

    def __str__(self) -> str:
        return f"{self.folder} {self.frame} {self.side}"


def find_split(split: str, data_path: str | Path) -> Path:
    """The folder of a split, given as a folder or by name.

    Looked for in this order: `split` as a folder, `data_path`/splits/`split`, and a folder splits/`split` beside
    `data_path`. A folder counts if it holds at least one of the files of `SPLIT_FILES`.

    Raises:
        UserError: there is no such folder; lists the places that were searched.
    """
    found = seek_split(split, data_path)
    if found is not None:
        return found
    sought = _places(split, data_path)
    places = "".join(f"\n  {folder}" + (" (a folder without these files)" * os.path.isdir(folder)) for folder in sought)
    raise UserError(
        f"no split {split!r}: looked for {', '.join(SPLIT_FILES.values())} in{places}\n"
        "give --split a folder that holds them, or the name of one of these; the field's splits (eigen, eigen_zhou, "
        "odom) lie in the folder splits/ of the original Monodepth2"
    )


def seek_split(split: str, data_path: str | Path) -> Path | None:
    """The folder of a split, as `find_split` finds it; None where there is none."""
    for folder in _places(split, data_path):
        if any(os.path.isfile(folder / name) for name in SPLIT_FILES.values()):  # Path.is_file raises for long names
            return folder
    return None


def _places(split: str, data_path: str | Path) -> list[Path]:
    data = Path(data_path)
    return [Path(split), data / "splits" / split, data.absolute().parent / "splits" / split]


def read_split(path: str | Path) -> list[SplitEntry]:
    """The frames that a split file lists, in its order; blank lines are skipped.

    Args:
        path: a text file with a line "folder frame side" per frame. If the folder is the number of an odometry
            sequence, the side may be omitted: "9 17" is "9 17 l".

    Raises:
        UserError: a missing file, no frame in it, or a line of another form (the message gives its number). Folders
            must lie within the data folder: absolute paths and ".." are refused.
    """
    path = Path(path)
    entries = []
    for number, line in enumerate(read_lines(path, "split file"), start=1):
        if line.strip():
            entries.append(_entry(line, f"{path}, line {number}"))
    if not entries:
        raise UserError(f"the split file {path} lists no frame: expected lines of the form {FORM}")
    return entries


def _entry(line: bytes, where: str) -> SplitEntry:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text; expected {FORM}") from error
    fields = text.split()
    if len(fields) > 3:  # a folder with spaces in its name
        fields = text.strip().rsplit(maxsplit=2)
    if len(fields) == 2 and _SEQUENCE.fullmatch(fields[0]):
        fields.append("l")
    if len(fields) != 3:
        raise UserError(f"{where}: {text.strip()[:100]!r} has {len(fields)} fields, expected 3: {FORM}")
    folder, frame, side = fields
    if not _FRAME.fullmatch(frame):
        raise UserError(f"{where}: frame {frame[:100]!r} is not a number of 1 to 10 digits; expected {FORM}")
    if side not in ("l", "r"):
        raise UserError(f"{where}: side {side[:100]!r} is neither l (left camera) nor r (right); expected {FORM}")
    if not stays_inside(folder):
        raise UserError(
            f"{where}: folder {folder[:100]!r} is no plain path within the data folder (no leading /, no .., no \\)"
        )
    return SplitEntry(folder, int(frame), side)


def stays_inside(path: str) -> bool:
    """Whether a relative path that a file states stays within the folder that it is relative to, on any system."""
    parts = path.split("/")
    plain = path.isprintable() and "\\" not in path and ":" not in path and not {"", "..", "."} & set(parts)
    return plain and len(path.encode()) <= _MAX_PATH and all(len(part.encode()) <= _MAX_NAME for part in parts)


def evenly_spaced(count: int, wanted: int | None) -> list[int]:
    """Which of `count` samples are taken where `wanted` are asked for: all of them, where there are no more.

    >>> evenly_spaced(10, 4), evenly_spaced(2, 4)
    ([0, 3, 6, 9], [0, 1])
    """
    found: list[int] = np.linspace(0, count - 1, min(wanted or count, count)).round().astype(int).tolist()
    return found
