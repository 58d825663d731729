"""Paths of cameras as a map: seen from above, x to the right, z (ahead of the first camera) upwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

SIDE, MARGIN = 900, 80
"""Side and margin of the picture, in pixels."""
COLOURS = ((178, 24, 43), (33, 102, 172), (27, 120, 55))
"""RGB of the first, second and third path."""
_BLACK, _GREY = (40, 40, 40), (222, 222, 222)
_GRID_LINES = 6


class Path2D(NamedTuple):
    """A path seen from above."""

    name: str
    points: np.ndarray
    """(N, 2): x to the right and z ahead of the first camera."""

    @classmethod
    def of(cls, name: str, poses: np.ndarray) -> Path2D:
        """The path of poses (N, 4, 4), world from camera."""
        return cls(name, poses[:, (0, 2), 3])


def draw_map(paths: Sequence[Path2D]) -> np.ndarray:
    """A map of up to three paths, with one scale for both axes: uint8 RGB (900, 900, 3). A disc marks the start of each
    path, a square its end."""
    points = np.concatenate([path.points for path in paths])
    low, high = points.min(0), points.max(0)
    extent = max(float((high - low).max()), 1e-9)
    corner = (low + high) / 2 - extent / 2
    scale = (SIDE - 2 * MARGIN) / extent

    def pixel(point: np.ndarray) -> tuple[int, int]:
        x, z = (point - corner) * scale
        return round(MARGIN + x), round(SIDE - MARGIN - z)

    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    _draw_grid(picture, corner, extent, scale)
    for number, (path, colour) in enumerate(zip(paths, COLOURS, strict=False)):
        line = np.array([pixel(point) for point in path.points], np.int32)
        cv2.polylines(picture, [line], False, colour, 2, cv2.LINE_AA)
        start, end = pixel(path.points[0]), pixel(path.points[-1])
        cv2.circle(picture, start, 7, colour, -1, cv2.LINE_AA)
        cv2.rectangle(picture, (end[0] - 6, end[1] - 6), (end[0] + 6, end[1] + 6), colour, -1)
        left = MARGIN + 230 * number
        cv2.line(picture, (left, 30), (left + 30, 30), colour, 3)
        _text(picture, f"{path.name}, {len(path.points)} frames", (left + 38, 35))
    _text(picture, "seen from above; disc: start, square: end; x and z in the unit of depth", (MARGIN, SIDE - 14))
    return picture


def _draw_grid(picture: np.ndarray, corner: np.ndarray, extent: float, scale: float) -> None:
    """Draws grey lines at round coordinates, labelled in the margin."""
    step = round_step(extent / _GRID_LINES)
    digits = max(0, -math.floor(math.log10(step)))
    for axis in (0, 1):
        first = math.ceil(corner[axis] / step - 1e-9)
        for number in range(first, math.floor((corner[axis] + extent) / step + 1e-9) + 1):
            at = round(MARGIN + (number * step - corner[axis]) * scale)
            label = f"{number * step:.{digits}f}"
            if axis == 0:
                cv2.line(picture, (at, MARGIN), (at, SIDE - MARGIN), _GREY, 1)
                _text(picture, label, (at - 12, SIDE - MARGIN + 22))
            else:
                cv2.line(picture, (MARGIN, SIDE - at), (SIDE - MARGIN, SIDE - at), _GREY, 1)
                _text(picture, label, (10, SIDE - at + 5))


def round_step(least: float) -> float:
    """The smallest number of the form 1, 2 or 5 times a power of ten that is at least `least`, which is above 0.

    >>> [round_step(least) for least in (0.9, 1.7, 30.0)]
    [1.0, 2.0, 50.0]
    """
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def _text(picture: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, _BLACK, 1, cv2.LINE_AA)
