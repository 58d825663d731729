"""Lanes of TuSimple: points along a lane are ordered by distance without any depth label."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from ..config import MAX_SIDE
from ..data.present import complete_samples
from ..data.splits import stays_inside
from ..data.text import read_lines
from ..errors import UserError
from ..images import read_image
from .lane_layouts import Label, label_files, placed
from .sequences import NUM_POINTS, held_out, lane_points

_VALIDATION = {"val", "valid", "validation"}
"""Words in the names of label files for validation."""


class TuSimpleSource:
    """Lanes of TuSimple label files.

    Args:
        root: a folder in any of the layouts of `lane_layouts`.
        part: "train" or "val". Label files with the word "val" in their name are for validation, the others for
            training; where either has none, every tenth image of all label files is held out for "val".
        label: one label file of the folder, by name without .json, in place of all; every tenth image is held out.

    Attributes:
        entries: path below `root` and lanes of each image.

    Raises:
        UserError: no label file, a line of the wrong form, an image in two label files, or no lane with seven points.
    """

    def __init__(self, root: Path, part: str, label: str | None = None) -> None:
        self.root = root
        if not root.is_dir():
            raise UserError(f"{root}: no such folder, expected TuSimple's clips and label_data_*.json")
        if label and not (stays_inside(label) and "/" not in label):
            raise UserError(f"{label!r} is no name of a label file in {root}: expected it without folder and .json")
        labels = placed(root, {file: read_labels(file) for file in label_files(root, label)})
        files = list(labels)
        val = [file for file in files if _VALIDATION & set(re.split("[^a-z]+", file.stem.lower()))]
        if 0 < len(val) < len(files):
            files = val if part == "val" else [file for file in files if file not in val]
            entries = [entry for file in files for entry in labels[file]]
        else:
            entries = held_out([entry for file in files for entry in labels[file]], part)
        self.entries = [(image, lanes) for image, lanes in entries if len(lanes)]
        if not self.entries:
            raise UserError(
                f"{', '.join(f.name for f in files)} in {root}: no lane with {NUM_POINTS} points ({part} part)"
            )

    def leave_out_missing(self, skip_bad: int) -> None:
        """Leaves out images that do not exist, at most `skip_bad` of them.

        Raises:
            UserError: more images are missing, or all of them; names the first.
        """
        self.entries = complete_samples(
            self.entries,
            lambda entry, _: {self.root / entry[0]: ""},
            f"images that the label files name are missing from {self.root}",
            skip_bad,
            lambda path, _: f"copy TuSimple's clips into {self.root}, beside the label files",
        )

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        return str(self.entries[index][0])

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        name, lanes = self.entries[index]
        path = self.root / name
        image = read_image(path)
        height, width = image.shape[:2]
        if not ((lanes >= 0) & (lanes < (width, height))).all():
            raise UserError(
                f"{path} is {width}x{height}, but its label has lane points outside: it is the label of another image"
            )
        return image, lanes


def read_labels(file: Path) -> list[Label]:
    """[(raw_file, (S, 7, 2) points near to far)] of one TuSimple label file, x and y in pixels, S 0 or more.

    Raises:
        UserError: unreadable file, or a line that is no label, named by its number; raw_file must be a plain path.
    """
    entries = []
    for number, line in enumerate(read_lines(file, "label file"), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            label = json.loads(line)
            raw_file, lanes, ys = label["raw_file"], label["lanes"], label["h_samples"]
            if not isinstance(raw_file, str) or not all(len(lane) == len(ys) for lane in lanes):
                raise ValueError
            values = [*ys, *(x for lane in lanes for x in lane)]
            if not all(type(value) in (int, float) and abs(value) <= MAX_SIDE for value in values):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f'{where}: expected {{"raw_file": ..., "lanes": [[x, ...], ...], "h_samples": [y, ...]}}, x and y in '
                "pixels"
            ) from None
        if (np.diff(ys) <= 0).any() or min(ys, default=0) < 0:
            raise UserError(f"{where}: h_samples must be rows of the image, from above to below")
        if not stays_inside(raw_file):
            raise UserError(f"{where}: raw_file {raw_file[:100]!r} is no plain path within the folder {file.parent}")
        points = [p for lane in lanes if (p := lane_points(lane, ys)) is not None]
        entries.append((raw_file, np.stack(points) if points else np.zeros((0, NUM_POINTS, 2), np.float32)))
    return entries
