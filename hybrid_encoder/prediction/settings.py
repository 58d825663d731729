"""What a prediction is asked for, whatever its inputs are."""

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
"""Degrees that a pinhole camera sees."""


@dataclass(frozen=True)
class PredictionSettings:
    """How images and videos are predicted and what is written.

    Attributes:
        save_npy: write depth as float32 arrays, too.
        scale_factor: metres per unit of the model's depth, `STEREO_SCALE_FACTOR` for stereo-trained ones. A monocular
            model's depth is right up to an unknown factor.
        batch_size: images or frames that the model gets at once.
        crop_bottom: part of the height cut off below, as in training (a bonnet); what is written lacks those rows.
        camera: of all inputs; where its lens distortion is known, they are undistorted first, as in training.
        video_codec: "browser" writes H.264 or VP9, which browsers play, where the installed OpenCV has one of them, and
            MPEG-4 otherwise. "mpeg4" is written much faster, for players such as VLC.
        scale_from: what depth gets its scale from, in place of `scale_factor`; None: nothing.
        fov: horizontal field of view in degrees, where `camera` is not known; of whole images.
        poses: file with the camera's path, in place of the pose nets: one pose a frame, metres.
        trajectory: write the camera's path, too; images are frames of one sequence.
        points: write coloured points, of each image, and of a video as one cloud.
        voxel: side of the cells in which a video's points are averaged, metres (or the unit of depth); None: a
            hundredth of the median depth.
        colormap: of the pictures, a key of `colormap.COLORMAPS`.
        pairs: of images, write a picture of image and depth side by side, too.
        keep_aspect: the model sees inputs with their own proportions, at about as many pixels as in training.
        progress: show a bar.

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
