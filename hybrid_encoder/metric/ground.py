"""Fits the ground plane in a depth map; gives the camera's height above it, in the unit of depth.

A plane n . X = h, with n the unit normal towards the ground in camera axes (x right, y down, z ahead) and h the height
of the camera, has an inverse depth that is linear in the image: 1 / Z = n . K^-1 (u, v, 1) / h. Its three parameters
are fitted to inverse depth, whose noise is about the same everywhere in the image. The height gives the scale, as in
Xue et al. 2020 (https://arxiv.org/abs/2004.05560).

A predicted road is often bent. The plane that fits a bent road best is tilted, and its height is wrong. Therefore the
tilt has a prior with mean zero, which weighs more the more the depth deviates from a plane: an exact plane keeps its
tilt, whatever the camera's pitch is.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .camera import resize_intrinsics
from .scale import FrameScale

LOWER_PART, MIDDLE_PART = 0.6, 0.6
"""The ground is searched below the first 60% of the rows, in the middle 60% of the columns."""
TOLERANCE = 0.1
"""Relative error of inverse depth up to which a pixel lies on the plane."""
MIN_SHARE = 0.5
"""Smallest share of the searched pixels that must lie on the plane."""
MAX_TILT = 15.0
"""Largest angle in degrees between the plane's normal and the camera's down axis: a car's camera looks ahead."""
LIKELY_TILT = 2.0
"""Standard deviation of the prior of the tilt, degrees: what is usual for a camera on a car."""
MAX_SPREAD = 0.07
"""Largest relative deviation, 1.4826 times the median, of the pixels on the plane."""
MIN_REACH = 1.3
"""Smallest ratio of the plane's farthest to its nearest depth: a smaller one does not determine the tilt."""
_COLUMNS = 80
"""The depth map is first averaged to at most this number of columns, which removes the noise of single pixels."""
_ALL = 0.999
"""Share of an averaged cell's pixels that must be known."""
_TRIALS, _REFINEMENTS = 200, 5
_SEED = 0
"""Seed of the random samples: the same depth map always gives the same plane."""


class GroundPlane(NamedTuple):
    """The plane that fits best, and whether it is the ground."""

    height: float
    """Height of the camera above the plane, in the unit of depth; 0 if the plane is refused."""
    tilt: float
    """Degrees between the normal of the plane that fits best and the camera's down axis."""
    share: float
    """Share of the searched pixels that lie on the plane."""
    spread: float
    """Relative deviation of their inverse depth from the plane's: 1.4826 times the median."""
    refusal: str
    """Why the plane is not the ground; empty if it is."""


def fit_ground(depth: np.ndarray, K: np.ndarray) -> GroundPlane:
    """Fits the ground plane in the lower middle of a depth map, by random samples (MSAC), then least squares.

    Args:
        depth: (H, W), above 0; 0 where unknown.
        K: (3, 3), in pixels of the map.

    >>> K = np.array([[100.0, 0, 80], [0, 100, 30], [0, 0, 1]])
    >>> row = np.arange(60.0)[:, None] + np.zeros((1, 160))
    >>> road = 1.5 * 100 / np.maximum(row - 30, 1)  # a level road seen from a height of 1.5
    >>> plane = fit_ground(road, K)
    >>> round(plane.height, 3), round(plane.tilt, 3), plane.share, plane.refusal
    (1.5, 0.0, 1.0, '')
    >>> fit_ground(np.full((60, 160), 8.0), K).refusal
    'the plane in the lower image is tilted by 90 degrees, at most 15 are a ground ahead of a car'
    """
    rays, inverse = _lower_middle(depth, K)
    if len(inverse) < 3:
        return GroundPlane(0.0, 0.0, 0.0, 0.0, "the lower image has no depth")
    free = _refined(rays, inverse, _best_sample(rays, inverse))
    error = np.abs(rays @ free / inverse - 1)
    on_plane = error < TOLERANCE
    spread = 1.4826 * float(np.median(error[on_plane])) if on_plane.any() else np.inf
    tilt = float(np.degrees(np.arccos(np.clip(free[1] / max(np.linalg.norm(free), 1e-12), -1, 1))))
    found = GroundPlane(0.0, tilt, float(on_plane.mean()), spread, "")
    if refusal := _refusal(found, _reach(inverse[on_plane])):
        return found._replace(refusal=refusal)
    level = _refined(rays, inverse, free, spread / np.radians(LIKELY_TILT))
    return found._replace(height=1 / float(np.linalg.norm(level)))


def ground_scale(camera_height: float, depth: np.ndarray, K: np.ndarray) -> FrameScale:
    """The metric scale of a depth map from the ground in it.

    Args:
        camera_height: of the camera above the ground, metres.
        depth, K: as in `fit_ground`.
    """
    plane = fit_ground(depth, K)
    return FrameScale(0.0, plane.refusal) if plane.refusal else FrameScale(camera_height / plane.height)


def _refusal(plane: GroundPlane, reach: float) -> str:
    if plane.share < MIN_SHARE:
        return f"only {plane.share:.0%} of the lower image lies on one plane, at least {MIN_SHARE:.0%} are expected"
    if plane.tilt > MAX_TILT:
        return (
            f"the plane in the lower image is tilted by {plane.tilt:.0f} degrees, at most {MAX_TILT:.0f} are a ground "
            "ahead of a car"
        )
    if plane.spread > MAX_SPREAD:
        return f"the lower image is no plane: it deviates by {plane.spread:.1%}, at most {MAX_SPREAD:.0%} are expected"
    if reach < MIN_REACH:
        return f"the ground is seen over a depth range of 1 to {reach:.2f} only, at least {MIN_REACH} is expected"
    return ""


def _lower_middle(depth: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rays (N, 3) with z = 1 and inverse depths (N,) of the known pixels in the area where the ground is searched."""
    height, width = depth.shape
    columns = min(width, _COLUMNS)
    rows = max(round(height * columns / width), 1)
    values = np.where(np.isfinite(depth) & (depth > 0), depth, 0)
    known = cv2.resize((values > 0).astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA) > _ALL
    fine = (1 / np.where(values > 0, values, np.inf)).astype(np.float32)
    inverse = cv2.resize(fine, (columns, rows), interpolation=cv2.INTER_AREA)
    K = resize_intrinsics(K, (width, height), (columns, rows))
    margin = round(columns * (1 - MIDDLE_PART) / 2)
    known[: round(rows * LOWER_PART)] = known[:, :margin] = known[:, columns - margin :] = False
    row, column = np.nonzero(known)
    x, y = (column - K[0, 2]) / K[0, 0], (row - K[1, 2]) / K[1, 1]
    return np.stack([x, y, np.ones_like(x)], axis=1), inverse[known].astype(np.float64)


def _best_sample(rays: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Of planes through three random pixels, the one with the smallest mean of relative errors, which are capped at the
    tolerance (MSAC: Torr and Zisserman 2000)."""
    draws = np.random.default_rng(_SEED).integers(0, len(inverse), (_TRIALS, 3))
    drawn = rays[draws]
    usable = np.abs(np.linalg.det(drawn)) > 1e-9
    if not usable.any():
        return np.zeros(3)
    planes = np.linalg.solve(drawn[usable], inverse[draws][usable][..., None])[..., 0]
    errors = np.minimum(np.abs(planes @ rays.T / inverse - 1), TOLERANCE)
    best: np.ndarray = planes[errors.mean(1).argmin()]
    return best


def _refined(rays: np.ndarray, inverse: np.ndarray, plane: np.ndarray, levelling: float = 0.0) -> np.ndarray:
    """Least squares of relative errors over the pixels within the tolerance of the last plane, repeated.

    Args:
        levelling: weight of the prior of the tilt, per radian: the deviation of the inverse depth over that of the
            tilt. It counts as much as all pixels together, because a net's errors at neighbouring pixels are alike.
    """
    for _ in range(_REFINEMENTS):
        near = np.abs(rays @ plane / inverse - 1) < TOLERANCE
        if near.sum() < 3:
            break
        weight = np.sqrt(near.sum()) * levelling / max(plane[1], 1e-12)
        left = np.vstack([rays[near] / inverse[near, None], [[weight, 0, 0], [0, 0, weight]]])
        plane = np.linalg.lstsq(left, np.r_[np.ones(int(near.sum())), 0, 0], rcond=None)[0]
    return plane


def _reach(inverse: np.ndarray) -> float:
    """The farthest depth over the nearest one, after the outermost 5% at either end are left out."""
    if not len(inverse):
        return 1.0
    low, high = np.percentile(inverse, [5, 95])
    return float(high / low)
