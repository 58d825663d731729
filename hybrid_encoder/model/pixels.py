"""Checks and conversions of pixels: images as nets take them, RGB in [0, 1], and images as users hold them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UserError
from ..images import read_image

ImageLike = np.ndarray | str | Path | Tensor | Image.Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels, RGB."""
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of the images that OpenAI's CLIP was trained on."""

_SLACK = 0.01
"""By how much pixels may leave [0, 1]: bfloat16 and resizing round values."""


class PixelCheck:
    """Refuses images that are not in [0, 1]. Every call checks the dtype, the first one the values, in one reduction.

    Without it, pixels from 0 to 255, or pixels that are normalised already, would give wrong depth without an error.
    """

    def __init__(self) -> None:
        self._looked = False

    def __call__(self, image: Tensor) -> None:
        """
        Args:
            image: (B, 3, H, W).

        Raises:
            UserError: whole numbers, or values outside of [0, 1].
        """
        if not image.is_floating_point():
            kind = str(image.dtype).removeprefix("torch.")
            raise UserError(f"image of {kind}: expected floats in [0, 1]; of pixels from 0 to 255, image.float() / 255")
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or self._looked:
            return
        try:
            low, high = (float(value) for value in image.detach().aminmax())
        except RuntimeError:  # no values to look at: on the device "meta", under torch.func, or an empty batch
            return
        self._looked = True
        check_range(low, high)


def check_range(low: float, high: float) -> None:
    """Raises `UserError` where the lowest and highest pixel lie outside of [0, 1].

    >>> check_range(0.0, 1.0)
    """
    if low < -_SLACK or high > 1 + _SLACK:
        raise UserError(
            f"image with values from {low:.4g} to {high:.4g}: expected RGB in [0, 1], not normalised by a mean and a "
            "deviation; of pixels from 0 to 255, image / 255"
        )


def to_pixels(image: ImageLike | Sequence[ImageLike]) -> list[np.ndarray]:
    """RGB uint8 (H, W, 3) of every image.

    Args:
        image: a file; a PIL image of 8 bits a channel (transparency is dropped, grey becomes RGB); uint8
            (H, W, 3) or (B, H, W, 3); a tensor (3, H, W) or (B, 3, H, W), whole numbers from 0 to 255 or floats in
            [0, 1]; or a sequence of those.

    Raises:
        UserError: an unreadable file, or an image of another form or without pixels.
    """
    found = _pixels(image)
    if (not found and not is_sequence(image)) or any(0 in pixels.shape for pixels in found):
        raise UserError("image without pixels: expected at least one image of one pixel")
    return found


def is_sequence(image: ImageLike | Sequence[ImageLike]) -> TypeGuard[Sequence[ImageLike]]:
    """Whether this is a sequence of images, rather than one image or a batch in one array."""
    return isinstance(image, Sequence) and not isinstance(image, str)


def _pixels(image: ImageLike | Sequence[ImageLike]) -> list[np.ndarray]:
    if is_sequence(image):
        return [pixels for one in image for pixels in to_pixels(one)]
    if isinstance(image, str | Path):
        return [read_image(image)]
    if isinstance(image, Image.Image):
        return [_of_pil(image)]
    if isinstance(image, Tensor):
        return list(_of_tensor(image))
    if isinstance(image, np.ndarray):
        if image.ndim not in (3, 4) or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise UserError(f"image of shape {image.shape}, {image.dtype}: expected RGB uint8 (H, W, 3)")
        return list(image if image.ndim == 4 else image[None])
    raise UserError(f"image of type {type(image).__name__}: expected a file, a PIL image, an array or a tensor")


def _of_pil(image: Image.Image) -> np.ndarray:
    if image.mode.startswith(("I", "F")):
        raise UserError(f"PIL image of mode {image.mode}: expected 8 bits a channel, such as L, RGB or RGBA")
    return np.asarray(image.convert("RGB"))


def _of_tensor(image: Tensor) -> np.ndarray:
    """(B, H, W, 3)."""
    batch = image[None] if image.ndim == 3 else image
    if batch.ndim != 4 or batch.shape[1] != 3:
        raise UserError(f"image tensor of shape {tuple(image.shape)}: expected (3, H, W) or (B, 3, H, W)")
    batch = batch.detach().cpu()
    low, high = (float(value) for value in batch.aminmax()) if batch.numel() else (0.0, 0.0)
    if batch.is_floating_point():
        check_range(low, high)
        batch = (batch.clamp(0, 1) * 255).round()
    elif not 0 <= low <= high <= 255:
        raise UserError(f"image with values from {low:g} to {high:g}: expected whole numbers from 0 to 255")
    return batch.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
