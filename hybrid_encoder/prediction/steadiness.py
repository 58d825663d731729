"""How consistent a video's depth and colours are over time, with and without smoothing of its scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..evaluation.consistency import colour_flicker, inconsistency, move
from ..evaluation.trajectory import motions_of
from .cameras import Size
from .frame_pictures import ColourScale
from .scaling import Scale


class _Seen(NamedTuple):
    """A frame's depth in the model's unit, and the scale and colour limits, smoothed and its own."""

    depth: np.ndarray
    factor: float
    own_factor: float
    limits: tuple[float, float]
    own_limits: tuple[float, float]


class Steadiness:
    """Compares each frame of a video with the one before it.

    Args:
        poses: (N, 4, 4) of the video's frames, world from camera, in the unit that is written.
        intrinsics: (3, 3) for depth maps of some width and height.
    """

    def __init__(self, poses: np.ndarray, intrinsics: Callable[[Size], np.ndarray]) -> None:
        self._motions, self._intrinsics = motions_of(poses), intrinsics
        self._last: _Seen | None = None
        self._found: list[tuple[float, float, float, float]] = []
        self._follows = False

    def add(self, depth: np.ndarray, scale: Scale, colours: ColourScale) -> None:
        """Adds the next frame's depth, (h, w) in the model's unit; both scales have been updated with it."""
        assert colours.limits is not None
        seen = _Seen(depth, scale.factor, scale.own, colours.limits, colours.own)
        self._follows |= scale.own != scale.factor
        if self._last is not None and len(self._found) < len(self._motions):
            motion, last = self._motions[len(self._found)], self._last
            K = self._intrinsics(depth.shape[::-1])
            steady = move(last.factor * last.depth, seen.factor * depth, motion, K)
            alone = move(last.own_factor * last.depth, seen.own_factor * depth, motion, K)
            self._found.append(
                (
                    inconsistency(alone),
                    inconsistency(steady),
                    colour_flicker(steady, last.own_limits, seen.own_limits),
                    colour_flicker(steady, last.limits, seen.limits),
                )
            )
        self._last = seen

    def __str__(self) -> str:
        if not self._found:
            return "consistency needs at least two frames"
        alone, steady, colours_alone, colours = np.nanmean(np.array(self._found), axis=0)
        depth = f"{steady:.1%}"
        if self._follows:
            depth = f"{alone:.1%} with each frame's own scale, {steady:.1%} with the video's"
        return (
            f"consistency of {len(self._found)} pairs of frames, warped along the path: depth differs by {depth}; "
            f"colours change by {colours_alone:.1%} of their range with each frame's own limits, {colours:.1%} with "
            "the video's"
        )
