"""Turns each frame of a video and its depth into a picture, and collects points and consistency metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..metric.ply import write_ply
from ..model.disparity import disparity_to_depth, is_flat
from ..model.predictor import DepthPredictor
from .cameras import Cameras, Size
from .clouds import VideoCloud
from .frame_pictures import ColourScale, picture_pair, unit_of
from .scaling import Scale
from .steadiness import Steadiness


class ShownFrames:
    """Takes the frames of one video in order.

    Args:
        cameras: of the run.
        model: only its depth limits are read.
        scale: of the video.

    Attributes:
        count, flat: number of frames so far, and of those whose depth is flat.
    """

    def __init__(self, cameras: Cameras, model: DepthPredictor, scale: Scale) -> None:
        self.settings, self.scale = cameras.settings, scale
        self.count = self.flat = 0
        self._limits = model.min_depth, model.max_depth
        self._colours = ColourScale()
        self._cloud: VideoCloud | None = None
        self._steadiness: Steadiness | None = None

    def follow_path(self, poses: np.ndarray, intrinsics: Callable[[Size], np.ndarray]) -> None:
        """Starts to compare consecutive frames and, if the settings ask for it, to collect points.

        Args:
            poses: (N, 4, 4) of all frames, world from camera, in the unit that is written.
            intrinsics: (3, 3) for depth maps of some width and height.
        """
        self._steadiness = Steadiness(poses, intrinsics)
        if self.settings.points:
            self._cloud = VideoCloud(poses, intrinsics, self.settings.voxel)

    def picture(self, image: np.ndarray, disparity: np.ndarray) -> np.ndarray:
        """Adds the next frame; returns the frame beside the colours of its depth, uint8 RGB (H, 2 W, 3).

        Args:
            image: uint8 RGB (H, W, 3).
            disparity: (h, w), inverse depth as the model predicts it.
        """
        factor = self.scale.follow(disparity)
        limits = self._colours.follow(disparity / factor)
        depth = disparity_to_depth(disparity, *self._limits)
        if self._steadiness is not None:
            self._steadiness.add(depth, self.scale, self._colours)
        if self._cloud is not None:
            self._cloud.add(image, factor * depth)
        self.count += 1
        self.flat += is_flat(disparity)
        return picture_pair(image, disparity / factor, limits, self.settings)

    def write_points(self, target: Path) -> None:
        """Writes the video's points.

        Raises:
            UserError: the path does not fit the video, or the file cannot be written.
        """
        assert self._cloud is not None
        write_ply(target, self._cloud.cloud(), unit_of(self.settings))

    def report(self) -> list[str]:
        """The estimated scale and the consistency, one line each."""
        lines = [str(self.scale)] if self.settings.scale_from is not None else []
        return lines + ([str(self._steadiness)] if self._steadiness is not None else [])
