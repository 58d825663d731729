"""Pixels as other people's data pipelines hand them to a backbone, and the way back to RGB in [0, 1]."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hybrid_encoder.errors import UserError

ChannelOrder = Literal["rgb", "bgr"]

_DARKEST, _BRIGHTEST = (-0.25, 0.25), (0.1, 1.75)
"""Where the darkest and the brightest value of a batch of photographs may lie. Augmentation of brightness and contrast
leaves [0, 1], and only by so much."""


@dataclass(frozen=True)
class Normalization:
    """What a pipeline did to pixels from 0 to 255: (pixel - mean) / std.

    Attributes:
        channel_order: of the channels as they arrive at the backbone.
        mean, std: one number a channel, in that order.
    """

    channel_order: ChannelOrder
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.channel_order not in get_args(ChannelOrder):
            raise UserError(f"channel_order={self.channel_order!r}: expected 'rgb' or 'bgr'")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(
                f"mean={self.mean}, std={self.std}: expected three numbers each, those of std above 0, for pixels "
                "from 0 to 255"
            )

    def fits(self, low: Tensor, high: Tensor) -> bool:
        """Whether photographs can have these values.

        Args:
            low, high: (3,) the lowest and the highest value of every channel.
        """
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        darkest = float(((low * std + mean) / 255).min())
        brightest = float(((high * std + mean) / 255).max())
        return _DARKEST[0] <= darkest <= _DARKEST[1] and _BRIGHTEST[0] <= brightest <= _BRIGHTEST[1]


_IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

NORMALIZATIONS: dict[str, Normalization] = {
    "torchvision": Normalization("rgb", *_IMAGENET),
    "caffe": Normalization("bgr", _IMAGENET[0][::-1], (1.0, 1.0, 1.0)),
    "bevdet": Normalization("bgr", *_IMAGENET),
    "fbbev": Normalization("bgr", *_IMAGENET),
    "unit": Normalization("rgb", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
}
"""By name. "torchvision": most configs of mmdet, BEVDet 1, Lift-Splat-Shoot. "caffe": FCOS3D and others on Detectron's
ResNets. "bevdet" (BEVDet 2 and 3) and "fbbev" (FB-BEV, BEVDepth): Pillow reads RGB, to_rgb=True swaps the channels, and
the mean of red is taken off blue. "unit": values in [0, 1]."""


def declared(
    pixels: str | None,
    channel_order: ChannelOrder | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Normalization:
    """What a config says of the pixels: a name of `NORMALIZATIONS`, or all three fields; fields go before the name.

    >>> declared("caffe", std=(2.0, 2.0, 2.0))
    Normalization(channel_order='bgr', mean=(103.53, 116.28, 123.675), std=(2.0, 2.0, 2.0))

    Raises:
        UserError: an unknown name; or neither a name nor all three fields.
    """
    if pixels is not None and pixels not in NORMALIZATIONS:
        raise UserError(f"pixels={pixels!r}: expected one of {', '.join(map(repr, NORMALIZATIONS))}")
    if pixels is not None:
        base = NORMALIZATIONS[pixels]
        return Normalization(channel_order or base.channel_order, tuple(mean or base.mean), tuple(std or base.std))
    if channel_order is None or mean is None or std is None:
        raise UserError(
            "a hybrid encoder has to know what the data pipeline did to pixels: give pixels=NAME, one of "
            f"{', '.join(map(repr, NORMALIZATIONS))}, or channel_order, mean and std"
        )
    return Normalization(channel_order, tuple(mean), tuple(std))


class ToRgb(nn.Module):
    """Undoes a normalisation: (B, 3, H, W) as it arrives -> RGB in [0, 1].

    Warns at the first batch where photographs cannot have such values under the normalisation that was declared. Which
    of two channels is red cannot be seen, so a wrong order of channels goes unnoticed.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.normalization = normalization
        self._looked = False
        for name, values in (("scale", normalization.std), ("shift", normalization.mean)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1) / 255, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) as it arrives -> RGB in [0, 1], same shape; what lies outside is cut off."""
        if not (self._looked or torch.compiler.is_compiling() or torch.jit.is_tracing()):
            self._looked = True
            self._check(image.detach())
        undone = (image * self.scale + self.shift).clamp(0, 1)
        return undone.flip(1) if self.normalization.channel_order == "bgr" else undone

    def _check(self, image: Tensor) -> None:
        low, high = (found((0, 2, 3)).float().cpu() for found in (image.amin, image.amax))
        if self.normalization.fits(low, high):
            return
        fitting = [repr(name) for name, known in NORMALIZATIONS.items() if known.fits(low, high)]
        warnings.warn(
            f"the first batch has values from {float(low.min()):.4g} to {float(high.max()):.4g}, which photographs "
            f"cannot have under {self.normalization}: the encoder sees wrong colours. Declare what the data pipeline "
            f"does, by pixels=NAME or by channel_order, mean and std. Names that fit: {', '.join(fitting) or 'none'}",
            stacklevel=2,
        )
