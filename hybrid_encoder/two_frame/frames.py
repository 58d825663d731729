"""Frames with their lookup frames; a lookup frame is black where none exists, as at the start of a drive."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.cityscapes import CityscapesSource
from ..data.dataset import FrameSource
from ..data.kitti import KittiOdometrySource, KittiRawSource
from ..data.sample import FrameId
from ..data.splits import find_split
from ..errors import UserError
from ..stage2.frames import Part, open_source
from ..stage2.options import DataOptions


class LookupSource:
    """A KITTI source, some of whose frames may not exist: they are read as black, which matching takes as "no frame".

    Args:
        source: where the frames come from.
        optional: ids of the frames that may not exist.
    """

    def __init__(self, source: KittiRawSource | KittiOdometrySource, optional: tuple[FrameId, ...]) -> None:
        self.source, self.optional = source, optional

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """The line of the split file."""
        return self.source.name(index)

    def read(self, index: int, frame_id: FrameId) -> np.ndarray:
        """uint8 RGB (h, w, 3); an optional frame without a file is black.

        Raises:
            UserError: another file is missing, or a file is unreadable or truncated; names it.
        """
        if frame_id in self.optional and not self._exists(index, frame_id):
            return np.zeros_like(self.source.read(index, 0))
        return self.source.read(index, frame_id)

    def intrinsics(self, index: int) -> np.ndarray:
        """(3, 3) float32, pixels of the image as read."""
        return self.source.intrinsics(index)

    def stereo_sign(self, index: int) -> int:
        """-1 for a frame of the left camera, +1 for one of the right."""
        return self.source.stereo_sign(index)

    def _exists(self, index: int, frame_id: FrameId) -> bool:
        entry = self.source.entries[index]
        if frame_id != "s" and entry.frame + frame_id < 0:
            return False
        return self.source.path(entry, frame_id).is_file()


def cityscapes_files(options: DataOptions, part: Part) -> tuple[Path, Path]:
    """The folder of Cityscapes' frames, in either layout, and the split file of a part.

    Raises:
        UserError: no folder or split, or `--intrinsics`, since Cityscapes has files of intrinsics.
    """
    if options.data_path is None:
        raise UserError(f"--dataset {options.dataset} needs --data_path")
    if options.intrinsics is not None:
        raise UserError("--intrinsics: the frames of Cityscapes have files of their own, leave it out")
    return options.data_path, find_split(options.split, options.data_path) / f"{part}_files.txt"


def open_lookup_source(
    options: DataOptions,
    part: Part,
    required: tuple[FrameId, ...],
    optional: tuple[FrameId, ...],
    seed: int = 0,
    skip_bad: int | None = None,
) -> FrameSource:
    """The frames of one part of a data set.

    Args:
        required: frames that every sample has.
        optional: frames that are black where they do not exist. KITTI's drives have such samples; of rendered scenes
            and videos those samples are left out.
        skip_bad: how many samples may lack files and are left out (`--skip_bad`); None where there is no such option.

    Raises:
        UserError: no such folder or split, missing required frames, missing intrinsics.
    """
    if options.dataset == "cityscapes_preprocessed":
        return CityscapesSource(*cityscapes_files(options, part), (*required, *optional), skip_bad)
    if options.dataset in ("kitti", "kitti_odom"):
        source = open_source(options, part, required, seed, skip_bad)
        assert isinstance(source, KittiRawSource | KittiOdometrySource)
        return LookupSource(source, optional)
    return open_source(options, part, (*required, *optional), seed, skip_bad)
