"""Sequences of seven points ordered near to far: drawn from depth, or along a lane."""

from __future__ import annotations

import math
from typing import Protocol, TypeVar

import numpy as np

from ..config import DEPTH_WORDS

T = TypeVar("T")
NUM_POINTS = len(DEPTH_WORDS)
"""Points of a sequence, one for each word."""
MIN_DEPTH_RATIO = 1.08
"""Least ratio of the depths of neighbours in a sequence drawn from a depth map: more than a scanner's noise."""
MIN_RANGE_SHARE = 0.02
"""Least difference of neighbours as a share of the map's range, where depth is not metric."""
SEQUENCES_PER_DEPTH_MAP = 8
HOLD_OUT = 10
"""Where a source has no validation part, every tenth image is held out."""


class OrderedPatchSource(Protocol):
    """Images with sequences of points ordered near to far."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Names the image in messages."""
        ...

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """uint8 RGB (H, W, 3), and points (S, 7, 2), x and y in its pixels; S is 0 where depth varies too little."""
        ...


def lane_points(xs: list[float], ys: list[float]) -> np.ndarray | None:
    """Seven evenly spaced points of a TuSimple lane, near to far: (7, 2), or None where fewer are valid.

    TuSimple's y ascends, from the horizon down to the bumper: its first valid point is the FARTHEST.
    """
    valid = [(x, y) for x, y in zip(xs, ys, strict=True) if x >= 0]
    if len(valid) < NUM_POINTS:
        return None
    interval = (len(valid) - 1) // (NUM_POINTS - 1)
    far_to_near = np.array(valid[:: interval or 1][:NUM_POINTS], dtype=np.float32)
    return far_to_near[::-1].copy()


def sequences_from_depth(depth: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Up to `count` sequences of seven points whose depths ascend by at least `MIN_DEPTH_RATIO` from one to the next.

    Args:
        depth: (H, W) metres, 0 where unknown.
        count: how many to draw; fewer come back where depth varies too little.
        rng: draws the points.

    Returns:
        (S, 7, 2) float32, x and y, near to far.
    """
    return sequences_from_distance(log_depth(depth), math.log(MIN_DEPTH_RATIO), count, rng)


def log_depth(depth: np.ndarray) -> np.ndarray:
    """(H, W) depth -> (H, W) float64 logarithms, NaN where depth is 0, negative or not finite.

    >>> log_depth(np.array([[1.0, 0.0]])).tolist()
    [[0.0, nan]]
    """
    logarithms = np.full(depth.shape, np.nan)
    return np.log(depth, out=logarithms, where=np.isfinite(depth) & (depth > 0), dtype=np.float64)


def sequences_from_distance(distance: np.ndarray, least: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """As `sequences_from_depth`, for any numbers that grow with distance.

    Args:
        distance: (H, W), NaN where unknown.
        least: by how much the numbers grow at least from one point to the next.
    """
    rows, columns = np.nonzero(~np.isnan(distance))
    empty = np.zeros((0, NUM_POINTS, 2), np.float32)
    if len(rows) < NUM_POINTS:
        return empty
    order = np.argsort(distance[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    ascending = distance[rows, columns]
    # One point from each seventh of the range; three times as many draws as wanted.
    edges = np.linspace(ascending[0], ascending[-1], NUM_POINTS + 1)
    first = np.searchsorted(ascending, edges[:-1])
    last = np.searchsorted(ascending, edges[1:])
    last[-1] = len(ascending)
    if (first == last).any():
        return empty
    draws = rng.integers(first, last, size=(3 * count, NUM_POINTS))
    kept = draws[(np.diff(ascending[draws], axis=1) >= least).all(1)][:count]
    return np.stack([columns[kept], rows[kept]], axis=-1).astype(np.float32)


def held_out(entries: list[T], part: str) -> list[T]:
    """Every tenth entry (at least the last) for "val", the others for "train"; a single entry serves both."""
    if len(entries) < 2:
        return entries
    val = set(range(HOLD_OUT // 2, len(entries), HOLD_OUT)) or {len(entries) - 1}
    return [entry for i, entry in enumerate(entries) if (i in val) == (part == "val")]
