"""Writes predicted depth: coloured pictures, 16-bit depth, arrays and points."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..colormap import color_range, colorize_disparity, write_picture
from ..data.depth_files import KITTI_PNG_SCALE
from ..metric.ply import write_ply
from ..metric.points import Cloud
from ..writing import write_npy
from .frame_pictures import picture_pair, unit_of
from .settings import PredictionSettings

COARSE_BELOW = 10.0
"""If all depth is below this, the steps of 1/256 in a 16-bit PNG are visible."""


def write_depth_png(path: str | Path, depth: np.ndarray) -> None:
    """Depth in metres, (H, W), 0 where unknown, as KITTI's 16-bit PNG; known depths stay within 1/256 and 255.99 m."""
    grey = np.clip(np.round(depth * KITTI_PNG_SCALE), 1, 65535)
    write_picture(path, np.where(depth > 0, grey, 0).astype(np.uint16))


class ImageDepth(NamedTuple):
    """An image and its predicted depth, at the image's size and in the unit that is written."""

    image: np.ndarray
    """uint8 RGB (H, W, 3)."""
    disparity: np.ndarray
    """(H, W), inverse depth."""
    depth: np.ndarray
    """(H, W), within the model's limits."""
    cloud: Cloud | None = None


def write_image(found: ImageDepth, paths: dict[str, Path], settings: PredictionSettings) -> list[Path]:
    """Writes the files of one image.

    Args:
        paths: files to write for "disp", "depth" and, if asked for, "pair", "npy" and "points".

    Returns:
        The files written.

    Raises:
        UserError: a file cannot be written.
    """
    limits = color_range(found.disparity)
    write_picture(paths["disp"], colorize_disparity(found.disparity, limits, settings.colormap))
    write_depth_png(paths["depth"], found.depth)
    if "pair" in paths:
        write_picture(paths["pair"], picture_pair(found.image, found.disparity, limits, settings))
    if "npy" in paths:
        write_npy(paths["npy"], found.depth)
    if "points" in paths and found.cloud is not None:
        write_ply(paths["points"], found.cloud, unit_of(settings))
    return list(paths.values())
