"""The protocol of an evaluation: depth limits, crops, median scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..config import MAX_EVAL_DEPTH, MIN_EVAL_DEPTH
from ..errors import UserError
from ..images import check_crop_bottom

Crop = Literal["garg", "eigen", "nyu"]

STEREO_SCALE_FACTOR = 5.4
"""Metres per unit of a stereo-trained model: KITTI's baseline is 0.54 m, the training baseline 0.1 units."""

CROP_FRACTIONS: dict[str, tuple[float, float, float, float]] = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "nyu": (45 / 480, 471 / 480, 41 / 640, 601 / 640),
}
"""Top, bottom, left and right of the published crops (Garg et al. 2016; Eigen et al. 2014, of KITTI and of NYU), as
fractions of height and width."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """Which pixels count in an evaluation, and how; the defaults are those of KITTI's Eigen split.

    Raises:
        UserError: invalid depth limits, an unknown crop, or a share that cannot be cut off.
    """

    min_depth: float = MIN_EVAL_DEPTH
    """Truth outside (min_depth, max_depth) does not count; predictions are clipped to these limits. Metres."""
    max_depth: float = MAX_EVAL_DEPTH
    far_truth_counts: bool = False
    """Truth beyond max_depth counts, too, as in the original's evaluation on improved ground truth."""
    median_scaling: bool = True
    """Multiply each prediction by median(gt) / median(pred) over the counted pixels."""
    crop: Crop | None = "garg"
    """"garg" (raw LiDAR), "eigen", "nyu", or None (improved ground truth; synthetic scenes)."""
    scale_factor: float = 1.0
    """Predicted depths are multiplied by it first; `STEREO_SCALE_FACTOR` for stereo-trained models."""
    crop_bottom: float = 0.0
    """Share of the images' height that is cut off at the bottom before a model sees them. `crop` still refers to the
    whole truth."""
    post_process: bool = False
    """Predict the mirrored image as well and blend (`flip_post_process`): twice the work."""
    edges: bool = False
    """Also compare depth edges (`edges.compare_edges`); needs dense and exact truth, as of rendered scenes."""

    def __post_init__(self) -> None:
        if not 0 < self.min_depth < self.max_depth:
            raise UserError(f"depth limits must satisfy 0 < min < max, got {self.min_depth} and {self.max_depth}")
        check_crop_bottom(self.crop_bottom)
        _check_crop(self.crop)


def crop_mask(height: int, width: int, crop: Crop | None) -> np.ndarray:
    """Boolean (height, width): True inside the crop; None: everywhere. Borders are rounded down to whole pixels.

    Raises:
        UserError: an unknown crop.
    """
    _check_crop(crop)
    mask = np.zeros((height, width), dtype=bool)
    if crop is None:
        mask[:] = True
        return mask
    top, bottom, left, right = CROP_FRACTIONS[crop]
    mask[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return mask


def _check_crop(crop: str | None) -> None:
    if crop is not None and crop not in CROP_FRACTIONS:
        raise UserError(f"unknown crop {crop!r}: use one of {', '.join(CROP_FRACTIONS)}, or none")
