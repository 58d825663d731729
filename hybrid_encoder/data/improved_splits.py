"""The frames of the Eigen test split that have KITTI's improved ground truth: 652 of 697."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import UserError
from .evaluation_sets import IMPROVED_SPLITS
from .splits import SplitEntry, find_split, read_split, seek_split
from .velodyne import improved_depth_path

IMPROVED_FRAMES = 652
TEST_FILE = "test_files.txt"

_log = logging.getLogger(__name__)


def part_entries(split: str, data_path: str | Path, part: str) -> list[SplitEntry]:
    """The frames of one part of a split, which is given as a folder or by name.

    The test frames of `IMPROVED_SPLITS` need no file: without one, they are the test frames of `eigen` that have
    improved depth.

    Raises:
        UserError: no such split, or no improved depth.
    """
    if split not in IMPROVED_SPLITS or part != "test":
        return read_split(find_split(split, data_path) / f"{part}_files.txt")
    listed = _own_list(data_path)
    if listed is not None:
        return read_split(listed)
    entries = read_split(find_split("eigen", data_path) / TEST_FILE)
    known = [entry for entry in entries if improved_depth_path(data_path, *entry).is_file()]
    if not known:
        raise UserError(
            f"--split {split}: none of {len(entries)} test frames has improved depth: unpack KITTI's annotated depth "
            f"into the drives; the first would be {improved_depth_path(data_path, *entries[0])}"
        )
    if len(known) != IMPROVED_FRAMES:
        _log.warning(
            "--split %s: %d of %d frames have improved depth; published numbers are of %d",
            split,
            len(known),
            len(entries),
            IMPROVED_FRAMES,
        )
    return known


def _own_list(data_path: str | Path) -> Path | None:
    """The file that lists the frames, if one of the two splits has a folder with it."""
    folders = filter(None, (seek_split(name, data_path) for name in IMPROVED_SPLITS))
    return next((folder / TEST_FILE for folder in folders if (folder / TEST_FILE).is_file()), None)
