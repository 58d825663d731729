"""How well maps are drawn: intersection over union (IoU) by class and distance, and the best map without an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .grid import BevGrid


def ring_masks(grid: BevGrid, ends: Sequence[float]) -> np.ndarray:
    """Which cells lie in which range of distances from the vehicle.

    >>> ring_masks(BevGrid(-2, 2, -2, 2, 1.0), (1.0, 5.0)).sum(axis=(1, 2)).tolist()
    [4, 12]

    Args:
        ends: metres, ascending, where a range ends and the next one begins; the first begins at 0.

    Returns:
        bool (R, X, Y), by the cells' centres.
    """
    x, y = grid.centres()
    distance = np.hypot(x[:, None], y[None])
    starts = (0.0, *ends[:-1])
    return np.stack([(distance >= start) & (distance < end) for start, end in zip(starts, ends, strict=True)])


def overlap(drawn: np.ndarray, truth: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
    """Cells of intersection and union.

    Args:
        drawn, truth: bool (B, K, X, Y).
        masks: bool (R, X, Y), which cells count; None: all.

    Returns:
        int64 (2, K, R), sums over B: intersection, union. R is 1 without masks.
    """
    masks = np.ones((1, *drawn.shape[2:]), dtype=bool) if masks is None else masks
    both = np.stack([(drawn & truth).sum(axis=0), (drawn | truth).sum(axis=0)])
    counts: np.ndarray = np.einsum("ckxy,rxy->ckr", both.astype(np.int64), masks.astype(np.int64))
    return counts


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection / union of (2, ...) counts; NaN where there is nothing to find and nothing was drawn.

    >>> iou(np.array([[1, 0], [4, 0]])).tolist()
    [0.25, nan]
    """
    with np.errstate(invalid="ignore"):
        found: np.ndarray = counts[0] / counts[1]
    return found


def best_constant(mean: np.ndarray) -> np.ndarray:
    """The one map that has the largest IoU with a set of maps: the mean map, thresholded where it is best.

    Drawn for every sample, a set of cells S has the intersection n sum_S mean and the union n (|S| + sum mean - sum_S
    mean): the cells of the highest means, as many as are best, are the best set.

    >>> best_constant(np.array([[0.9, 0.1], [0.5, 0.0]])).tolist()
    [[True, False], [True, False]]

    Args:
        mean: (X, Y), the share of the samples in which a cell is of the class.

    Returns:
        bool (X, Y).
    """
    ordered = np.sort(mean, axis=None)[::-1].astype(np.float64)
    inside = np.cumsum(ordered)
    found = inside / (np.arange(1, ordered.size + 1) + ordered.sum() - inside)
    best: np.ndarray = mean >= ordered[np.argmax(found)]
    return best
