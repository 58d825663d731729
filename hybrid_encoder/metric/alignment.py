"""The camera's motion between two frames, in the unit of a predicted depth, by direct image alignment.

The motion is sought that moves each pixel of the later frame to its own brightness in the earlier frame: Gauss-Newton
steps on brightness differences, from coarse images to fine ones (Lucas and Kanade 1981; Kerl et al., "Robust Odometry
Estimation for RGB-D Cameras", ICRA 2013). No pose net is asked, so the length of the motion belongs to this very depth.
Moving things and edges of depth make large differences, which have little weight (Cauchy's); a gain and an offset of
brightness are solved for, too.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .camera import resize_intrinsics

STARTS = (0.0, 0.05, 0.12)
"""Motions ahead that are tried on the coarsest image, in median depths."""
COARSEST = 8
"""Least rows of the coarsest image; each finer one has twice as many."""
LEVELS, STEPS = 4, 10
"""At most so many sizes of image, and Gauss-Newton steps on each."""
_CAUCHY = 1.5
"""Deviations of brightness at which a difference has half its weight."""
_DAMPING = 1e-4
_SAMPLED = 7
"""Every so many pixels tell the deviation."""
_GREY = np.array([0.299, 0.587, 0.114], np.float32) / 255


class Alignment(NamedTuple):
    """How two frames fit."""

    motion: np.ndarray
    """(4, 4) float64, maps points of the earlier camera to the later one; the translation is in the unit of depth."""
    error: float
    """Mean difference of brightness that is left, as a share of that without any motion."""


class _Level(NamedTuple):
    """Both frames at one size."""

    later: np.ndarray
    """(N,) brightness of the later frame's pixels."""
    inverse_depth: np.ndarray
    """(N,) of the later frame."""
    rays: np.ndarray
    """(3, N): points of its pixels at depth 1."""
    earlier: np.ndarray
    """(h, w, 3): brightness of the earlier frame, its slope along x, and along y."""
    K: np.ndarray


class _Fit(NamedTuple):
    """A motion on one level."""

    step: np.ndarray
    """(6,) translation and rotation of the next step."""
    error: float
    """Mean difference of brightness, of the pixels that both frames see."""


def align(earlier: np.ndarray, later: np.ndarray, depth: np.ndarray, K: np.ndarray) -> Alignment:
    """The motion between two frames.

    >>> rng = np.random.default_rng(0)
    >>> wall = cv2.GaussianBlur(rng.random((64, 96, 3)) * 255, (0, 0), 2)
    >>> K = np.array([[60.0, 0, 47.5], [0, 60, 31.5], [0, 0, 1]])
    >>> zoom = np.array([[1.1, 0, -4.75], [0, 1.1, -3.15]])  # 11 m from it, then 10 m
    >>> closer = cv2.warpAffine(wall, zoom, (96, 64))
    >>> align(wall, closer, np.full((64, 96), 10.0), K).motion[2, 3].round(1)
    np.float64(-1.0)

    Args:
        earlier, later: RGB (h, w, 3), 0 to 255.
        depth: (h, w), of the later frame.
        K: (3, 3), pixels of the frames.
    """
    levels = _levels(earlier, later, depth, K)
    inverse_depth = float(np.median(levels[0].inverse_depth))
    tried = []
    for ahead in STARTS:
        motion = np.eye(4)
        motion[2, 3] = ahead / inverse_depth
        motion = _descend(levels[0], motion)
        tried.append((_fit(levels[0], motion).error, motion))
    motion = min(tried, key=lambda found: found[0])[1]
    for level in levels[1:]:
        motion = _descend(level, motion)
    still = _fit(levels[-1], np.eye(4)).error
    return Alignment(np.linalg.inv(motion), _fit(levels[-1], motion).error / max(still, 1e-9))


def _levels(earlier: np.ndarray, later: np.ndarray, depth: np.ndarray, K: np.ndarray) -> list[_Level]:
    """Both frames at all sizes, the coarsest one first."""
    height, width = depth.shape
    maps = [(frame @ _GREY).astype(np.float32) for frame in (later, earlier)] + [(1 / depth).astype(np.float32)]
    levels = []
    for number in range(LEVELS):
        size = width >> number, height >> number
        if number and size[1] < COARSEST:
            break
        after, before, inverse_depth = (cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in maps)
        shrunk = resize_intrinsics(K, (width, height), size)
        pixels = np.stack([*np.meshgrid(np.arange(size[0]), np.arange(size[1])), np.ones(size[::-1])])
        rays = (np.linalg.inv(shrunk) @ pixels.reshape(3, -1)).astype(np.float32)
        along_y, along_x = np.gradient(before)
        stacked = np.stack([before, along_x, along_y], axis=-1)
        levels.append(_Level(after.ravel(), inverse_depth.ravel(), rays, stacked, shrunk))
    return levels[::-1]


def _descend(level: _Level, motion: np.ndarray) -> np.ndarray:
    """The motion, (4, 4) from the later camera to the earlier one, after `STEPS` steps."""
    for _ in range(STEPS):
        x, y, z, about_x, about_y, about_z = _fit(level, motion).step
        step = np.eye(4)
        step[:3, 3] = x, y, z
        step[:3, :3] = cv2.Rodrigues(np.array([about_x, about_y, about_z]))[0]
        motion = step @ motion
    return motion


def _fit(level: _Level, motion: np.ndarray) -> _Fit:
    """How well a motion fits, and the step that makes it fit better."""
    (fx, _, cx), (_, fy, cy) = level.K[:2]
    height, width = level.earlier.shape[:2]
    # Points over their depth in the later frame: those that are infinitely far have a place, too.
    moved = motion[:3, :3].astype(np.float32) @ level.rays
    moved += motion[:3, 3:].astype(np.float32) * level.inverse_depth
    z = np.maximum(moved[2], 1e-3)
    x, y = moved[0] / z, moved[1] / z
    u, v = (fx * x + cx).astype(np.float32), (fy * y + cy).astype(np.float32)
    seen = (moved[2] > 1e-3) & (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    sampled = cv2.remap(level.earlier, u.reshape(height, width), v.reshape(height, width), cv2.INTER_LINEAR)
    bright, along_x, along_y = sampled.reshape(-1, 3).T
    along_x, along_y, nearness = along_x * np.float32(fx), along_y * np.float32(fy), level.inverse_depth / z
    radial = along_x * x + along_y * y
    slopes = np.stack(
        [
            along_x * nearness,
            along_y * nearness,
            -radial * nearness,
            -along_y - radial * y,
            along_x + radial * x,
            along_y * x - along_x * y,
            np.ones_like(bright),
            bright,
        ]
    )
    return _solve(bright - level.later, slopes, seen)


def _solve(difference: np.ndarray, slopes: np.ndarray, seen: np.ndarray) -> _Fit:
    """The weighted least-squares step.

    Args:
        difference: (N,), of brightness.
        slopes: (8, N), its derivatives.
        seen: (N,), which pixels both frames see.
    """
    apart = np.abs(difference[seen])
    if not len(apart):
        return _Fit(np.zeros(6), np.inf)
    deviation = 1.4826 * float(np.median(apart[::_SAMPLED])) + 1e-4
    weights = seen / (1 + (difference / np.float32(_CAUCHY * deviation)) ** 2)
    units = np.sqrt(np.square(slopes).mean(axis=1)) + 1e-9
    slopes = slopes / units[:, None]
    weighted = slopes * weights
    normal = (weighted @ slopes.T).astype(np.float64)
    normal += _DAMPING * np.trace(normal) / len(normal) * np.eye(len(normal))
    step = -np.linalg.solve(normal, (weighted @ difference).astype(np.float64)) / units
    return _Fit(step[:6], float(apart.mean()))
