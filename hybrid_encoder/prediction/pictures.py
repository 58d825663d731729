"""Writes predicted depth: coloured pictures, 16-bit depth and arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..colormap import colorize_disparity, write_picture
from ..writing import write_npy

DEPTH_PNG_SCALE = 256.0
"""Grey levels per metre of KITTI's 16-bit depth images; 0 means unknown, the largest depth is 255.99 m."""

COARSE_BELOW = 10.0
"""Where all depth is below this, steps of 1/256 are a part of it that one can see."""


def write_depth_png(path: str | Path, depth: np.ndarray) -> None:
    """Depth in metres, (H, W), 0 where unknown, as KITTI's 16-bit PNG; known depths stay within 1/256 and 255.99 m."""
    grey = np.clip(np.round(depth * DEPTH_PNG_SCALE), 1, 65535)
    write_picture(path, np.where(depth > 0, grey, 0).astype(np.uint16))


def write_image(disparity: np.ndarray, depth: np.ndarray, paths: dict[str, Path]) -> list[Path]:
    """What one image gives.

    Args:
        disparity, depth: (H, W).
        paths: files to write for "disp", "depth" and, if asked for, "npy".

    Returns:
        The files written.

    Raises:
        UserError: a file cannot be written.
    """
    write_picture(paths["disp"], colorize_disparity(disparity))
    write_depth_png(paths["depth"], depth)
    if "npy" in paths:
        write_npy(paths["npy"], depth)
    return list(paths.values())
