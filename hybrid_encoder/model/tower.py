"""What all towers that see the image have in common: their own normalisation, frozen parts, a grid of patches.

Every tower takes `image: (B, 3, H, W)`, RGB in [0, 1], H and W multiples of 32, and gives four maps.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import SIZE_MULTIPLE
from .exporting import is_exporting
from .pixels import IMAGENET_MEAN, IMAGENET_STD, PixelCheck

Normalization = tuple[tuple[float, ...], tuple[float, ...]]


class Tower(nn.Module):
    """The base of all towers: normalisation as buffers, which are saved with the weights, and frozen parts that stay in
    eval mode.

    Attributes:
        channels: channels of the four maps.
    """

    channels: tuple[int, ...]
    mean: Tensor
    std: Tensor

    def __init__(self, normalization: Normalization | None) -> None:
        super().__init__()
        mean, std = normalization or ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self._frozen: list[nn.Module] = []
        self._check_pixels = PixelCheck()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("mean", "std"):  # files of others, and of our first versions, lack them
            state_dict.setdefault(f"{prefix}{name}", getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def normalize(self, image: Tensor) -> Tensor:
        """The image with this tower's mean and standard deviation, same shape.

        Raises:
            UserError: pixels that are not in [0, 1], as `PixelCheck` sees them.
        """
        self._check_pixels(image)
        return (image - self.mean) / self.std

    def freeze(self, *modules: nn.Module) -> None:
        """Turns off gradients for these modules, and keeps them in eval mode even under `.train()`."""
        for module in modules:
            module.requires_grad_(False)
            module.eval()
            self._frozen.append(module)

    def train(self, mode: bool = True) -> Tower:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


def to_patch_grid(image: Tensor, patch: int) -> tuple[Tensor, tuple[int, int]]:
    """The image resized (bilinear) to the nearest multiple of the patch size, and its grid (h, w)."""
    height, width = image.shape[-2:]
    # round(height / patch) in whole numbers, since sizes are tensors under torch.jit.trace. Multiples of 32 are never
    # halfway between two multiples of a patch below 64.
    grid = (max((2 * height + patch) // (2 * patch), 1), max((2 * width + patch) // (2 * patch), 1))
    size = (grid[0] * patch, grid[1] * patch)
    # Exported programs always resize, so that sizes are not compared, unless no image ever needs it.
    if (is_exporting() and SIZE_MULTIPLE % patch) or size != (height, width):
        image = F.interpolate(image, size, mode="bilinear", align_corners=False)
    return image, grid


def quarters(depth: int) -> tuple[int, ...]:
    """The last block of each quarter of a transformer, 0-based: 2, 5, 8, 11 of 12."""
    return tuple(depth * (i + 1) // 4 - 1 for i in range(4))


def choose_normalization(choice: str, own: Normalization) -> Normalization | None:
    """The mean and standard deviation of a tower under "own", "imagenet" or "none" (`HybridEncoderConfig.normalization`
    and `normalization_of_dino`); None: values stay in [0, 1]."""
    return {"own": own, "imagenet": (IMAGENET_MEAN, IMAGENET_STD), "none": None}[choice]
