"""Metrics of predicted maps: intersection over union (IoU) by class and distance; and the best constant map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .grid import BevGrid


def ring_masks(grid: BevGrid, ends: Sequence[float]) -> np.ndarray:
    """The cells whose centres lie in each range of distances from the vehicle.

    >>> ring_masks(BevGrid(-2, 2, -2, 2, 1.0), (1.0, 5.0)).sum(axis=(1, 2)).tolist()
    [4, 12]

    Args:
        ends: of the ranges, metres, ascending; the first range starts at 0, each other one at the end before it.

    Returns:
        bool (R, X, Y).
    """
    x, y = grid.centres()
    distance = np.hypot(x[:, None], y[None])
    starts = (0.0, *ends[:-1])
    return np.stack([(distance >= start) & (distance < end) for start, end in zip(starts, ends, strict=True)])


def overlap(drawn: np.ndarray, truth: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
    """Numbers of cells in intersection and union.

    Args:
        drawn, truth: bool (B, K, X, Y), prediction and truth.
        masks: bool (R, X, Y), which cells count; None: all.

    Returns:
        int64 (2, K, R), sums over B: intersection, union. R is 1 without masks.
    """
    masks = np.ones((1, *drawn.shape[2:]), dtype=bool) if masks is None else masks
    both = np.stack([(drawn & truth).sum(axis=0), (drawn | truth).sum(axis=0)])
    counts: np.ndarray = np.einsum("ckxy,rxy->ckr", both.astype(np.int64), masks.astype(np.int64))
    return counts


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection / union of (2, ...) counts; NaN where the union is empty.

    >>> iou(np.array([[1, 0], [4, 0]])).tolist()
    [0.25, nan]
    """
    with np.errstate(invalid="ignore"):
        found: np.ndarray = counts[0] / counts[1]
    return found


def best_constant(mean: np.ndarray) -> np.ndarray:
    """The constant map with the largest IoU over all samples: the mean map above the best threshold.

    If the set of cells S is predicted for all n samples, the intersection is n sum_S mean, and the union is
    n (|S| + sum mean - sum_S mean). For a given number of cells, the cells with the highest means are best.

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
