"""Stage 1 in a picture: the image, its patches and every cell coloured by predicted closeness."""

from __future__ import annotations

import cv2
import numpy as np


def closeness_picture(image: np.ndarray, score_map: np.ndarray, points: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Left the image with its patches, right the distance score of every cell over it; warm is near, cold is far.

    Args:
        image: uint8 RGB (H, W, 3).
        score_map: (h, w) distance scores of all cells, larger is farther.
        points: (S, 7, 2) x and y, near to far.
        scores: (S, 7) distance scores of the points.

    Returns:
        uint8 RGB (H, 2 W, 3).
    """
    low, high = np.percentile(score_map, [2, 98])
    span = max(float(high - low), 1e-6)
    height, width = image.shape[:2]
    radius = max(round(width / 60), 3)
    left = image.copy()
    for line, line_scores in zip(points, scores, strict=True):
        pixels = np.round(line).astype(np.int32)
        ranks = np.argsort(np.argsort(line_scores)) / (len(line_scores) - 1)
        for (x, y), rank in zip(pixels.tolist(), ranks, strict=True):
            colour = _colour(np.array([[1 - rank]]))[0, 0].tolist()
            cv2.circle(left, (x, y), radius, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(left, (x, y), radius - 1, colour, -1, cv2.LINE_AA)
    closeness = np.clip(1 - (score_map - low) / span, 0, 1).astype(np.float32)
    closeness = cv2.resize(closeness, (width, height), interpolation=cv2.INTER_CUBIC)
    right = cv2.addWeighted(_colour(np.clip(closeness, 0, 1)), 0.65, image, 0.35, 0)
    return np.concatenate([left, right], axis=1)


def _colour(closeness: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] -> uint8 RGB."""
    grey = np.round(255 * closeness).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
