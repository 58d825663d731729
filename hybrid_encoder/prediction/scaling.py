"""The metric scale of predicted depth from the source that `--scale_from` names: one for all images, one per video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.dataset import STEREO_BASELINE
from ..data.splits import evenly_spaced
from ..data.velodyne import scan_depth_of_image
from ..data.video import read_video, until_damage
from ..errors import UserError
from ..images import cut_bottom, read_image
from ..metric.ground import ground_scale
from ..metric.measured import measured_scale
from ..metric.scale import FrameScale, ScaleEstimate, ScaleTracker, combine
from ..model.disparity import disparity_to_depth
from ..model.predictor import DepthPredictor, NonFiniteWeightsError, resize_map
from .batches import predict_batch
from .cameras import IMAGES, Cameras, Size, image_frames
from .motion_scaling import scale_from_motion

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
    model = copy(model)  # a two-frame model must not remember these images
    if source.needs_motion:
        step = max(len(images) // _IMAGES_LOOKED_AT, 1)
        size = read_image(images[0]).shape[1::-1]
        estimate = scale_from_motion(cameras, model, image_frames(images), size, step, timed=False)
        return _estimated(cameras, IMAGES, estimate)
    found = []
    for number in evenly_spaced(len(images), _IMAGES_LOOKED_AT):
        path = images[number]
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
        estimate = scale_from_motion(cameras, model, read_video(video), size, _FRAME_STEP, timed=True)
        return _estimated(cameras, video, estimate)

    def look(disparity: np.ndarray) -> FrameScale:
        return _look(cameras, model, _Frame(disparity, size))

    stream = until_damage(read_video(video), [])
    frames = cameras.seen(islice(stream, 0, _FRAMES_LOOKED_AT * _FRAME_STEP, _FRAME_STEP))
    found = [look(predict_batch(model, [frame.image], cameras.settings)[0]) for frame in frames]
    return _estimated(cameras, video, combine(str(source), found), look)


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
