"""Views: a camera's image scaled, cropped and augmented for the net, and the same change as a matrix on pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ..images import resize_image

ROWS_CUT_ABOVE = (0.4, 1.0)
"""Range of the share of the surplus rows that is cut off at the top; the top, mostly sky, loses at least 40%."""


@dataclass(frozen=True)
class ViewAugmentation:
    """How far a random view may differ from `plain_view`; the defaults are about those of Lift-Splat-Shoot.

    Attributes:
        scale: smallest and largest factor of the scale; a small image gets a black border.
        turn: largest rotation in either direction, degrees.
        mirror: probability that the view is mirrored.
    """

    scale: tuple[float, float] = (0.9, 1.1)
    turn: float = 5.4
    mirror: float = 0.5


@dataclass(frozen=True)
class View:
    """Scales, crops, mirrors and rotates an image about its centre, in this order.

    Attributes:
        size: rows and columns of the result.
        scaled: rows and columns of the image before the crop.
        above, left: pixels that the crop removes from the scaled image; a negative number adds black ones.
        mirror: whether left and right are exchanged.
        turn: radians, clockwise.
    """

    size: tuple[int, int]
    scaled: tuple[int, int]
    above: int = 0
    left: int = 0
    mirror: bool = False
    turn: float = 0.0

    def apply(self, image: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) -> (*size, 3); black outside the image."""
        height, width = self.size
        return cv2.warpAffine(resize_image(image, *self.scaled), self._from_scaled()[:2], (width, height))

    def matrix(self, width: int, height: int) -> np.ndarray:
        """The map of pixels of the image to pixels of the view; pixel centres lie at integer coordinates.

        >>> View((2, 4), (4, 4), above=2, mirror=True).matrix(8, 8).tolist()
        [[-0.5, 0.0, 3.25], [0.0, 0.5, -2.25], [0.0, 0.0, 1.0]]

        Args:
            width, height: of the image.

        Returns:
            (3, 3) float64. Its product with a camera's intrinsics is the view's intrinsics.
        """
        y, x = self.scaled[0] / height, self.scaled[1] / width
        return self._from_scaled() @ np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])

    def _from_scaled(self) -> np.ndarray:
        """Crop, mirroring and rotation as one matrix (3, 3)."""
        height, width = self.size
        middle_x, middle_y, sign = (width - 1) / 2, (height - 1) / 2, -1.0 if self.mirror else 1.0
        centred = np.array([[sign, 0, -sign * (self.left + middle_x)], [0, 1, -self.above - middle_y], [0, 0, 1]])
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        turned = np.array([[cos, -sin, middle_x], [sin, cos, middle_y], [0, 0, 1]])
        found: np.ndarray = turned @ centred
        return found


def plain_view(width: int, height: int, size: tuple[int, int]) -> View:
    """The view without augmentation: the image fills it and keeps its aspect ratio.

    >>> plain_view(1600, 900, (128, 352))
    View(size=(128, 352), scaled=(198, 352), above=49, left=0, mirror=False, turn=0.0)
    """
    return _view(width, height, size, 1.0, (sum(ROWS_CUT_ABOVE) / 2, 0.5))


def draw_view(
    width: int, height: int, size: tuple[int, int], augmentation: ViewAugmentation, rng: np.random.Generator
) -> View:
    """A random view.

    Args:
        width, height: of the image.
        size: rows and columns of the result.
    """
    scale, above, left = (rng.uniform(*limits) for limits in (augmentation.scale, ROWS_CUT_ABOVE, (0.0, 1.0)))
    mirror = bool(rng.random() < augmentation.mirror)
    turn = math.radians(rng.uniform(-augmentation.turn, augmentation.turn))
    plain = _view(width, height, size, scale, (above, left))
    return View(size, plain.scaled, plain.above, plain.left, mirror, turn)


def _view(width: int, height: int, size: tuple[int, int], scale: float, cut: tuple[float, float]) -> View:
    """A view without mirroring and rotation; `cut`: shares of surplus rows and columns to cut at top and left."""
    factor = scale * max(size[0] / height, size[1] / width)
    scaled = max(round(height * factor), 1), max(round(width * factor), 1)
    above, left = (round((had - kept) * share) for had, kept, share in zip(scaled, size, cut, strict=True))
    return View(size, scaled, above, left)
