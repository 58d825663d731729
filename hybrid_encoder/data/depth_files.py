"""Reads files of one depth map each: a .npy file, or a 16-bit grey PNG."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from ..config import MAX_PIXELS, MAX_SIDE
from ..errors import UserError
from ..images import read_pixels
from .safe_npy import NpyFile

KITTI_PNG_SCALE = 256.0
"""The value of a depth PNG that means one metre, as in KITTI's depth benchmark; its largest depth is 255.99 m."""


def read_depth(path: Path, png_scale: float = KITTI_PNG_SCALE) -> np.ndarray:
    """A depth file: float32 (H, W), metres, 0 where unknown.

    Args:
        path: 16-bit grey PNG, or .npy of numbers in metres; non-finite numbers are unknown depth.
        png_scale: the value of a PNG that means one metre.

    Raises:
        UserError: as `read_numbers`; or negative numbers.
    """
    numbers = read_numbers(path)
    if path.suffix.lower() != ".npy":
        return numbers / np.float32(png_scale)
    depth = numbers.astype(np.float32)
    depth[~np.isfinite(depth)] = 0
    if (depth < 0).any():
        raise UserError(f"{path} holds negative values, which are no depth: expected metres, 0 where unknown")
    return depth


def read_numbers(path: Path) -> np.ndarray:
    """The numbers of a depth map, (H, W), in the file's own unit: uint16 of a PNG, any numeric dtype of a .npy file.

    Raises:
        UserError: a missing or damaged file, one of another kind, or a size beyond `MAX_SIDE` or `MAX_PIXELS`.
    """
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    values = read_pixels(path, cv2.IMREAD_UNCHANGED)
    if values.dtype != np.uint16 or values.ndim != 2:
        channels = 1 if values.ndim == 2 else values.shape[2]
        raise UserError(
            f"{path} is no depth map: it has {8 * values.itemsize} bits and {channels} channels, expected 16-bit grey, "
            "not a coloured picture of depth; or save the numbers with numpy.save as .npy"
        )
    return values


def _read_npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as stream:
            file = NpyFile(stream, path.stat().st_size)
            shape = [side for side in file.shape if side != 1]
            if len(shape) != 2 or file.dtype.kind not in "fiu" or not math.prod(shape):
                raise ValueError(f"it holds {file.dtype} {file.shape}")
            if max(shape) > MAX_SIDE or math.prod(shape) > MAX_PIXELS:
                raise ValueError(f"it states a size of {shape[1]}x{shape[0]}")
            return np.asarray(file.read()).reshape(shape)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; expected numbers of shape (H, W), as numpy.save writes them") from error
