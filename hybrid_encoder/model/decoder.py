"""The DPT depth decoder: four aligned levels -> disparity maps (docs/METHOD.md, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import check_scales
from ..errors import UserError
from .contract import Decodable, EncoderFeatures
from .precision import in_own_precision, without_autocast

Head = Literal["sigmoid", "relu"]


class DPTDecoder(nn.Module):
    """Reassembles the levels at 4x, 2x, 1x, 1/2 of their grid, fuses them coarse to fine and predicts disparity.

    The finest fused map has 8x the grid; the head of scale 0 refines it at 16x the grid (at the image's size, where
    DINO's patches are small), then resizes it to the image. Scale s reads the map that is s steps coarser; its
    disparity has H / 2^s x W / 2^s pixels.

    Two fields of the encoder's config change the decoder. With `stride4_skip`, the image tower's stride-4 map is added
    to the finest level. `decoder_style="smooth"` is for nets that train for a short time, whose depth would show
    artefacts:

    - the border's values in place of zeros beyond the border, which leave a frame;
    - bilinear resizing in place of transposed convolutions, whose kernels leave a grid;
    - corners that are not aligned, so that depth moves with the image;
    - a leaky ReLU in the head: all units of a small head with a plain one can die, and depth is constant from then on.

    Args:
        encoder: the encoder whose `forward_features` is decoded (its channels and decoder width are read).
        scales: which disparities to return, of 0, 1, 2, 3; 0 is always among them.
        head: "sigmoid" keeps disparity in (0, 1); "relu" is the released head, not negative and unbounded.

    Raises:
        UserError: an encoder without levels, or scales or a head that do not exist.
    """

    def __init__(self, encoder: Decodable, scales: Sequence[int] = (0,), head: Head = "sigmoid") -> None:
        super().__init__()
        if head not in ("sigmoid", "relu"):
            raise UserError(f"head={head!r}: expected 'sigmoid' or 'relu'")
        check_scales(scales)
        if encoder.config is None:
            raise UserError(f"the DPT decoder reads the levels of a HybridEncoder, this is a {type(encoder).__name__}")
        width, smooth = encoder.config.decoder_channels, encoder.config.decoder_style == "smooth"
        projected = (width, 2 * width, 4 * width, 4 * width)
        self.scales = tuple(sorted(set(scales)))
        self.head: Head = head
        self.given_channels = tuple(encoder.aligned_channels)
        self.project = nn.ModuleList(
            nn.Conv2d(given, out, 1) for given, out in zip(encoder.aligned_channels, projected, strict=True)
        )
        self.align_corners = not smooth
        self.resize = nn.ModuleList(
            nn.Upsample(scale_factor=factor, mode="bilinear")
            if smooth
            else nn.ConvTranspose2d(out, out, factor, stride=factor)
            for factor, out in zip((4, 2), projected, strict=False)
        )
        self.resize += [nn.Identity(), nn.Conv2d(projected[3], projected[3], 3, stride=2, padding=1)]
        self.narrow = nn.ModuleList(nn.Conv2d(out, width, 3, padding=1, bias=False) for out in projected)
        self.skip = nn.Conv2d(encoder.stride4_channels, width, 3, padding=1) if encoder.stride4_channels else None
        self.fuse = nn.ModuleList(FusionBlock(width, i < 3, self.align_corners) for i in range(4))
        # The sigmoid starts at 0.12, so that depth can become eight times nearer before it saturates.
        bias = -2.0 if head == "sigmoid" else 0.0
        self.heads = nn.ModuleDict({str(s): DisparityHead(width, bias, smooth) for s in self.scales})
        if smooth:
            for convolution in self.modules():
                if isinstance(convolution, nn.Conv2d):
                    convolution.padding_mode = "replicate"

    def forward(self, features: EncoderFeatures) -> dict[tuple[str, int], Tensor]:
        """Features of (B, 3, H, W) -> {("disp", s): (B, 1, H / 2^s, W / 2^s)}, float32.

        Maps lie in memory as the weights do: on CPUs, the gradient of wide 3x3 weights over channels-last maps takes
        several times as long as over contiguous ones.
        """
        layout = torch.contiguous_format if next(self.narrow.parameters()).is_contiguous() else torch.channels_last
        levels = [
            narrow(resize(project(level.contiguous(memory_format=layout))))
            for level, project, resize, narrow in zip(
                features.aligned, self.project, self.resize, self.narrow, strict=True
            )
        ]
        if self.skip is not None:
            assert features.stride4 is not None
            size = levels[0].shape[-2:]
            levels[0] = levels[0] + _bilinear(self.skip(features.stride4), size, self.align_corners)
        height, width = features.image_size
        rows, columns = features.aligned[0].shape[-2:]
        disparities: dict[tuple[str, int], Tensor] = {}
        path: Tensor | None = None
        for i in range(3, -1, -1):
            size = levels[i - 1].shape[-2:] if i > 0 else (8 * rows, 8 * columns)
            path = self.fuse[i](levels[i], path, size)
            if i in self.scales:
                refined = (16 * rows // 2**i, 16 * columns // 2**i)
                if 16 * rows > 1.5 * height:  # patches under 11 pixels: the fused map is nearly as fine as the image
                    refined = (height // 2**i, width // 2**i)
                raw = self.heads[str(i)](path, refined)
                with without_autocast(raw.device):
                    bounded = raw.float().sigmoid() if self.head == "sigmoid" else F.relu(raw.float())
                    disparities["disp", i] = _bilinear(bounded, (height // 2**i, width // 2**i), self.align_corners)
        return disparities


class FusionBlock(nn.Module):
    """RefineNet fusion: joins a level with the coarser path, refines, upsamples (bilinear)."""

    def __init__(self, width: int, joins: bool, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.join = ResidualUnit(width) if joins else None
        self.refine = ResidualUnit(width)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, level: Tensor, coarser: Tensor | None, size: tuple[int, int]) -> Tensor:
        """(B, C, h, w) level and path of the same size -> (B, C, *size)."""
        if self.join is not None and coarser is not None:
            level = coarser + self.join(level)
        # A 1x1 convolution and bilinear resizing commute: convolving first costs a quarter.
        return _bilinear(self.out(self.refine(level)), size, self.align_corners)


class ResidualUnit(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3x3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> same."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class DisparityHead(nn.Module):
    """3x3 to C/2, upsample, 3x3 to C/8, ReLU, 1x1 to 1: 128 and 32 channels at the paper's width.

    Args:
        width: C.
        bias: of the last convolution, before training.
        smooth: as `DPTDecoder` describes it.
    """

    def __init__(self, width: int, bias: float, smooth: bool) -> None:
        super().__init__()
        self.align_corners = not smooth
        self.activation = nn.LeakyReLU(0.1) if smooth else nn.ReLU()
        half, eighth = max(width // 2, 8), max(width // 8, 8)
        self.conv1 = nn.Conv2d(width, half, 3, padding=1)
        self.conv2 = nn.Conv2d(half, eighth, 3, padding=1)
        self.conv3 = nn.Conv2d(eighth, 1, 1)
        nn.init.constant_(self.conv3.bias, bias)  # type: ignore[arg-type]

    def forward(self, path: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, C, h, w) -> (B, 1, *size), unbounded."""
        x = self.activation(self.conv2(_bilinear(self.conv1(path), size, self.align_corners)))
        return in_own_precision(self.conv3, x)


def _bilinear(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
