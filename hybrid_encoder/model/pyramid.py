"""Four aligned levels -> five maps at strides 2, 4, 8, 16, 32: what a stock U-Net decoder takes (the drop-in
contract)."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

NUM_CH_ENC = np.array([64, 64, 128, 256, 512])
"""Channels of a ResNet-18's five maps, which decoders of the Monodepth2 family are built for."""

_SOURCE = (0, 0, 1, 2, 3)
"""The aligned level that each map is made from: the first two maps share the finest one."""


class Pyramid(nn.Module):
    """Projects each level to a map's channels, resizes it (bilinear) to the map's stride and smooths it (3x3,
    depthwise)."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels[source], int(out), 1, bias=False), nn.BatchNorm2d(int(out)))
            for source, out in zip(_SOURCE, NUM_CH_ENC, strict=True)
        )
        self.smooth = nn.ModuleList(nn.Conv2d(int(out), int(out), 3, padding=1, groups=int(out)) for out in NUM_CH_ENC)

    def forward(self, levels: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Four levels (B, C, h, w) -> [(B, 64, H/2, W/2), (B, 64, H/4, W/4), ..., (B, 512, H/32, W/32)], not
        negative."""
        height, width = image_size
        maps = []
        for i, (project, smooth) in enumerate(zip(self.project, self.smooth, strict=True)):
            stride = 2 ** (i + 1)
            x = project(levels[_SOURCE[i]])
            x = F.interpolate(x, (height // stride, width // stride), mode="bilinear", align_corners=False)
            maps.append(F.relu(smooth(x)))
        return maps
