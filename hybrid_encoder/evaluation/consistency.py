"""How consistent the depth of a video is: each depth map, moved with the camera, against the next one."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np


class Moved(NamedTuple):
    """A depth map as the next camera should see it, at the pixels (H, W) of the first one."""

    expected: np.ndarray
    """Depth that the pixel's point has for the next camera."""
    found: np.ndarray
    """Depth of the next map where that point falls; 0 outside."""


def move(depth: np.ndarray, later: np.ndarray, motion: np.ndarray, K: np.ndarray) -> Moved:
    """Moves the points of a depth map to the next camera.

    Args:
        depth, later: (H, W), above 0.
        motion: (4, 4), maps points of the first camera to the next one, in the unit of depth.
        K: (3, 3), pixels of both maps.

    >>> closer = np.eye(4)
    >>> closer[2, 3] = -1.0
    >>> K = np.array([[8.0, 0, 4], [0, 8, 3], [0, 0, 1]])
    >>> moved = move(np.full((7, 9), 5.0), np.full((7, 9), 4.5), closer, K)
    >>> float(moved.expected[3, 4]), float(moved.found[3, 4])
    (4.0, 4.5)
    """
    height, width = depth.shape
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    rays = np.concatenate([pixels, np.ones((height, width, 1))], axis=-1) @ np.linalg.inv(K).T
    points = depth[..., None] * (rays @ motion[:3, :3].T) + motion[:3, 3]
    expected = points[..., 2]
    projected = points @ K.T
    xy = (projected[..., :2] / np.maximum(expected, 1e-6)[..., None]).astype(np.float32)
    found = cv2.remap(later.astype(np.float32), xy[..., 0], xy[..., 1], cv2.INTER_LINEAR, borderValue=0)
    inside = (expected > 0) & (xy >= 0).all(-1) & (xy[..., 0] <= width - 1) & (xy[..., 1] <= height - 1)
    return Moved(expected, np.where(inside, found, 0))


def inconsistency(moved: Moved) -> float:
    """Mean of |expected - found| / (expected + found) over the pixels that the next camera sees (Bian et al. 2019,
    https://arxiv.org/abs/1908.10553, equation 4); NaN where it sees none. Points that hide or move count, too.

    >>> inconsistency(Moved(np.array([4.0, 4.0]), np.array([6.0, 0.0])))
    0.2
    """
    seen = moved.found > 0
    if not seen.any():
        return float("nan")
    expected, found = moved.expected[seen], moved.found[seen]
    return float((np.abs(expected - found) / (expected + found)).mean())


def colour_flicker(moved: Moved, limits: tuple[float, float], later: tuple[float, float]) -> float:
    """How much the colour of what is seen twice changes though its depth is what was expected: the mean difference on
    the colour scale, of 1, that the scale's change makes; NaN where nothing is seen twice.

    Args:
        limits, later: ends of the colour scale in inverse depth, of both frames.

    >>> round(colour_flicker(Moved(np.array([4.0]), np.array([4.0])), (0.0, 0.5), (0.0, 1.0)), 3)
    0.25
    """
    inverse = 1 / np.maximum(moved.expected[moved.found > 0], 1e-6)
    if not len(inverse):
        return float("nan")
    before, after = (np.clip((inverse - low) / max(high - low, 1e-12), 0, 1) for low, high in (limits, later))
    return float(np.abs(before - after).mean())
