"""The metric scale from measured depth, such as a LiDAR's."""

from __future__ import annotations

import numpy as np

from .scale import FrameScale

MIN_PIXELS = 50
"""Smallest number of pixels that both maps know."""
MIN_METRES, MAX_METRES = 1.0, 80.0
"""Range of the measured depth that is compared."""


def measured_scale(depth: np.ndarray, measured: np.ndarray) -> FrameScale:
    """The median ratio of measured to predicted depth.

    Args:
        depth: (H, W), predicted, in any unit.
        measured: (H, W), metres, 0 where unknown.

    >>> measured = np.zeros((10, 10))
    >>> measured[:6] = 12.0
    >>> measured_scale(np.full((10, 10), 3.0), measured)
    FrameScale(factor=4.0, refusal='')
    """
    known = (measured > MIN_METRES) & (measured < MAX_METRES) & (depth > 0)
    count = int(known.sum())
    if count < MIN_PIXELS:
        return FrameScale(0.0, f"{count} pixels have a measured depth, at least {MIN_PIXELS} are expected")
    return FrameScale(float(np.median(measured[known] / depth[known])))
