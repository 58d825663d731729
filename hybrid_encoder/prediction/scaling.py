"""The metric scale of predicted depth from the source that `--scale_from` names: one for all images, one per video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.dataset import STEREO_BASELINE
from ..data.poses import read_poses
from ..data.speeds import read_speeds
from ..data.velodyne import scan_depth_of_image
from ..data.video import read_video, until_damage
from ..errors import UserError
from ..images import cut_bottom
from ..metric.ground import ground_scale
from ..metric.measured import measured_scale
from ..metric.motion import motion_scales, steps_of, steps_of_speeds
from ..metric.scale import FrameScale, ScaleEstimate, ScaleTracker, combine
from ..metric.source import ScaleSource
from ..model.disparity import disparity_to_depth
from ..model.predictor import DepthPredictor, NonFiniteWeightsError, resize_map
from .batches import predict_batch
from .cameras import IMAGES, Cameras, Size, image_frames
from .trajectory import CameraPath

_IMAGES_LOOKED_AT = 24
_FRAMES_LOOKED_AT, _FRAME_STEP = 25, 4
"""Number of frames at the start of a video that give its first scale, and the step between them."""


class Scale:
    """Metres per unit of depth of a video's frames, or of all images.

    Args:
        factor: before the first frame.
        tracker: updates the factor; None: the scale is known, not estimated.
        look: estimates the scale of a frame from its inverse depth, (h, w) as the model predicts it; None: the factor
            does not change.

    Attributes:
        factor: of the last frame.
        own: the last frame's own estimate, which the tracker smooths.
    """

    def __init__(
        self,
        factor: float,
        tracker: ScaleTracker | None = None,
        look: Callable[[np.ndarray], FrameScale] | None = None,
    ) -> None:
        self.factor, self._tracker, self._look = factor, tracker, look
        self.own = factor

    def follow(self, disparity: np.ndarray) -> float:
        """The scale of the next frame, from its inverse depth, (h, w) as the model predicts it."""
        if self._look is not None and self._tracker is not None:
            found = self._look(disparity)
            self.factor = self._tracker.follow(found)
            self.own = self.factor if found.refusal else found.factor
        return self.factor

    def __str__(self) -> str:
        return str(self._tracker) if self._tracker else f"scale: {self.factor:.4g} m per unit of depth"


class _Frame(NamedTuple):
    """The inputs of a frame's scale estimate."""

    disparity: np.ndarray
    size: Size
    """Of the whole image."""
    path: Path | None = None


def scale_of_images(cameras: Cameras, model: DepthPredictor, images: Sequence[Path]) -> Scale:
    """One scale for all images.

    Raises:
        UserError: it cannot be estimated; gives the reason.
    """
    source = cameras.settings.scale_from
    if source is None or source.kind == "baseline":
        return _known(cameras, IMAGES)
    if source.needs_motion:
        metres = known_steps(source, None, len(images))
        return _estimated(cameras, IMAGES, combine_motion(source, cameras.predicted_path(images), metres))
    model = copy(model)  # a two-frame model must not remember these images
    found = []
    for path in images[:: max(len(images) // _IMAGES_LOOKED_AT, 1)]:
        try:
            whole = next(image_frames([path]))
            disparity = predict_batch(model, [next(cameras.seen([whole])).image], cameras.settings)[0]
            found.append(_look(cameras, model, _Frame(disparity, whole.image.shape[1::-1], path)))
        except NonFiniteWeightsError:
            raise
        except UserError as error:
            found.append(FrameScale(0.0, str(error)))
    return _estimated(cameras, IMAGES, combine(str(source), found))


def scale_of_video(cameras: Cameras, model: DepthPredictor, video: Path, size: Size) -> Scale:
    """The scale of a video. It is updated with each frame if the source gives an estimate for single frames.

    Args:
        model: predicts the video's first frames here; a two-frame model, which remembers them, must not be used again.
        size: width and height of whole frames.

    Raises:
        UserError: it cannot be estimated; gives the reason.
    """
    source = cameras.settings.scale_from
    if source is None or source.kind == "baseline":
        return _known(cameras, video)
    if source.kind == "lidar":
        raise UserError(
            f"--scale_from lidar: {video} is a video, but scans lie beside images in KITTI's layout: give the images"
        )
    if source.needs_motion:
        path = cameras.predicted_path((), video)
        metres = known_steps(source, path.seconds, len(path.seconds))
        return _estimated(cameras, video, combine_motion(source, path, metres))

    def look(disparity: np.ndarray) -> FrameScale:
        return _look(cameras, model, _Frame(disparity, size))

    stream = until_damage(read_video(video), [])
    frames = cameras.seen(islice(stream, 0, _FRAMES_LOOKED_AT * _FRAME_STEP, _FRAME_STEP))
    found = [look(predict_batch(model, [frame.image], cameras.settings)[0]) for frame in frames]
    return _estimated(cameras, video, combine(str(source), found), look)


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


def combine_motion(source: ScaleSource, path: CameraPath, metres: np.ndarray) -> ScaleEstimate:
    """The scale of a predicted path.

    Args:
        metres: (N - 1,), distances that the camera moved between its frames.
    """
    return combine(str(source), motion_scales(path.motions, metres))


def _known(cameras: Cameras, key: Path) -> Scale:
    source, factor = cameras.settings.scale_from, cameras.settings.scale_factor
    cameras.factors[key] = factor if source is None else source.metres / STEREO_BASELINE
    return Scale(cameras.factors[key])


def _estimated(
    cameras: Cameras, key: Path, estimate: ScaleEstimate, look: Callable[[np.ndarray], FrameScale] | None = None
) -> Scale:
    cameras.factors[key] = estimate.factor
    return Scale(estimate.factor, ScaleTracker(estimate), look)


def _look(cameras: Cameras, model: DepthPredictor, frame: _Frame) -> FrameScale:
    """The scale of one frame, from its ground or its LiDAR scan."""
    source, settings = cameras.settings.scale_from, cameras.settings
    assert source is not None
    depth = disparity_to_depth(frame.disparity, model.min_depth, model.max_depth)
    if source.kind == "lidar":
        assert frame.path is not None
        measured = cut_bottom(scan_depth_of_image(frame.path), settings.crop_bottom)
        return measured_scale(resize_map(depth, *measured.shape), measured)
    height, width = depth.shape
    return ground_scale(source.metres, depth, cameras.intrinsics_of_map(frame.size, (width, height)))
