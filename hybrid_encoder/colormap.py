"""Depth and disparity as pictures: colour maps on a robust scale, labels, tiles and files. Arrays are RGB; OpenCV alone
does the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from .errors import UserError
from .writing import atomic_path, not_written

COLORMAPS = {
    "magma": cv2.COLORMAP_MAGMA,
    "inferno": cv2.COLORMAP_INFERNO,
    "plasma": cv2.COLORMAP_PLASMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "turbo": cv2.COLORMAP_TURBO,
    "bone": cv2.COLORMAP_BONE,
}
"""Colours by the names that matplotlib gives them."""
LOW_PERCENTILE, HIGH_PERCENTILE = 1.0, 95.0
"""Ends of the colour scale. A few very near pixels would otherwise darken the rest of the picture (the field's 95%)."""


def color_range(values: np.ndarray) -> tuple[float, float]:
    """The scale's ends for these values (any shape): their 1st and 95th percentiles."""
    low, high = np.percentile(values, [LOW_PERCENTILE, HIGH_PERCENTILE])
    return float(low), float(high)


def colorize(
    values: np.ndarray, low: float, high: float, known: np.ndarray | None = None, colormap: str = "magma"
) -> np.ndarray:
    """Colours, with magma dark at `low` and bright at `high`.

    Args:
        values: (H, W).
        known: boolean (H, W); pixels that are not known are black.
        colormap: a key of `COLORMAPS`.

    Returns:
        uint8 RGB (H, W, 3).
    """
    scaled = np.clip((values.astype(np.float32) - low) / max(high - low, 1e-12), 0.0, 1.0)
    if known is not None:
        scaled = np.where(known, scaled, 0.0)
    bgr = cv2.applyColorMap(np.round(scaled * 255).astype(np.uint8), COLORMAPS[colormap])
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    if known is not None:
        rgb[~known] = 0
    return rgb


def colorize_disparity(
    disparity: np.ndarray, limits: tuple[float, float] | None = None, colormap: str = "magma"
) -> np.ndarray:
    """Inverse depth (H, W) as uint8 RGB, near bright and far dark; `limits` fixes the scale, else it fits this map."""
    return colorize(disparity, *(color_range(disparity) if limits is None else limits), colormap=colormap)


def colorize_depth(depth: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """Depth (H, W), metres, 0 where unknown, as uint8 RGB on the scale of its inverse: near bright, far dark, unknown
    black.

    `limits` are ends of the scale in inverse depth, so that a truth can share the scale of a predicted disparity.
    """
    known = depth > 0
    inverse = 1.0 / np.where(known, depth, np.inf)
    if limits is None:
        limits = color_range(inverse[known]) if known.any() else (0.0, 1.0)
    return colorize(inverse, *limits, known=known)


def resize_to_height(image: np.ndarray, height: int) -> np.ndarray:
    """uint8 RGB (h, w, 3) at this height with its aspect kept."""
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    smaller = height < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two uint8 RGB pictures in a row, the right one brought to the left one's height."""
    if right.shape[0] != left.shape[0]:
        right = resize_to_height(right, left.shape[0])
    return np.hstack([left, right])


def labelled(image: np.ndarray, text: str) -> np.ndarray:
    """The picture (uint8 RGB) under a dark strip with its label in white."""
    strip_height = max(18, image.shape[0] // 12)
    strip = np.full((strip_height, image.shape[1], 3), 24, np.uint8)
    scale = strip_height / 34
    cv2.putText(
        strip, text, (6, round(strip_height * 0.72)), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA
    )
    return np.vstack([strip, image])


def tile_grid(tiles: Sequence[tuple[str, np.ndarray]], columns: int) -> np.ndarray:
    """Labelled pictures in rows of `columns`, all brought to the size of the first; missing tiles are black."""
    if not tiles:
        raise ValueError("tile_grid needs at least one picture")
    height, width = tiles[0][1].shape[:2]
    cells = [
        labelled(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), text) for text, picture in tiles
    ]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    rows = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    return np.vstack(rows)


def write_picture(path: str | Path, picture: np.ndarray) -> None:
    """Writes a picture, whole or not at all, as the kind that the path's suffix names.

    Python writes the file: OpenCV crashes on names that are no UTF-8.

    Args:
        picture: uint8 RGB (H, W, 3), or grey (H, W), uint8 or uint16.

    Raises:
        UserError: the file cannot be encoded or written.
    """
    path = Path(path)
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    try:
        encoded, data = cv2.imencode(path.suffix, pixels)
    except cv2.error as error:
        raise UserError(
            f"a picture of {pixels.shape[1]}x{pixels.shape[0]} cannot be written as {path.suffix}"
        ) from error
    if not encoded:
        raise UserError(f"a picture of {pixels.shape[1]}x{pixels.shape[0]} cannot be written as {path.suffix}")
    try:
        with atomic_path(path) as partial:
            partial.write_bytes(data.data)
    except OSError as error:
        raise not_written(path, error) from error
