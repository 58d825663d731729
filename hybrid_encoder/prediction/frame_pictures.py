"""A video's picture of each frame: the frame beside the colours of its depth, on a scale that changes slowly."""

from __future__ import annotations

import numpy as np

from ..colormap import color_range, colorize_disparity, side_by_side
from ..model.predictor import resize_map
from .legend import UNKNOWN_UNIT, with_legend
from .settings import PredictionSettings

SCALE_MOMENTUM = 0.9
"""Share of the last frame's colour scale in the next one's: without it the colours of a video flicker."""


def unit_of(settings: PredictionSettings) -> str:
    """The unit of the depth that is written, in words."""
    return "m" if settings.is_metric else UNKNOWN_UNIT


def picture_pair(
    image: np.ndarray, disparity: np.ndarray, limits: tuple[float, float], settings: PredictionSettings
) -> np.ndarray:
    """An image and the colours of its depth with a legend, side by side: uint8 RGB (H, 2 W, 3).

    Args:
        image: uint8 RGB (H, W, 3).
        disparity: (h, w), inverse of the depth in the unit that is written.
        limits: ends of the colour scale in inverse depth.
    """
    colours = colorize_disparity(resize_map(disparity, *image.shape[:2]), limits, settings.colormap)
    return side_by_side(image, with_legend(colours, limits, unit_of(settings), settings.colormap))


class ColourScale:
    """The ends of a video's colour scale, in inverse depth: an exponential moving average over its frames.

    Attributes:
        limits: of the last frame; None before the first.
        own: what `limits` would be without averaging.
    """

    def __init__(self) -> None:
        self.limits: tuple[float, float] | None = None
        self.own = (0.0, 0.0)

    def follow(self, disparity: np.ndarray) -> tuple[float, float]:
        """The ends for the next frame, from its inverse depth (h, w).

        >>> scale = ColourScale()
        >>> _ = scale.follow(np.full((2, 2), 1.0))
        >>> [round(end, 6) for end in scale.follow(np.full((2, 2), 2.0))]
        [1.1, 1.1]
        """
        self.own = color_range(disparity)
        before = self.limits or self.own
        low, high = (SCALE_MOMENTUM * b + (1 - SCALE_MOMENTUM) * n for b, n in zip(before, self.own, strict=True))
        self.limits = (low, high)
        return self.limits
