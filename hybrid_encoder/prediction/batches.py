"""Predicts a batch of images, at the model's size or in their own aspect ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..config import SIZE_MULTIPLE
from ..model.predictor import DepthPredictor, check_finite, predict_disparities
from .settings import PredictionSettings


def predict_batch(
    model: DepthPredictor, images: Sequence[np.ndarray], settings: PredictionSettings
) -> list[np.ndarray]:
    """Inverse depth, float32 (h, w), of each of the uint8 RGB images (H, W, 3), which may have different sizes.

    Raises:
        NonFiniteWeightsError: the model predicts non-finite values.
    """
    if not settings.keep_aspect:
        return list(check_finite(predict_disparities(model, images)))
    found: dict[int, np.ndarray] = {}
    sizes = [aspect_size(image.shape[:2], model.height * model.width) for image in images]
    for size in dict.fromkeys(sizes):
        numbers = [number for number, other in enumerate(sizes) if other == size]
        resized = AtSize(model, *size)
        found |= zip(numbers, check_finite(predict_disparities(resized, [images[n] for n in numbers])), strict=True)
    return [found[number] for number in range(len(images))]


def aspect_size(size: tuple[int, ...], pixels: int) -> tuple[int, int]:
    """Height and width, multiples of 32, with nearly the aspect ratio of an image and about `pixels` pixels.

    >>> aspect_size((375, 1242), 192 * 640), aspect_size((720, 1280), 192 * 640), aspect_size((720, 1280), 96 * 320)
    ((192, 640), (288, 512), (128, 224))

    Args:
        size: height and width of the image.
        pixels: number of pixels of the training images.
    """
    height, width = size
    least = max(int((pixels * height / width) ** 0.5 // SIZE_MULTIPLE), 1)
    sizes = []
    for rows in (least * SIZE_MULTIPLE, (least + 1) * SIZE_MULTIPLE):
        columns = max(round(rows * width / height / SIZE_MULTIPLE), 1) * SIZE_MULTIPLE
        sizes.append((rows, columns))

    def difference(rows: int, columns: int) -> float:
        stretch, growth = columns * height / (rows * width), rows * columns / pixels
        return abs(math.log(stretch)) + abs(math.log(growth)) / 10

    return min(sizes, key=lambda found: difference(*found))


class AtSize:
    """A `DepthPredictor` that sees images at another size than it was trained on."""

    def __init__(self, model: DepthPredictor, height: int, width: int) -> None:
        self._model, self.height, self.width = model, height, width
        self.min_depth, self.max_depth = model.min_depth, model.max_depth
        self.resize = getattr(model, "resize", "area")

    def disparity(self, image: Tensor) -> Tensor:
        """1 / depth, (B, 1, height, width), of RGB images (B, 3, height, width) in [0, 1]."""
        return self._model.disparity(image)
