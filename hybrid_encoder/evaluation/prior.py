"""The best guess of depth without an image."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from ..errors import UserError


def mean_depth_prior(depths: Iterable[np.ndarray]) -> np.ndarray:
    """The best guess without an image: the mean depth at every pixel over the given maps.

    Args:
        depths: (H, W) each, metres, 0 where unknown. Maps of another size than the first are resized to its size
            (nearest).

    Returns:
        (H, W) float32, metres; a pixel that is known in no map takes the value of the nearest known one. Evaluate
        `1 / prior` as a prediction: a model that is not better has learnt the shape of a road scene, but reads nothing
        off the image.

    Raises:
        UserError: no map has a known pixel.
    """
    total: np.ndarray | None = None
    count: np.ndarray | None = None
    for depth in depths:
        if total is None or count is None:
            total = np.zeros(depth.shape, dtype=np.float64)
            count = np.zeros(depth.shape, dtype=np.int64)
        elif depth.shape != total.shape:
            depth = cv2.resize(depth, total.shape[::-1], interpolation=cv2.INTER_NEAREST)
        total += depth
        count += depth > 0
    if total is None or count is None or not count.any():
        raise UserError("the mean depth of a training set needs at least one depth map with a known pixel")
    mean = (total / np.maximum(count, 1)).astype(np.float32)
    unknown = (count == 0).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    by_label = np.zeros(int(labels.max()) + 1, dtype=np.float32)
    by_label[labels[unknown == 0]] = mean[unknown == 0]
    return by_label[labels]
