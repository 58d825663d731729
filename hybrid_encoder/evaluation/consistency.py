"""How consistent the depth of a video is: each depth map is moved with the camera and compared with the next one."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np


class Moved(NamedTuple):
    """A depth map as the next camera should see it, at the pixels (H, W) of the first camera."""

    expected: np.ndarray
    """Depth that the next camera should see for the pixel's point."""
    found: np.ndarray
    """Depth of the next map at that point's pixel; 0 outside of the map."""


def move(depth: np.ndarray, later: np.ndarray, motion: np.ndarray, K: np.ndarray) -> Moved:
    """Moves the points of a depth map to the next camera.

    Args:
        depth, later: (H, W), positive, of this frame and the next.
        motion: (4, 4), maps points of the first camera to the next one, in the unit of depth.
        K: (3, 3), in pixels of both maps.

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
    https://arxiv.org/abs/1908.10553, equation 4); NaN if it sees none. Points that are hidden or move count, too.

    >>> inconsistency(Moved(np.array([4.0, 4.0]), np.array([6.0, 0.0])))
    0.2
    """
    seen = moved.found > 0
    if not seen.any():
        return float("nan")
    expected, found = moved.expected[seen], moved.found[seen]
    return float((np.abs(expected - found) / (expected + found)).mean())


def colour_flicker(moved: Moved, limits: tuple[float, float], later: tuple[float, float]) -> float:
    """How much colours change from frame to frame only because the colour scale changes: the mean difference on the
    colour scale, in [0, 1], over points that both frames see; NaN if there are none.

    Args:
        moved: points that both frames see; their expected depth is used for both colours.
        limits, later: ends of the colour scale in inverse depth, in this frame and in the next.

    >>> round(colour_flicker(Moved(np.array([4.0]), np.array([4.0])), (0.0, 0.5), (0.0, 1.0)), 3)
    0.25
    """
    inverse = 1 / np.maximum(moved.expected[moved.found > 0], 1e-6)
    if not len(inverse):
        return float("nan")
    before, after = (np.clip((inverse - low) / max(high - low, 1e-12), 0, 1) for low, high in (limits, later))
    return float(np.abs(before - after).mean())
