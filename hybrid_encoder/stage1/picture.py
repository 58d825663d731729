"""A picture of stage 1's result: patches in predicted and in true order, and the predicted closeness of every cell."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ..colormap import colorize, labelled

_SHOWN = 4
"""Sequences that are drawn: lines and dots of more would hide each other."""
_WIDTH = 360
"""Least width of a panel in pixels: on smaller images patches cannot be told apart."""


def closeness_picture(image: np.ndarray, cells: np.ndarray, points: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Three labelled panels: patches of the first sequences by predicted rank, by true rank, and the closeness of every
    cell over the image. Near is bright, far is dark, in the colours of depth.

    Args:
        image: uint8 RGB (H, W, 3).
        cells: (h, w) closeness of all cells, larger is nearer.
        points: (S, 7, 2) x and y, near to far.
        scores: (S, 7) distance scores of the points.

    Returns:
        uint8 RGB, three times as wide as the image, which is enlarged to at least `_WIDTH`.
    """
    low, high = np.percentile(cells, [2, 98])
    span = max(float(high - low), 1e-6)
    factor = max(math.ceil(_WIDTH / image.shape[1]), 1)
    height, width = factor * image.shape[0], factor * image.shape[1]
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    points, scores = points[:_SHOWN], scores[:_SHOWN]
    predicted = np.argsort(np.argsort(scores, axis=1), axis=1)
    true = np.broadcast_to(np.arange(points.shape[1]), predicted.shape)
    closeness = np.clip((cells - low) / span, 0, 1).astype(np.float32)
    closeness = cv2.resize(closeness, (width, height), interpolation=cv2.INTER_CUBIC)
    coloured = cv2.addWeighted(_colour(np.clip(closeness, 0, 1)), 0.65, image, 0.35, 0)
    panels = {
        "patches, predicted order": _with_patches(image, factor * points, predicted),
        "patches, true order": _with_patches(image, factor * points, true),
        "cells, predicted closeness": coloured,
    }
    return np.concatenate([labelled(panel, name) for name, panel in panels.items()], axis=1)


def _with_patches(image: np.ndarray, points: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """The image with every sequence as dots on a line, coloured by rank."""
    picture = image.copy()
    radius = max(round(image.shape[1] / 60), 4)
    for line, line_ranks in zip(np.round(points).astype(np.int32), ranks, strict=True):
        cv2.polylines(picture, [line], False, (255, 255, 255), 1, cv2.LINE_AA)
        colours = _colour(1 - line_ranks[None] / (len(line_ranks) - 1))[0]
        for (x, y), colour in zip(line.tolist(), colours.tolist(), strict=True):
            cv2.circle(picture, (x, y), radius, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(picture, (x, y), radius - 1, colour, -1, cv2.LINE_AA)
    return picture


def _colour(closeness: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] -> uint8 RGB."""
    return colorize(closeness, 0.0, 1.0)
