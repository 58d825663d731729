"""Metres per unit of depth: one estimate from many frames, and one that slowly follows a video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import UserError

MIN_SHARE = 1 / 3
"""Least share of frames that have to tell a scale."""
MAX_SPREAD = 0.3
"""Largest relative deviation of the frames' scales, 1.4826 times the median."""
MOMENTUM = 0.97
"""How slowly a video's scale follows its frames."""
_SHOWN_REFUSALS = 3


class FrameScale(NamedTuple):
    """What one frame tells of the scale."""

    factor: float
    """Metres per unit of depth; 0 where it is refused."""
    refusal: str = ""
    """Why this frame tells nothing, in words; empty where it does."""


@dataclass(frozen=True)
class ScaleEstimate:
    """One scale of many frames."""

    source: str
    """What it comes from, in words."""
    factor: float
    """Metres per unit of depth."""
    spread: float
    """Relative deviation of the frames' scales from it: 1.4826 times the median."""
    used: int
    frames: int
    """How many frames told a scale, and how many were looked at."""

    def __str__(self) -> str:
        return (
            f"scale from {self.source}: {self.factor:.4g} m per unit of depth, from {self.used} of {self.frames} "
            f"frames, spread {self.spread:.1%}"
        )


def combine(source: str, found: Sequence[FrameScale]) -> ScaleEstimate:
    """The median of the frames' scales.

    Args:
        source: where they come from, in words.

    Raises:
        UserError: too few of the frames tell a scale, with the reasons of some, or they contradict each other.

    >>> print(combine("LiDAR", [FrameScale(5.0), FrameScale(5.2), FrameScale(5.1), FrameScale(0.0, "no scan")]))
    scale from LiDAR: 5.1 m per unit of depth, from 3 of 4 frames, spread 2.9%
    """
    factors = np.array([frame.factor for frame in found if not frame.refusal])
    if len(factors) < max(MIN_SHARE * len(found), 1):
        reasons = list(dict.fromkeys(frame.refusal for frame in found if frame.refusal))
        told = "; ".join(reasons[:_SHOWN_REFUSALS]) or "there is no frame"
        raise UserError(
            f"no scale from {source}: {len(factors)} of {len(found)} frames tell one, at least {MIN_SHARE:.0%} are "
            f"expected. {told[:1].upper()}{told[1:]}"
        )
    factor = float(np.median(factors))
    spread = 1.4826 * float(np.median(np.abs(factors / factor - 1)))
    if spread > MAX_SPREAD:
        raise UserError(
            f"no scale from {source}: the {len(factors)} frames contradict each other, from {factors.min():.3g} to "
            f"{factors.max():.3g} m per unit of depth, spread {spread:.0%}, at most {MAX_SPREAD:.0%} is expected"
        )
    return ScaleEstimate(source, factor, spread, len(factors), len(found))


class ScaleTracker:
    """A scale that begins at an estimate and slowly follows what the frames of a video tell.

    Attributes:
        factor: metres per unit of depth, now.
    """

    def __init__(self, start: ScaleEstimate) -> None:
        self.start, self.factor = start, start.factor
        self.used = self.frames = 0
        self._lowest = self._highest = start.factor

    def follow(self, frame: FrameScale) -> float:
        """The scale after one more frame, metres per unit of depth; a frame that tells nothing leaves it.

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
