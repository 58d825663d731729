"""Conversions between a net's disparity, inverse depth and depth."""

from __future__ import annotations

import numpy as np
from torch import Tensor

FLAT_SPREAD = 0.05
"""Standard deviation of log depth below which a depth map is flat: its depth is constant within about 5%. A driving
scene has about 0.8."""


def disp_to_depth(disp: Tensor, min_depth: float, max_depth: float) -> tuple[Tensor, Tensor]:
    """Disparity in [0, 1], of any shape, -> (1 / depth, depth), linear in 1 / depth between the two bounds
    (Monodepth2, https://arxiv.org/abs/1806.01260, section 4).

    >>> from torch import tensor
    >>> scaled, depth = disp_to_depth(tensor([0.0, 1.0]), min_depth=0.5, max_depth=4.0)
    >>> scaled.tolist(), depth.tolist()
    ([0.25, 2.0], [4.0, 0.5])
    """
    nearest, farthest = 1 / min_depth, 1 / max_depth
    scaled = farthest + (nearest - farthest) * disp
    return scaled, 1 / scaled


def disparity_to_depth(disparity: np.ndarray, min_depth: float, max_depth: float) -> np.ndarray:
    """1 / disparity, clipped to the model's depth limits; float32.

    >>> disparity_to_depth(np.array([0.5, 0.0]), 0.1, 100.0).tolist()
    [2.0, 100.0]
    """
    return (1.0 / np.clip(disparity, 1.0 / max_depth, 1.0 / min_depth)).astype(np.float32)


def is_flat(disparity: np.ndarray) -> bool:
    """Whether a finite map of 1 / depth, (H, W), shows the same depth everywhere, by `FLAT_SPREAD`.

    >>> is_flat(np.full((4, 4), 0.1)), is_flat(np.linspace(0.1, 1.0, 16).reshape(4, 4))
    (True, False)
    """
    return bool(np.log(np.maximum(disparity, 1e-9)).std() < FLAT_SPREAD)
