"""The settings of a prediction, which hold for all its inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..colormap import COLORMAPS
from ..data.calibration import Intrinsics
from ..errors import UserError
from ..images import check_crop_bottom
from ..metric.source import ScaleSource

FOV_RANGE = (5.0, 170.0)
"""Smallest and largest horizontal field of view of a pinhole camera, degrees."""


@dataclass(frozen=True)
class PredictionSettings:
    """How images and videos are predicted, and what is written.

    Attributes:
        save_npy: also write depth as float32 arrays.
        scale_factor: metres per unit of the model's depth; `STEREO_SCALE_FACTOR` for models trained on stereo pairs.
            Depth of a monocular model has an unknown scale.
        batch_size: number of images or frames per forward pass.
        crop_bottom: share of the height to cut off at the bottom (a bonnet), as in training; results lack those rows.
        camera: intrinsics of all inputs; with lens distortion, inputs are undistorted first, as in training.
        video_codec: "browser" writes H.264 or VP9, which browsers play, if the installed OpenCV can encode one of them,
            else MPEG-4. "mpeg4" is much faster to write, and plays in players such as VLC.
        scale_from: source of the metric scale, in place of `scale_factor`; None: there is none.
        fov: horizontal field of view of whole images in degrees, if `camera` is None.
        poses: file of the camera's path, in place of the pose nets: one pose per frame, metres.
        trajectory: also write the camera's path; images are frames of one sequence.
        points: write coloured points: of each image, and of all frames of a video together.
        voxel: side of the cells in which a video's points are averaged, in metres (or the unit of depth); None: a
            hundredth of the median depth.
        colormap: of the pictures, a key of `colormap.COLORMAPS`.
        pairs: also write each image and its depth side by side.
        keep_aspect: the model sees inputs in their own aspect ratio, with about as many pixels as in training.
        progress: show a progress bar.

    Raises:
        UserError: a value out of its range.
    """

    save_npy: bool = False
    scale_factor: float = 1.0
    batch_size: int = 4
    crop_bottom: float = 0.0
    camera: Intrinsics | None = None
    video_codec: Literal["browser", "mpeg4"] = "browser"
    scale_from: ScaleSource | None = None
    fov: float | None = None
    poses: Path | None = None
    trajectory: bool = False
    points: bool = False
    voxel: float | None = None
    colormap: str = "magma"
    pairs: bool = True
    keep_aspect: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        check_crop_bottom(self.crop_bottom)
        if self.batch_size < 1:
            raise UserError(f"--batch_size {self.batch_size}: expected at least 1")
        if not 0 < self.scale_factor < math.inf:
            raise UserError(f"--scale_factor {self.scale_factor}: expected a number above 0")
        if self.video_codec not in ("browser", "mpeg4"):
            raise UserError(f"--video_codec {self.video_codec}: expected browser or mpeg4")
        if self.scale_from is not None and self.scale_factor != 1:
            raise UserError("--scale_from finds the scale that --scale_factor gives: leave one of them out")
        if self.fov is not None and self.camera is not None:
            raise UserError("--fov is for cameras without --intrinsics: leave one of them out")
        if self.fov is not None and not FOV_RANGE[0] <= self.fov <= FOV_RANGE[1]:
            raise UserError(f"--fov {self.fov}: expected degrees, {FOV_RANGE[0]:g} to {FOV_RANGE[1]:g}")
        if self.voxel is not None and not 0 < self.voxel < math.inf:
            raise UserError(f"--voxel {self.voxel}: expected a number above 0")
        if self.colormap not in COLORMAPS:
            raise UserError(f"--colormap {self.colormap}: expected one of {', '.join(COLORMAPS)}")

    @property
    def is_metric(self) -> bool:
        """Whether what is written is in metres."""
        return self.scale_from is not None or self.scale_factor != 1
