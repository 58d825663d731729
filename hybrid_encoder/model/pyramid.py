"""Four aligned levels -> the maps that a host's own decoder takes (the drop-in contract): five at strides 2 to 32, or
as many as the host wants; padded images, cropped maps, maps in lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import SIZE_MULTIPLE, HybridEncoderConfig
from .contract import Decodable, EncoderFeatures

_LEVELS = {
    1: ((0, 1, 2, 3),),
    2: ((0, 1, 2), (3,)),
    3: ((0, 1), (2,), (3,)),
    4: ((0,), (1,), (2,), (3,)),
    5: ((0,), (0,), (1,), (2,), (3,)),
}
"""For each number of maps, the aligned levels that each map is made from. Every level is read by some map, so that the
whole encoder trains."""


class Pyramid(nn.Module):
    """Projects levels to a map's channels, resizes them (bilinear) to the map's stride and smooths them (3x3,
    depthwise).

    Args:
        encoder: the encoder whose features are read: the aligned levels and, where its config has `stride4_skip`, the
            stride-4 map, which is added to the maps of strides 2 and 4.
        config: of that encoder: channels and strides of the maps.
    """

    def __init__(self, encoder: Decodable, config: HybridEncoderConfig) -> None:
        super().__init__()
        self.strides = config.strides
        self.levels = _LEVELS[len(config.num_ch_enc)]
        self.project = nn.ModuleList(
            _projection(sum(encoder.aligned_channels[i] for i in read), out)
            for read, out in zip(self.levels, config.num_ch_enc, strict=True)
        )
        finest = [out for out, stride in zip(config.num_ch_enc, self.strides, strict=True) if stride <= 4]
        skipping = finest if encoder.stride4_channels else []
        self.skip = nn.ModuleList(_projection(encoder.stride4_channels, out) for out in skipping)
        self.smooth = nn.ModuleList(nn.Conv2d(out, out, 3, padding=1, groups=out) for out in config.num_ch_enc)

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """Features of (B, 3, H, W) -> maps (B, num_ch_enc[i], H / strides[i], W / strides[i]), not negative."""
        height, width = features.image_size
        maps = []
        for i, (read, stride) in enumerate(zip(self.levels, self.strides, strict=True)):
            levels = [features.aligned[level] for level in read]
            x = self.project[i](levels[0] if len(levels) == 1 else torch.cat(levels, dim=1))
            size = (height // stride, width // stride)
            x = F.interpolate(x, size, mode="bilinear", align_corners=False)
            if i < len(self.skip):
                assert features.stride4 is not None
                skipped = self.skip[i](features.stride4)
                x = x + F.interpolate(skipped, size, mode="bilinear", align_corners=False)
            maps.append(F.relu(self.smooth[i](x)))
        return maps


def _projection(given: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(given, out, 1, bias=False), nn.BatchNorm2d(out))


def pad_image(image: Tensor) -> Tensor:
    """Repeats the last row and column until both sides are multiples of 32.

    >>> pad_image(torch.zeros(1, 3, 200, 640)).shape
    torch.Size([1, 3, 224, 640])
    """
    for dim in (-2, -1):
        side = image.shape[dim]
        if side % SIZE_MULTIPLE:
            places = torch.arange(side + -side % SIZE_MULTIPLE, device=image.device)
            image = image.index_select(dim, places.clamp(max=side - 1))
    return image


def crop_maps(maps: Sequence[Tensor], strides: Sequence[int], image_size: tuple[int, int]) -> list[Tensor]:
    """Cuts maps of a padded image to the cells of the image (H, W): ceil(H / stride) rows, ceil(W / stride) columns.

    >>> crop_maps([torch.zeros(1, 8, 56, 160)], [4], (198, 638))[0].shape
    torch.Size([1, 8, 50, 160])
    """
    height, width = image_size
    return [m[..., : -(-height // s), : -(-width // s)] for m, s in zip(maps, strides, strict=True)]


def nest_maps(maps: Sequence[Tensor], nesting: Sequence[int] | None) -> list[Any]:
    """The maps as `HybridEncoderConfig.nesting` asks for: as they are, or each in a list that repeats it.

    >>> nest_maps(["a", "b"], (0, 2))
    ['a', ['b', 'b']]
    """
    if nesting is None:
        return list(maps)
    return [[found] * count if count else found for found, count in zip(maps, nesting, strict=True)]
