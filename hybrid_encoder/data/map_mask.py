"""Reads the picture of the ground that belongs to a map."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from ..errors import UserError
from .rig import MapMask

KEPT_MASKS = 8
"""Pictures that a process keeps: nuScenes has four, of up to 50 MB each in bits."""


@dataclass(frozen=True, eq=False)
class RoadBits:
    """A mask in memory, one bit a pixel."""

    bits: np.ndarray
    """uint8 (H, ceil(W / 8)), as `numpy.packbits` packs the rows."""
    width: int

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Whether these pixels are road, bool of their shape; outside of the picture nothing is."""
        inside = (rows >= 0) & (rows < len(self.bits)) & (columns >= 0) & (columns < self.width)
        rows, columns = np.where(inside, rows, 0), np.where(inside, columns, 0)
        return (self.bits[rows, columns >> 3] >> (7 - (columns & 7)) & 1).astype(bool) & inside


def is_road(mask: MapMask, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points of the global frame (metres, arrays of one shape) lie on road.

    Raises:
        UserError: the mask is missing or is no picture.
    """
    road = read_mask(mask.path)
    columns = np.floor(x / mask.cell).astype(np.int64)
    rows = len(road.bits) - 1 - np.floor(y / mask.cell).astype(np.int64)
    return road.at(rows, columns)


@lru_cache(maxsize=KEPT_MASKS)
def read_mask(path: Path) -> RoadBits:
    """A mask's picture. nuScenes' are larger than images may be elsewhere (20 000 pixels a side).

    Raises:
        UserError: it is missing or is no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the map {path}: {error.strerror or error}; it is in nuScenes' archive of metadata"
        ) from error
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    except cv2.error as error:
        raise UserError(f"the map {path} cannot be decoded: {error.err or error}") from error
    if picture is None:
        raise UserError(f"the map {path} is damaged or no picture: extract it again")
    return RoadBits(np.packbits(picture > 0, axis=1), picture.shape[1])
