"""How well the edges of a depth map agree in position with those of exact depth.

After the depth boundary errors of iBims-1 (Koch et al. 2018, "Evaluation of CNN-based Single-Image Depth Estimation
Methods", https://arxiv.org/abs/1805.01328, section 3.2): accuracy asks whether predicted edges are true ones,
completeness whether true edges were found. In iBims-1 both are mean distances in pixels; here they are shares of edge
pixels within `TOLERANCE`, so that more is better and a map without edges has a score, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

STEP = 1.25
"""Two neighbouring pixels are an edge where their depths differ by more than this factor."""
TOLERANCE = 2.0
"""Largest distance in pixels at which a true and a predicted edge count as the same."""
GROUND_ROWS = 3
"""How many rows below a step the slope of the ground is taken."""


class EdgeCounts(NamedTuple):
    """Edge pixels of one image."""

    predicted: int
    predicted_right: int
    """Predicted edge pixels with a true one within `TOLERANCE`."""
    true: int
    true_found: int
    """True edge pixels with a predicted one within `TOLERANCE`."""


class EdgeScores(NamedTuple):
    """Shares of edge pixels, from 0 to 1, more is better."""

    edge_acc: float
    """Accuracy: share of predicted edge pixels that are right; 0 where no edge was predicted."""
    edge_comp: float
    """Completeness: share of true edge pixels that were found."""
    edge_f1: float
    """Harmonic mean of both: it is small for a few certain edges, and for edges everywhere."""


def depth_edges(depth: np.ndarray) -> np.ndarray:
    """Pixels on both sides of a step of depth; the scale of depth has no influence.

    Rows of the ground near the horizon differ by large factors, too. The inverse depth of a plane is linear in the
    image, so a step of inverse depth between two rows counts only if it is more than twice the step `GROUND_ROWS`
    below.

    Args:
        depth: (H, W), positive.

    Returns:
        bool (H, W).

    >>> depth_edges(np.array([[10.0, 10, 10, 20, 20, 20]])).astype(int).tolist()
    [[0, 0, 1, 1, 0, 0]]
    """
    log, inverse = np.log(depth), 1 / depth
    down = np.abs(np.diff(log, axis=0)) > np.log(STEP)
    across = np.abs(np.diff(log, axis=1)) > np.log(STEP)
    slope = np.abs(np.diff(inverse, axis=0))
    if len(slope) > GROUND_ROWS:
        down[:-GROUND_ROWS] &= slope[:-GROUND_ROWS] > 2 * slope[GROUND_ROWS:]
    edges = np.zeros(depth.shape, dtype=bool)
    edges[:-1] |= down
    edges[1:] |= down
    edges[:, :-1] |= across
    edges[:, 1:] |= across
    return edges


def compare_edges(truth: np.ndarray, predicted: np.ndarray, inside: np.ndarray | None = None) -> EdgeCounts:
    """Counts predicted edge pixels with a true one nearby, and true edge pixels with a predicted one nearby.

    Args:
        truth: (H, W), dense and exact, any unit; 0 where unknown, as in the sky. Edge pixels within `TOLERANCE` of
            unknown pixels do not count.
        predicted: (H, W), positive, any unit.
        inside: bool (H, W), pixels that count; None: all.

    Raises:
        ValueError: the shapes differ.

    >>> truth, predicted = np.full((9, 20), 10.0), np.full((9, 20), 3.0)
    >>> truth[:, 10:], predicted[:, 11:] = 30.0, 6.0
    >>> compare_edges(truth, predicted)
    EdgeCounts(predicted=18, predicted_right=18, true=18, true_found=18)
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth and prediction must have one shape, got {truth.shape} and {predicted.shape}")
    known = truth > 0
    counted = _distance_to(~known) > TOLERANCE
    if inside is not None:
        counted &= inside
    true = depth_edges(np.where(known, truth, truth.max(initial=1))) & counted
    guessed = depth_edges(predicted)
    right = guessed & counted & (_distance_to(true) <= TOLERANCE)
    found = true & (_distance_to(guessed) <= TOLERANCE)
    return EdgeCounts(*(int(np.count_nonzero(pixels)) for pixels in (guessed & counted, right, true, found)))


def edge_scores(images: Iterable[EdgeCounts]) -> EdgeScores | None:
    """The scores over all edge pixels of some images together; None where the truth has no edge.

    >>> edge_scores([EdgeCounts(10, 5, 20, 20), EdgeCounts(0, 0, 20, 0)])
    EdgeScores(edge_acc=0.5, edge_comp=0.5, edge_f1=0.5)
    """
    predicted, right, true, found = np.array([(0, 0, 0, 0), *images]).sum(0).tolist()
    if not true:
        return None
    accuracy, completeness = right / max(predicted, 1), found / true
    return EdgeScores(accuracy, completeness, 2 * accuracy * completeness / max(accuracy + completeness, 1e-12))


def _distance_to(pixels: np.ndarray) -> np.ndarray:
    """Euclidean distance (H, W) of every pixel to the nearest pixel that is True; infinite if there is none."""
    if not pixels.any():
        return np.full(pixels.shape, np.inf)
    return cv2.distanceTransform((~pixels).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
