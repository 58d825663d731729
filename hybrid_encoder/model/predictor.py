"""Any depth model, as prediction and evaluation see it: images in, inverse depth out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..images import resize_image


class DepthPredictor(Protocol):
    """Any model that turns images into depth; an implementation is in evaluation mode and knows its own device.

    Where it has an attribute `resize`, that is how its images were resized in training, "area" or "lanczos"; without
    one, "area".
    """

    height: int
    width: int
    min_depth: float
    max_depth: float

    def disparity(self, image: Tensor) -> Tensor:
        """Inverse depth (1 / depth), (B, 1, height, width), of RGB images (B, 3, height, width) in [0, 1].

        Images come on the CPU and the model moves them; the result may be on any device.
        """


def resize_map(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w) to (height, width), bilinear, float32."""
    return cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def resize_for(model: DepthPredictor, image: np.ndarray) -> np.ndarray:
    """uint8 RGB (h, w, 3) -> (model.height, model.width, 3), as the images were resized that the model learnt from."""
    return resize_image(image, model.height, model.width, getattr(model, "resize", "area"))


@torch.no_grad()
def predict_disparities(model: DepthPredictor, images: Sequence[np.ndarray]) -> np.ndarray:
    """Inverse depth, float32 (B, model.height, model.width), of uint8 RGB images (h, w, 3) of any sizes."""
    batch = np.stack([resize_for(model, image) for image in images])
    disparity = model.disparity(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255.0)
    if disparity.shape != (len(images), 1, model.height, model.width):
        raise ValueError(f"disparity of shape {tuple(disparity.shape)} for {len(images)} images: expected (B, 1, H, W)")
    return disparity[:, 0].float().cpu().numpy()


class NonFiniteWeightsError(UserError):
    """The model is at fault, and no input."""


def check_finite(disparities: np.ndarray) -> np.ndarray:
    if not np.isfinite(disparities).all():
        raise NonFiniteWeightsError(
            "the model's inverse depth is not finite: its weights are damaged, or their training went wrong"
        )
    return disparities
