"""Pinhole geometry as pure functions of numpy arrays: intrinsics, and points of pixels.

Camera axes: x right, y down, z ahead. Pixel centres lie at integer coordinates.
"""

from __future__ import annotations

import math

import numpy as np


def resize_intrinsics(K: np.ndarray, size: tuple[int, int], new_size: tuple[int, int]) -> np.ndarray:
    """Intrinsics (3, 3) of an image after it is resized from `size` to `new_size`, both (width, height).

    The outer borders of the image coincide. Pixel centres lie at integers, so that the first border is at -0.5: the
    principal point is scaled about it.

    >>> K = np.array([[100.0, 0, 49.5], [0, 100, 19.5], [0, 0, 1]])  # the middle of 100 x 40
    >>> resize_intrinsics(K, (100, 40), (50, 10)).tolist()
    [[50.0, 0.0, 24.5], [0.0, 25.0, 4.5], [0.0, 0.0, 1.0]]
    """
    x, y = new_size[0] / size[0], new_size[1] / size[1]
    resized = K * np.array([[x], [y], [1.0]])
    resized[0, 2] += (x - 1) / 2
    resized[1, 2] += (y - 1) / 2
    return resized


def intrinsics_of_view(degrees: float, width: int, height: int) -> np.ndarray:
    """Intrinsics (3, 3) from a horizontal field of view, for square pixels and a centred principal point.

    >>> intrinsics_of_view(90.0, 100, 40).round(6).tolist()
    [[50.0, 0.0, 49.5], [0.0, 50.0, 19.5], [0.0, 0.0, 1.0]]
    """
    focal = width / 2 / math.tan(math.radians(degrees) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


def unproject(depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    """The 3D points of a depth map's pixels: depth (H, W) and K (3, 3) -> float32 (H, W, 3), in camera axes and in the
    unit of depth.

    >>> K = np.array([[2.0, 0, 1], [0, 2, 0], [0, 0, 1]])
    >>> unproject(np.full((1, 3), 4.0), K).tolist()
    [[[-2.0, 0.0, 4.0], [0.0, 0.0, 4.0], [2.0, 0.0, 4.0]]]
    """
    height, width = depth.shape
    x = (np.arange(width) - K[0, 2]) / K[0, 0]
    y = (np.arange(height) - K[1, 2]) / K[1, 1]
    return np.stack([x * depth, y[:, None] * depth, depth], axis=-1).astype(np.float32)


def transform(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points (N, 3) transformed by a pose (4, 4); the dtype is that of the points.

    >>> pose = np.eye(4)
    >>> pose[2, 3] = 5.0
    >>> transform(np.array([[1.0, 2.0, 3.0]]), pose).tolist()
    [[1.0, 2.0, 8.0]]
    """
    return (points @ pose[:3, :3].T + pose[:3, 3]).astype(points.dtype)
