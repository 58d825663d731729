"""Colour jitter of batches of images, on the images' device."""

from __future__ import annotations

import torch
from torch import Tensor

GREY_WEIGHTS = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey, as in torchvision."""


@torch.no_grad()
def color_jitter(images: Tensor, jitter: Tensor) -> Tensor:
    """Changes brightness, contrast, saturation and hue, in this order: of all frames of a sample alike, or of each
    frame by numbers of its own.

    Equal to torchvision.transforms.functional's adjust_* one after the other, frame by frame.

    Args:
        images: (B, F, 3, H, W), RGB in [0, 1].
        jitter: (B, 4), or (B, F, 4) with numbers for each frame: three factors, and the hue shift as a fraction of a
            turn; (1, 1, 1, 0) changes nothing. Keep it on the CPU: there the host need not wait for a GPU to learn
            which samples change.

    Returns:
        (B, F, 3, H, W) in [0, 1], a new tensor.
    """
    if jitter.ndim == 3:
        return color_jitter(images.flatten(0, 1)[:, None], jitter.flatten(0, 1)).view_as(images)
    factors, hue = jitter[:, :3], jitter[:, 3]
    active = ((factors != 1).any(1) | (hue != 0)).nonzero()[:, 0]
    chosen = active.to(images.device, non_blocking=True)
    own = jitter[active].to(images.device, images.dtype, non_blocking=True)
    return images.index_copy(0, chosen, _jittered(images[chosen], own))


def _jittered(images: Tensor, jitter: Tensor) -> Tensor:
    brightness, contrast, saturation, hue = jitter[:, :, None, None, None, None].unbind(1)
    images = (images * brightness).clamp_(0, 1)
    mean = _grey(images).mean(dim=(2, 3, 4), keepdim=True)
    images = torch.lerp(mean, images, contrast).clamp_(0, 1)
    images = torch.lerp(_grey(images), images, saturation).clamp_(0, 1)
    return _shift_hue(images, hue)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(2)
    r, g, b = GREY_WEIGHTS
    return (r * red + g * green + b * blue)[:, :, None]


def _shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue of (B, F, 3, H, W) by shift (B, 1, 1, 1, 1) turns, in HSV; value and chroma do not change."""
    red, green, blue = images.unbind(2)
    low, value = images.amin(2), images.amax(2)
    chroma = value - low
    divisor = chroma.masked_fill(chroma == 0, 1)
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = (hue + 6 * shift[:, :, 0]).remainder_(6)  # sixths of a turn: 0 red, 2 green, 4 blue
    # How much of the chroma each channel has: a trapezoid around its own hue.
    shares = ((hue - 3).abs_().sub_(1), 2 - (hue - 2).abs_(), 2 - (hue - 4).abs_())
    return torch.stack([torch.addcmul(low, chroma, share.clamp_(0, 1)) for share in shares], dim=2)
