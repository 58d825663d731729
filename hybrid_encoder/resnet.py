"""The ResNet encoder and the U-Net depth decoder of the Monodepth2 family: the baseline, and the stock decoder.

Written from the interface (UPSTREAM): tensor names and output shapes are those of the originals, so that weights pass
both ways.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import build_timm
from .config import check_image_size
from .decoder import check_scales
from .errors import UserError

RESNET_LAYERS = (18, 34, 50, 101, 152)


class ResnetEncoder(nn.Module):
    """A ResNet as an encoder: five maps at strides 2, 4, 8, 16, 32.

    Args:
        num_layers: 18, 34, 50, 101 or 152.
        weights: "pretrained" (ImageNet), "random", or a file.
        num_input_images: images stacked along the channels, 2 for a pose network on pairs.

    Attributes:
        num_layers: as given.
        num_ch_enc: channels of the maps.
    """

    def __init__(self, num_layers: int = 18, weights: str = "pretrained", num_input_images: int = 1) -> None:
        super().__init__()
        if num_layers not in RESNET_LAYERS:
            raise UserError(f"num_layers={num_layers}: expected one of {', '.join(map(str, RESNET_LAYERS))}")
        self.num_layers = num_layers
        name = f"resnet{num_layers}" + ("" if weights == "random" else ".tv_in1k")
        # timm repeats the first kernel over further images and divides it by their number. The classifier stays: it is
        # part of the originals' checkpoints.
        self.encoder = build_timm(name, weights, "resnet", in_chans=3 * num_input_images)
        expansion = 4 if num_layers > 34 else 1
        self.num_ch_enc = np.array([64, *(c * expansion for c in (64, 128, 256, 512))])
        self.encoder.get_submodule("fc").requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3 n, H, W) in [0, 1] -> five maps at strides 2, 4, 8, 16, 32.

        Raises:
            UserError: a side is no multiple of 32.
        """
        check_image_size(*image.shape[-2:])
        net = self.encoder
        x = (
            image - 0.45
        ) / 0.225  # one mean and deviation for all channels: what the family's published weights expect
        maps = [net.act1(net.bn1(net.conv1(x)))]  # type: ignore[operator]
        maps.append(net.layer1(net.maxpool(maps[0])))  # type: ignore[operator]
        for layer in (net.layer2, net.layer3, net.layer4):
            maps.append(layer(maps[-1]))  # type: ignore[operator]
        return maps


class UNetDecoder(nn.Module):
    """Disparity from five maps of strides 2..32: at each step convolve, double (nearest), join the finer map, convolve.

    Args:
        num_ch_enc: channels of the five maps.
        scales: which disparities to return, of 0, 1, 2, 3; 0 is always among them.
    """

    def __init__(self, num_ch_enc: Sequence[int] | np.ndarray, scales: Sequence[int] = (0, 1, 2, 3)) -> None:
        super().__init__()
        check_scales(scales)
        self.scales = tuple(sorted(set(scales)))
        widths = (16, 32, 64, 128, 256)
        blocks: list[nn.Module] = []
        given = int(num_ch_enc[-1])
        for i in range(4, -1, -1):
            skip = int(num_ch_enc[i - 1]) if i > 0 else 0
            blocks += [ConvElu(given, widths[i]), ConvElu(widths[i] + skip, widths[i])]
            given = widths[i]
        blocks += [ReflectConv(widths[s], 1) for s in self.scales]
        self.decoder = nn.ModuleList(blocks)

    def forward(self, maps: list[Tensor]) -> dict[tuple[str, int], Tensor]:
        """Five maps of (B, 3, H, W) -> {("disp", s): (B, 1, H / 2^s, W / 2^s)} in (0, 1)."""
        x = maps[-1]
        disparities = {}
        for i in range(4, -1, -1):
            x = F.interpolate(self.decoder[2 * (4 - i)](x), scale_factor=2.0, mode="nearest")
            if i > 0:
                x = torch.cat([x, maps[i - 1]], dim=1)
            x = self.decoder[2 * (4 - i) + 1](x)
            if i in self.scales:
                disparities["disp", i] = self.decoder[10 + self.scales.index(i)](x).float().sigmoid()
        return disparities


class ReflectConv(nn.Module):
    """3x3 convolution on a reflection-padded map."""

    def __init__(self, given: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, out, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out, h, w)."""
        return self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))


class ConvElu(nn.Module):
    """3x3 convolution, reflection-padded, then ELU."""

    def __init__(self, given: int, out: int) -> None:
        super().__init__()
        self.conv = ReflectConv(given, out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out, h, w)."""
        return F.elu(self.conv(x), inplace=True)
