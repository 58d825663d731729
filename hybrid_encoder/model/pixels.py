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
from ..images import read_image, upper_bits

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

    >>> [pixels.shape for pixels in to_pixels(np.zeros((2, 5, 7, 3)))], to_pixels(np.ones((1, 2)))[0].tolist()
    ([(5, 7, 3), (5, 7, 3)], [[[255, 255, 255], [255, 255, 255]]])

    Args:
        image: a file; a PIL image of any mode; an array (H, W), (H, W, 3), (H, W, 4) or (B, H, W, 3), a tensor
            (3, H, W) or (B, 3, H, W); or a sequence of those. Whole numbers are from 0 to 255, floats in [0, 1]; of 16
            bits a channel, as PIL has them, the upper 8 are kept. Grey becomes RGB, transparency is dropped.

    Raises:
        UserError: an unreadable file, or an image of another form or range or without pixels.
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
        return list(_of_array(image))
    raise UserError(f"image of type {type(image).__name__}: expected a file, a PIL image, an array or a tensor")


def _of_pil(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        return _of_array(upper_bits(np.asarray(image).astype(np.int64), f"PIL image of mode {image.mode}"))[0]
    if image.mode == "La":  # premultiplied, from which Pillow makes no RGB
        image = image.convert("LA")
    return _of_array(np.asarray(image if image.mode == "F" else image.convert("RGB")))[0]


def _of_array(image: np.ndarray) -> np.ndarray:
    """(B, H, W, 3)."""
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    elif image.ndim == 3 and image.shape[-1] == 4:
        image = image[..., :3]
    if image.ndim not in (3, 4) or image.shape[-1] != 3 or image.dtype.kind not in "uif":
        raise UserError(
            f"image of shape {image.shape}, {image.dtype}: expected RGB (H, W, 3), uint8 or floats in [0, 1]"
        )
    wide = np.float32 if image.dtype.kind == "f" else np.int64
    plain = image.astype(np.uint8 if image.dtype == np.uint8 else wide)
    return _to_bytes(torch.from_numpy(plain if image.ndim == 4 else plain[None])).numpy()


def _of_tensor(image: Tensor) -> np.ndarray:
    """(B, H, W, 3)."""
    batch = image[None] if image.ndim == 3 else image
    if batch.ndim != 4 or batch.shape[1] != 3:
        raise UserError(f"image tensor of shape {tuple(image.shape)}: expected (3, H, W) or (B, 3, H, W)")
    return _to_bytes(batch.detach().cpu()).permute(0, 2, 3, 1).contiguous().numpy()


def _to_bytes(image: Tensor) -> Tensor:
    """Whole numbers from 0 to 255, or floats in [0, 1], as uint8."""
    low, high = (float(value) for value in image.aminmax()) if image.numel() else (0.0, 0.0)
    if image.is_floating_point():
        check_range(low, high)
        image = (image.clamp(0, 1) * 255).round()
    elif not 0 <= low <= high <= 255:
        raise UserError(f"image with values from {low:g} to {high:g}: expected whole numbers from 0 to 255")
    return image.to(torch.uint8)
