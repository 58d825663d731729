"""Four aligned levels -> the maps that a host's own decoder takes (the drop-in contract): five at strides 2 to 32, or
as many as the host wants; padded images, cropped maps, maps in lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import SIZE_MULTIPLE

_LEVELS = {
    3: ((0, 1), (2,), (3,)),
    4: ((0,), (1,), (2,), (3,)),
    5: ((0,), (0,), (1,), (2,), (3,)),
}
"""By the number of maps, the aligned levels that each map is made from. Some map reads each level, so that all of the
encoder trains."""


class Pyramid(nn.Module):
    """Projects levels to a map's channels, resizes them (bilinear) to the map's stride and smooths them (3x3,
    depthwise).

    Args:
        channels: of the four aligned levels.
        num_ch_enc, strides: of the maps, as in `HybridEncoderConfig`.
    """

    def __init__(self, channels: Sequence[int], num_ch_enc: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.levels = _LEVELS[len(num_ch_enc)]
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(sum(channels[i] for i in read), out, 1, bias=False), nn.BatchNorm2d(out))
            for read, out in zip(self.levels, num_ch_enc, strict=True)
        )
        self.smooth = nn.ModuleList(nn.Conv2d(out, out, 3, padding=1, groups=out) for out in num_ch_enc)

    def forward(self, levels: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Four levels (B, C, h, w) -> maps (B, num_ch_enc[i], H / strides[i], W / strides[i]), not negative."""
        height, width = image_size
        maps = []
        for read, stride, project, smooth in zip(self.levels, self.strides, self.project, self.smooth, strict=True):
            x = levels[read[0]] if len(read) == 1 else torch.cat([levels[i] for i in read], dim=1)
            size = (height // stride, width // stride)
            x = F.interpolate(project(x), size, mode="bilinear", align_corners=False)
            maps.append(F.relu(smooth(x)))
        return maps


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
    """Maps of a padded image -> what belongs to the image (H, W): ceil(H / stride) rows, ceil(W / stride) columns.

    >>> crop_maps([torch.zeros(1, 8, 56, 160)], [4], (198, 638))[0].shape
    torch.Size([1, 8, 50, 160])
    """
    height, width = image_size
    return [m[..., : -(-height // s), : -(-width // s)] for m, s in zip(maps, strides, strict=True)]


def nest_maps(maps: Sequence[Tensor], nesting: Sequence[int] | None) -> list[Any]:
    """Maps as `HybridEncoderConfig.nesting` says: themselves, or in lists that repeat them.

    >>> nest_maps(["a", "b"], (0, 2))
    ['a', ['b', 'b']]
    """
    if nesting is None:
        return list(maps)
    return [[found] * count if count else found for found, count in zip(maps, nesting, strict=True)]
