"""A picture of a rig: its images on the left, its maps on the right with forward up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from ..colormap import labelled, resize_to_height, side_by_side, tile_grid
from .grid import BevGrid

IMAGE_HEIGHT = 256
"""Height of each image in the picture, pixels."""
COLUMNS = 3
"""Images in a row: front left, front, front right; the cameras at the back are in the second row."""
GROUND = (36, 38, 44)
COLOURS = {"road": (112, 116, 128), "vehicle": (255, 150, 32)}
"""RGB of the classes; later ones are drawn on top."""
EGO = (240, 240, 240)
EGO_BEHIND, EGO_AHEAD, EGO_HALF_WIDTH = 1.0, 3.7, 0.95
"""Outline of a typical car, metres from the middle of its rear axle."""


def rig_picture(
    images: Sequence[tuple[str, np.ndarray]], maps: Mapping[str, np.ndarray], classes: Sequence[str], grid: BevGrid
) -> np.ndarray:
    """uint8 RGB (h, w, 3).

    Args:
        images: names and uint8 RGB (h, w, 3).
        maps: by title, float (K, X, Y) in [0, 1], in the order of the classes.
    """
    picture = tile_grid([(name, resize_to_height(image, IMAGE_HEIGHT)) for name, image in images], COLUMNS)
    for title, drawn in maps.items():
        picture = side_by_side(picture, labelled(colour_map(drawn, classes, grid), title))
    return picture


def colour_map(drawn: np.ndarray, classes: Sequence[str], grid: BevGrid) -> np.ndarray:
    """Maps (K, X, Y) in [0, 1] as a picture, uint8 RGB (h, w, 3): x upwards, y to the left, the vehicle in white.

    The colour of a class fades to the background with lower probability.
    """
    picture = np.full((*grid.shape, 3), GROUND, dtype=np.float64)
    for name, colour in COLOURS.items():
        if name in classes:
            share = drawn[list(classes).index(name), ..., None]
            picture += share * (np.array(colour) - picture)
    x, y = grid.centres()
    ego = (x[:, None] > -EGO_BEHIND) & (x[:, None] < EGO_AHEAD) & (np.abs(y[None]) < EGO_HALF_WIDTH)
    picture[ego] = EGO
    shown = np.ascontiguousarray(picture[::-1, ::-1].round().astype(np.uint8))
    rows = 2 * IMAGE_HEIGHT
    return cv2.resize(shown, (rows * shown.shape[1] // shown.shape[0], rows), interpolation=cv2.INTER_NEAREST)
