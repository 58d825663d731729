"""The scale from how far the camera is known to have gone, against its motion in the unit of predicted depth."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..data.poses import read_poses
from ..data.speeds import read_speeds
from ..data.video import VideoFrame
from ..errors import UserError
from ..images import resize_image
from ..metric.alignment import Alignment, align
from ..metric.motion import motion_scale, steps_of, steps_of_speeds
from ..metric.scale import ScaleEstimate, combine
from ..metric.source import ScaleSource
from ..model.disparity import disparity_to_depth
from ..model.predictor import DepthPredictor
from .batches import predict_batch
from .cameras import Cameras, Size

PAIRS = 25
"""Pairs of frames that are looked at."""


def scale_from_motion(
    cameras: Cameras, model: DepthPredictor, frames: Iterable[VideoFrame], size: Size, step: int, timed: bool
) -> ScaleEstimate:
    """The scale of frames that follow each other, from `PAIRS` pairs of neighbours.

    Args:
        frames: whole; all are read, so that their number can be compared with the file's.
        size: of the first one.
        step: frames from a pair to the next one.
        timed: whether the frames have times, in seconds.

    Raises:
        UserError: it cannot be told, with the reason.
    """
    source, settings = cameras.settings.scale_from, cameras.settings
    assert source is not None
    found: dict[int, Alignment] = {}
    seconds: list[float] = []
    earlier: np.ndarray | None = None
    for number, frame in enumerate(cameras.seen(frames)):
        if earlier is not None and (number - 1) % step == 0 and len(found) < PAIRS:
            disparity = predict_batch(model, [frame.image], settings)[0]
            depth = disparity_to_depth(disparity, model.min_depth, model.max_depth)
            K = cameras.intrinsics_of_map(size, (depth.shape[1], depth.shape[0]))
            found[number - 1] = align_frames(earlier, frame.image, depth, K)
        earlier = frame.image
        seconds.append(frame.seconds)
    metres = known_steps(source, np.array(seconds) if timed else None, len(seconds))
    return combine(str(source), [motion_scale(step_found, metres[first]) for first, step_found in found.items()])


def align_frames(earlier: np.ndarray, later: np.ndarray, depth: np.ndarray, K: np.ndarray) -> Alignment:
    """`align` for images of any size.

    Args:
        earlier, later: uint8 RGB (H, W, 3).
        depth: (h, w), of the later one.
        K: (3, 3), pixels of the depth map.
    """
    first, second = (resize_image(image, *depth.shape) for image in (earlier, later))
    return align(first, second, depth, K)


def known_steps(source: ScaleSource, seconds: np.ndarray | None, frames: int) -> np.ndarray:
    """The distances that the camera moved between frames, (frames - 1,) metres, from the file of a source.

    Args:
        seconds: times of the frames; None: the file has one speed for each frame, at its time.

    Raises:
        UserError: no such file, or it holds another number of frames.
    """
    if not source.has_file:
        raise UserError("--scale_from poses: name the file of the poses, --scale_from poses=FILE")
    if source.kind == "poses":
        poses = read_poses(source.file)
        if len(poses) != frames:
            raise UserError(f"{source.file} holds {len(poses)} poses for {frames} frames: expected one per frame")
        return steps_of(poses)
    speeds = read_speeds(source.file)
    if seconds is None and len(speeds.seconds) != frames:
        raise UserError(
            f"{source.file} holds {len(speeds.seconds)} speeds for {frames} images: expected one per image, because "
            "images have no times"
        )
    return steps_of_speeds(*speeds, speeds.seconds if seconds is None else seconds)
