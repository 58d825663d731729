"""Opens the frames that `--dataset`, `--data_path` and `--split` name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np

from ..config import SEED_OFFSETS
from ..data.calibration import read_intrinsics, view_scale
from ..data.dataset import FrameSource
from ..data.improved_splits import part_entries
from ..data.kitti import KittiOdometrySource, KittiRawSource, KittiSource
from ..data.sample import FrameId
from ..data.velodyne import DepthReference, read_scan_depth, scan_path
from ..data.video_source import VideoSource
from ..errors import UserError
from ..images import check_crop_bottom
from ..synthetic.sequence import SyntheticSource
from .options import DataOptions

Part = Literal["train", "val", "test"]


def open_source(
    options: DataOptions, part: Part, frame_ids: tuple[FrameId, ...], seed: int = 0, skip_bad: int | None = None
) -> FrameSource:
    """The frames of one part of a data set.

    Args:
        skip_bad: how many samples may lack files and are left out (`--skip_bad`); None where there is no such option.

    Raises:
        UserError: no such folder or split, missing neighbour frames, missing intrinsics.
    """
    if options.dataset == "synthetic":
        return _rendered(options, part, frame_ids, seed)
    if options.data_path is None:
        raise UserError(f"--dataset {options.dataset} needs --data_path")
    if not options.data_path.exists():
        raise UserError(f"--data_path {options.data_path}: no such file or folder")
    camera = None if options.intrinsics is None else read_intrinsics(options.intrinsics)
    if options.dataset == "video":
        if "s" in frame_ids:
            raise UserError("--use_stereo: a video has no second camera")
        if camera is None:
            raise UserError("--dataset video needs --intrinsics fx,fy,cx,cy or a JSON file with K and image_size")
        check_crop_bottom(options.crop_bottom)
        size = (math.ceil(options.height / (1 - options.crop_bottom)), options.width)  # the rows that stay suffice
        return VideoSource(options.data_path, camera, frame_ids, part, size, min_motion=options.min_motion)
    entries = part_entries(options.split, options.data_path, part)
    source = KittiRawSource if options.dataset == "kitti" else KittiOdometrySource
    return source(options.data_path, entries, frame_ids, options.png, camera, skip_bad)


def _rendered(options: DataOptions, part: Part, frame_ids: tuple[FrameId, ...], seed: int) -> SyntheticSource:
    if options.intrinsics is not None:
        raise UserError("--intrinsics: rendered scenes have a camera of their own, leave it out")
    if options.data_path is not None:
        raise UserError(
            f"--data_path {options.data_path}: --dataset synthetic renders its scenes in memory. What "
            "`hybrid-encoder synth OUT` wrote is --dataset kitti --data_path OUT/kitti --split synthetic"
        )
    reach = max(abs(frame_id) for frame_id in frame_ids if frame_id != "s")
    return SyntheticSource(
        seed=seed + SEED_OFFSETS[part],
        sequences=options.scenes if part == "train" else max(options.scenes // 8, 4),
        frames=3 + 2 * reach,
        height=options.height,
        width=options.width,
        stereo="s" in frame_ids,
        margin=reach,
    )


def ground_truth(
    options: DataOptions, source: FrameSource, index: int, reference: DepthReference = "scanner"
) -> np.ndarray | None:
    """Depth of frame 0 of a sample, (H, W) metres, 0 where unknown: exact for rendered scenes, LiDAR for KITTI raw,
    else None. LiDAR depth counts from the scanner, as in published metrics on the Eigen split, unless asked otherwise.
    """
    if isinstance(source, SyntheticSource):
        return source.depth(index)
    if isinstance(source, KittiRawSource):
        entry, data_path = source.entries[index], Path(options.data_path or "")
        if scan_path(data_path, entry.folder, entry.frame).is_file():
            depth = read_scan_depth(data_path, entry.folder, entry.frame, entry.side, reference)
            return check_same_view(source, index, depth)
    return None


def check_same_view(source: FrameSource, index: int, depth: np.ndarray) -> np.ndarray:
    """The measured depth (H, W) of a frame as it is.

    Raises:
        UserError: an image of KITTI has other proportions: it was cropped, and its pixels are not those of the depth.
    """
    if isinstance(source, KittiSource):
        size = source.read(index, 0).shape[1::-1]
        remedy = "use the images as KITTI has them, or resized with their proportions kept"
        view_scale(depth.shape[::-1], size, f"measured depth of {source.name(index)}", remedy)
    return depth
