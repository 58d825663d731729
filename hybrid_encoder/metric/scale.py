"""The metric scale, metres per unit of depth: one estimate from many frames, and one that is updated along a video."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import UserError

MIN_SHARE = 1 / 3
"""Smallest share of frames that must give a scale."""
MAX_SPREAD = 0.3
"""Largest relative deviation of the frames' scales from their median: 1.4826 times the median of the deviations."""
MOMENTUM = 0.97
"""Weight of the scale so far in a video's next scale."""
_SHOWN_REFUSALS = 3
"""Number of reasons in a message; reasons that differ only in their numbers count once."""


class FrameScale(NamedTuple):
    """The scale of one frame, or why there is none."""

    factor: float
    """Metres per unit of depth; 0 if there is a refusal."""
    refusal: str = ""
    """Why the frame gives no scale; empty if it does."""


@dataclass(frozen=True)
class ScaleEstimate:
    """One scale for many frames."""

    source: str
    """Name of the source, for messages."""
    factor: float
    """Metres per unit of depth."""
    spread: float
    """Relative deviation of the frames' scales from the factor: 1.4826 times the median of the deviations."""
    used: int
    frames: int
    """How many frames gave a scale, and how many were examined."""

    def __str__(self) -> str:
        return (
            f"scale from {self.source}: {self.factor:.4g} m per unit of depth, from {self.used} of {self.frames} "
            f"frames, spread {self.spread:.1%}"
        )


def combine(source: str, found: Sequence[FrameScale]) -> ScaleEstimate:
    """The median of the frames' scales.

    Args:
        source: name of the source, for messages.

    Raises:
        UserError: too few frames give a scale (the message has some of the reasons), or their scales differ too much.

    >>> print(combine("LiDAR", [FrameScale(5.0), FrameScale(5.2), FrameScale(5.1), FrameScale(0.0, "no scan")]))
    scale from LiDAR: 5.1 m per unit of depth, from 3 of 4 frames, spread 2.9%
    """
    factors = np.array([frame.factor for frame in found if not frame.refusal])
    if len(factors) < max(MIN_SHARE * len(found), 1):
        reasons = {re.sub(r"[0-9]+", "", frame.refusal): frame.refusal for frame in found if frame.refusal}
        told = "; ".join([*reasons.values()][:_SHOWN_REFUSALS]) or "there is no frame"
        raise UserError(
            f"no scale from {source}: {len(factors)} of {len(found)} frames give one, expected at least "
            f"{MIN_SHARE:.0%}. {told[:1].upper()}{told[1:]}"
        )
    factor = float(np.median(factors))
    spread = 1.4826 * float(np.median(np.abs(factors / factor - 1)))
    if spread > MAX_SPREAD:
        raise UserError(
            f"no scale from {source}: the {len(factors)} frames contradict each other, from {factors.min():.3g} to "
            f"{factors.max():.3g} m per unit of depth, spread {spread:.0%}, expected at most {MAX_SPREAD:.0%}"
        )
    return ScaleEstimate(source, factor, spread, len(factors), len(found))


class ScaleTracker:
    """A scale that starts from an estimate and is updated with the frames of a video: a geometric moving average.

    Attributes:
        factor: metres per unit of depth, after the last frame.
    """

    def __init__(self, start: ScaleEstimate) -> None:
        self.start, self.factor = start, start.factor
        self.used = self.frames = 0
        self._lowest = self._highest = start.factor

    def follow(self, frame: FrameScale) -> float:
        """The scale after one more frame, metres per unit of depth; a frame without a scale does not change it.

        >>> tracker = ScaleTracker(ScaleEstimate("LiDAR", 1.0, 0.0, 1, 1))
        >>> round(tracker.follow(FrameScale(2.0)), 3), round(tracker.follow(FrameScale(0.0, "dark")), 3)
        (1.021, 1.021)
        """
        self.frames += 1
        if not frame.refusal:
            self.used += 1
            self.factor = math.exp(MOMENTUM * math.log(self.factor) + (1 - MOMENTUM) * math.log(frame.factor))
            self._lowest, self._highest = min(self._lowest, self.factor), max(self._highest, self.factor)
        return self.factor

    def __str__(self) -> str:
        if not self.frames:
            return str(self.start)
        return (
            f"{self.start}; over the video {self._lowest:.4g} to {self._highest:.4g}, from {self.used} of "
            f"{self.frames} frames"
        )
