"""A legend on a picture of depth: the colours from far to near, with round depths and their unit."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ..colormap import colorize

LEAST_HEIGHT, LEAST_WIDTH = 90, 200
"""Pixels of the smallest picture that gets a legend; on a smaller one it would hide too much."""
UNKNOWN_UNIT = "arbitrary unit"
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE, _BACKGROUND = (255, 255, 255), 0.35


def with_legend(picture: np.ndarray, limits: tuple[float, float], unit: str, colormap: str) -> np.ndarray:
    """The picture with a legend in its upper right corner; a small picture is returned unchanged.

    Args:
        picture: uint8 RGB (H, W, 3), colours of inverse depth.
        limits: inverse depth at the ends of the colours.
        unit: of depth, e.g. "m".
        colormap: a key of `colormap.COLORMAPS`.
    """
    height, width = picture.shape[:2]
    if height < LEAST_HEIGHT or width < LEAST_WIDTH:
        return picture
    scale = min(max(height, width / 3) / 800, 1.0) + 0.12
    line = round(30 * scale)
    bar_width, margin = round(0.36 * width), round(14 * scale) + 2
    left, top = width - bar_width - 2 * margin, margin
    picture = picture.copy()
    box = picture[top : top + 3 * line, left - margin : left + bar_width + margin]
    box[:] = (box * _BACKGROUND).astype(np.uint8)
    text = f"depth, {unit}"
    cv2.putText(picture, text, (left, top + round(0.75 * line)), _FONT, 0.75 * scale, _WHITE, 1, cv2.LINE_AA)
    ramp = np.linspace(*limits, bar_width)[None].repeat(line // 2 + 1, 0)
    bar = colorize(ramp, *limits, colormap=colormap)
    picture[top + line : top + line + len(bar), left : left + bar_width] = bar
    for place, label in _ticks(limits, bar_width, 0.65 * scale):
        x = left + place
        cv2.line(picture, (x, top + line), (x, top + line + len(bar)), _WHITE, 1)
        shift = cv2.getTextSize(label, _FONT, 0.65 * scale, 1)[0][0] // 2
        start = min(max(x - shift, left - margin), left + bar_width + margin - 2 * shift)
        cv2.putText(picture, label, (start, top + round(2.6 * line)), _FONT, 0.65 * scale, _WHITE, 1, cv2.LINE_AA)
    return picture


def _ticks(limits: tuple[float, float], length: int, font_scale: float) -> list[tuple[int, str]]:
    """Places of ticks in pixels along a bar from far to near, and their labels; ticks without room are left out."""
    low, high = max(limits[0], 1e-9), limits[1]
    if not high > low:
        return []
    found: list[tuple[int, str]] = []
    free = float(length)
    for depth in round_depths(1 / high, 1 / low):
        place, label = round((1 / depth - limits[0]) / (limits[1] - limits[0]) * (length - 1)), f"{depth:g}"
        half = cv2.getTextSize(f"{label} ", _FONT, font_scale, 1)[0][0] / 2
        if place + half <= free or not found:
            found.append((place, label))
            free = place - half
    return found


def round_depths(near: float, far: float) -> list[float]:
    """The numbers from near to far that are 1, 1.5, 2, 3, 4, 5 or 7 times a power of ten, ascending.

    >>> round_depths(1.8, 31.0)
    [2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0]
    """
    first, last = math.floor(math.log10(near)), math.floor(math.log10(far))
    powers = [10.0**exponent for exponent in range(first, last + 1)]
    depths = [factor * power for power in powers for factor in (1, 1.5, 2, 3, 4, 5, 7)]
    return [depth for depth in depths if near <= depth <= far]
