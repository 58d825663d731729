"""What a prediction is asked for, whatever its inputs are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..data.calibration import Intrinsics
from ..errors import UserError
from ..images import check_crop_bottom


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
    progress: bool = True

    def __post_init__(self) -> None:
        check_crop_bottom(self.crop_bottom)
        if self.batch_size < 1:
            raise UserError(f"--batch_size {self.batch_size}: expected at least 1")
        if not 0 < self.scale_factor < math.inf:
            raise UserError(f"--scale_factor {self.scale_factor}: expected a number above 0")
        if self.video_codec not in ("browser", "mpeg4"):
            raise UserError(f"--video_codec {self.video_codec}: expected browser or mpeg4")
