"""The ResNet encoder and the U-Net depth decoder of the Monodepth2 family: the baseline, and the stock decoder.

Written from the interface: tensor names and output shapes are those of the originals, so that each loads the
other's weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import SIZE_MULTIPLE, ResnetNormalization, check_image_size, check_scales
from ..errors import UserError
from .backbones import build_timm
from .channels import Channels
from .contract import DepthEncoder, EncoderFeatures
from .pixels import PixelCheck
from .precision import in_own_precision

RESNET_LAYERS = (18, 34, 50, 101, 152)

_REMEDY = "start from random numbers: weights='random', for a trainer --weights_init scratch"


class ResnetEncoder(DepthEncoder):
    """A ResNet as an encoder: five maps at strides 2, 4, 8, 16, 32.

    Args:
        num_layers: 18, 34, 50, 101 or 152.
        weights: "pretrained" (ImageNet), "random", or a file.
        num_input_images: images stacked along the channels, 2 for a pose network on pairs.
        normalization: how pixels are normalised, see `config.ResnetNormalization`.

    Attributes:
        num_layers, normalization: as given.
        num_ch_enc: channels of the maps.
        fused_channels: the same, as a tuple.
    """

    def __init__(
        self,
        num_layers: int = 18,
        weights: str = "pretrained",
        num_input_images: int = 1,
        normalization: ResnetNormalization = "monodepth2",
    ) -> None:
        super().__init__()
        if num_layers not in RESNET_LAYERS:
            raise UserError(f"num_layers={num_layers}: expected one of {', '.join(map(str, RESNET_LAYERS))}")
        self.num_layers = num_layers
        self.normalization: ResnetNormalization = normalization
        name = f"resnet{num_layers}" + ("" if weights == "random" else ".tv_in1k")
        # timm repeats the first kernel over further images and divides it by their number. The classifier stays: it is
        # part of the originals' checkpoints.
        self.encoder = build_timm(name, weights, "resnet", remedy=_REMEDY, in_chans=3 * num_input_images)
        expansion = 4 if num_layers > 34 else 1
        self.num_ch_enc = Channels([64, *(c * expansion for c in (64, 128, 256, 512))])
        self.fused_channels = tuple(self.num_ch_enc)
        self.encoder.get_submodule("fc").requires_grad_(False)
        self._check_pixels = PixelCheck()

    def forward_features(self, image: Tensor) -> EncoderFeatures:
        """(B, 3 n, H, W) in [0, 1] -> five maps at strides 2, 4, 8, 16, 32, as the fused levels.

        Raises:
            UserError: a side is no multiple of 32.
        """
        check_image_size(*image.shape[-2:])
        self._check_pixels(image)
        net = self.encoder
        # One mean and deviation for all channels.
        x = image if self.normalization == "none" else (image - 0.45).div_(0.225)
        maps = [net.act1(net.bn1(net.conv1(x)))]  # type: ignore[operator]
        maps.append(net.layer1(net.maxpool(maps[0])))  # type: ignore[operator]
        for layer in (net.layer2, net.layer3, net.layer4):
            maps.append(layer(maps[-1]))  # type: ignore[operator]
        return EncoderFeatures(maps, [], [], None, (image.shape[-2], image.shape[-1]))

    def drop_in_maps(self, features: EncoderFeatures) -> list[Tensor]:
        """The fused levels, which are the five maps."""
        return features.fused

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """One group without weight decay, as the family trains its ResNets."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [{"params": trained, "lr": lr}] if trained else []


class UNetDecoder(nn.Module):
    """Disparity from five maps of strides 2..32: at each step convolve, double (nearest), join the finer map, convolve.

    Args:
        num_ch_enc: channels of the five maps.
        scales: which disparities to return, of 0, 1, 2, 3; 0 is always among them.

    Raises:
        UserError: other than five maps, or scales that do not exist.
    """

    def __init__(self, num_ch_enc: Sequence[int], scales: Sequence[int] = (0, 1, 2, 3)) -> None:
        super().__init__()
        check_scales(scales)
        if len(num_ch_enc) != 5:
            raise UserError(f"the U-Net decoder reads five maps, num_ch_enc={list(num_ch_enc)} are {len(num_ch_enc)}")
        self.scales = tuple(sorted(set(scales)))
        self.given_channels = tuple(int(channels) for channels in num_ch_enc)
        widths = (16, 32, 64, 128, 256)
        blocks: list[nn.Module] = []
        given = int(num_ch_enc[-1])
        for i in range(4, -1, -1):
            skip = int(num_ch_enc[i - 1]) if i > 0 else 0
            blocks += [ConvElu(given, widths[i]), JoinElu(widths[i], skip)]
            given = widths[i]
        blocks += [ReflectConv(widths[s], 1) for s in self.scales]
        self.decoder = nn.ModuleList(blocks)

    def forward(self, maps: list[Tensor]) -> dict[tuple[str, int], Tensor]:
        """Five maps of (B, 3, H, W) -> {("disp", s): (B, 1, H / 2^s, W / 2^s)} in (0, 1).

        Raises:
            UserError: a side of 32 pixels: reflection padding needs two rows and columns of the coarsest map.
        """
        x = maps[-1]
        if min(x.shape[-2:]) < 2:
            rows, columns = (SIZE_MULTIPLE * side for side in x.shape[-2:])
            raise UserError(f"images of {rows} x {columns}: the U-Net decoder needs {2 * SIZE_MULTIPLE} pixels a side")
        disparities = {}
        for i in range(4, -1, -1):
            x = self.decoder[2 * (4 - i)](x)
            x = self.decoder[2 * (4 - i) + 1](x, maps[i - 1] if i > 0 else None)
            if i in self.scales:
                head = self.decoder[10 + self.scales.index(i)]
                disparities["disp", i] = in_own_precision(head, x).float().sigmoid()
        return disparities


class ReflectConv(nn.Module):
    """3x3 convolution on a reflection-padded map."""

    def __init__(self, given: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, out, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out, h, w)."""
        return _convolve(x, self.conv.weight, self.conv.bias)


class ConvElu(nn.Module):
    """3x3 convolution, reflection-padded, then ELU."""

    def __init__(self, given: int, out: int) -> None:
        super().__init__()
        self.conv = ReflectConv(given, out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out, h, w)."""
        return _elu(self.conv(x))


class JoinElu(nn.Module):
    """Doubles a map (nearest), joins the finer one of the encoder, convolves both (3x3, reflection-padded), then ELU.

    Neither the doubled map nor the joined one is made. A convolution is a sum over channels, so that each map is
    convolved apart; and a convolution of a doubled map is a transposed convolution of stride 2, which has four ninths
    of the products.

    Args:
        width: channels of the map and of the result.
        skip: channels of the finer map, 0 for none.
    """

    def __init__(self, width: int, skip: int) -> None:
        super().__init__()
        self.conv = ReflectConv(width + skip, width)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        """(B, width, h, w) and (B, skip, 2 h, 2 w) -> (B, width, 2 h, 2 w)."""
        conv = self.conv.conv
        if finer is None:
            return _elu(_convolve_doubled(x, conv.weight, conv.bias))
        ours, theirs = conv.weight.split([x.shape[1], finer.shape[1]], dim=1)
        return _elu(_convolve_doubled(x, ours, None).add_(_convolve(finer, theirs, conv.bias)))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3x3 convolution of a reflection-padded map: (B, C, h, w), (out, C, 3, 3) -> (B, out, h, w)."""
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, bias)


def _convolve_doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`_convolve` of a map doubled by nearest-neighbour: (B, C, h, w), (out, C, 3, 3) -> (B, out, 2 h, 2 w).

    Reflection padding of the doubled map repeats its border, as replication padding of the map does.
    """
    out, given = weight.shape[:2]
    # The rows of the 3x3 kernel whose sum is each row of the 4x4 one: 3; 2, 3; 1, 2; 1.
    taps = torch.ones(4, 3, dtype=weight.dtype, device=weight.device).tril().triu(-1).flip(1)
    spread = weight.transpose(0, 1).reshape(given * out, 9) @ torch.kron(taps, taps).T
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return F.conv_transpose2d(x, spread.view(given, out, 4, 4), bias, stride=2, padding=3)


def _elu(x: Tensor) -> Tensor:
    """ELU, of any shape; `x` may be overwritten."""
    if x.device.type != "cpu" or x.element_size() < 4:  # in half precision, exp(x) - 1 is rough near 0
        return F.elu(x, inplace=True)
    found: Tensor = _Elu.apply(x)
    return found


class _Elu(torch.autograd.Function):
    """max(x, exp(min(x, 0)) - 1): PyTorch's ELU takes five times as long on a CPU, where `expm1` is not vectorised."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        found = x.clamp(max=0).exp_().sub_(1)
        torch.maximum(found, x, out=found)
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (found,) = ctx.saved_tensors
        return torch.ops.aten.elu_backward(grad, 1.0, 1.0, 1.0, True, found)
