"""The BEV decoder, a small U-Net of ResNet blocks: features of the cells -> a map of logits for each class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, downsample_conv
from torch import Tensor, nn

from ..model.precision import in_own_precision


class BevDecoder(nn.Module):
    """Downsamples to an eighth of the grid and upsamples again, with skip connections.

    Args:
        given: channels of the cells' features.
        width: channels at half the grid's resolution; twice as many at a quarter, four times as many at an eighth.
        classes: number of maps.
    """

    def __init__(self, given: int, width: int, classes: int) -> None:
        super().__init__()
        self.enter = _convolved(given, width, kernel=5, stride=2)
        self.down = nn.ModuleList(
            [_block(width, width, 1), _block(width, 2 * width, 2), _block(2 * width, 4 * width, 2)]
        )
        self.up = nn.ModuleList([_convolved(6 * width, 2 * width), _convolved(3 * width, width)])
        self.finest = _convolved(width + given, width)
        self.out = nn.Conv2d(width, classes, 1)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, given, X, Y) -> logits (B, classes, X, Y), float32."""
        seen = [self.enter(cells)]
        for block in self.down:
            seen.append(block(seen[-1]))
        x = seen[3]
        for join, finer in zip((*self.up, self.finest), (seen[2], seen[1], cells), strict=True):
            x = F.interpolate(x, finer.shape[-2:], mode="bilinear", align_corners=False)
            x = join(torch.cat([x, finer], dim=1))
        return in_own_precision(self.out, x)


def _convolved(given: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    convolution = nn.Conv2d(given, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU())


def _block(given: int, out: int, stride: int) -> nn.Module:
    """Two ResNet blocks; the first changes resolution and channels."""
    changes = downsample_conv(given, out, kernel_size=1, stride=stride) if (given, stride) != (out, 1) else None
    return nn.Sequential(BasicBlock(given, out, stride, changes), BasicBlock(out, out))
