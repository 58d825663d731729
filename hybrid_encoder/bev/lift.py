"""Lift: predicts features and a distribution over depths for every pixel (arXiv 2008.05711, section 3.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..model.contract import DepthEncoder, EncoderFeatures
from ..model.precision import in_own_precision

_RESNET_LEVELS = 3
"""Number of a ResNet's last maps that are read: those of strides 8, 16 and 32."""


class Lift(nn.Module):
    """Sums an encoder's levels at one stride, and predicts depths and features from the sum.

    Args:
        encoder: its aligned levels are read, or the maps of strides 8, 16 and 32 of a ResNet.
        stride: of the predicted maps.
        bins: number of depths, D.
        channels: of the features, C; hidden layers have twice as many.
    """

    def __init__(self, encoder: DepthEncoder, stride: int, bins: int, channels: int) -> None:
        super().__init__()
        self.stride, self.bins = stride, bins
        given, width = encoder.aligned_channels or encoder.fused_channels[-_RESNET_LEVELS:], 2 * channels
        self.project = nn.ModuleList(nn.Conv2d(own, width, 1, bias=False) for own in given)
        self.join = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.out = nn.Conv2d(width, bins + channels, 1)

    def forward(self, seen: EncoderFeatures) -> tuple[Tensor, Tensor]:
        """Features (M, C, h, w), and probabilities of the depths (M, D, h, w), both float32.

        Args:
            seen: the encoder's features of images (M, 3, H, W); h is H / stride, w is W / stride.
        """
        size = seen.image_size[0] // self.stride, seen.image_size[1] // self.stride
        levels = zip(self.project, seen.aligned or seen.fused[-_RESNET_LEVELS:], strict=True)
        joined = sum(
            F.interpolate(project(level), size, mode="bilinear", align_corners=False) for project, level in levels
        )
        found = in_own_precision(self.out, self.join(joined))
        return found[:, self.bins :], found[:, : self.bins].softmax(dim=1)
