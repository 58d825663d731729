"""The base of both matching encoders: depth bins, matching, and joining the cost volume to the current map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..config import MIN_DEPTH, HybridEncoderConfig, check_image_size
from ..model.channels import Channels
from ..model.contract import DepthEncoder, EncoderFeatures
from ..weights.reading import load_state
from .cost_volume import Binning, Lookup, depth_bins, inner_pixels, match

MATCHING_STRIDE = 4

BinRange = tuple[Tensor | float, Tensor | float]
"""Nearest and farthest depth bin."""


class Matched(NamedTuple):
    """The output of a matching encoder for a frame and its lookup frames.

    Attributes:
        features: the features for a decoder.
        lowest_cost: (B, H/4, W/4), 1 / depth of the bin with the lowest cost.
        confidence: (B, H/4, W/4), 1 where the points of all bins are seen, else 0.
    """

    features: EncoderFeatures
    lowest_cost: Tensor
    confidence: Tensor


class MatchingEncoder(nn.Module, ABC):
    """The base of both encoders: bins, matching, and the convolution that joins the cost volume to the current map.

    Args:
        channels: of the maps that are matched.
        input_height, input_width: of the images.
        min_depth_bin, max_depth_bin: range of the bins until another is given.
        num_depth_bins: number of bins.
        adaptive_bins: take the range of the bins from the call.
        depth_binning: bins evenly spaced in depth ("linear") or in 1 / depth ("inverse").
        max_bytes: working memory of matching in bytes; None: what suits the device.

    Attributes:
        num_ch_enc, aligned_channels, stride4_channels, config: what decoders read, as of a `DepthEncoder`.

    Raises:
        UserError: a side that is no multiple of 32.
    """

    depth_bins: Tensor
    pixels: Tensor
    num_ch_enc: Channels
    aligned_channels: tuple[int, ...] = ()
    stride4_channels: int = 0
    config: HybridEncoderConfig | None = None

    def __init__(
        self,
        channels: int,
        input_height: int,
        input_width: int,
        min_depth_bin: float = MIN_DEPTH,
        max_depth_bin: float = 20.0,
        num_depth_bins: int = 96,
        adaptive_bins: bool = False,
        depth_binning: Binning = "linear",
        max_bytes: int | None = None,
    ) -> None:
        super().__init__()
        check_image_size(input_height, input_width)
        self.input_height, self.input_width = input_height, input_width
        self.matching_height, self.matching_width = input_height // MATCHING_STRIDE, input_width // MATCHING_STRIDE
        self.num_depth_bins, self.adaptive_bins, self.depth_binning = num_depth_bins, adaptive_bins, depth_binning
        self.max_bytes = max_bytes
        self.register_buffer("pixels", inner_pixels(self.matching_height, self.matching_width), persistent=False)
        self.register_buffer("depth_bins", torch.empty(num_depth_bins), persistent=False)
        self.compute_depth_bins(min_depth_bin, max_depth_bin)
        self.reduce_conv = nn.Sequential(nn.Conv2d(channels + num_depth_bins, channels, 3, padding=1), nn.ReLU())

    def forward(
        self, current: Tensor, lookup: Lookup, bin_range: BinRange | None = None
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """`forward_features`, with five maps at strides 2, 4, 8, 16, 32 in place of the features; the last three depend
        on the cost volume.

        Raises:
            UserError: a hybrid encoder that was built without these maps.
        """
        features, lowest_cost, confidence = self.forward_features(current, lookup, bin_range)
        return self.drop_in_maps(features), lowest_cost, confidence

    @abstractmethod
    def forward_features(self, current: Tensor, lookup: Lookup, bin_range: BinRange | None = None) -> Matched:
        """Matches a batch of frames against their lookup frames.

        Args:
            current: (B, 3, H, W), RGB in [0, 1].
            lookup: images (B, F, 3, H, W), their poses, and the intrinsics of images of a quarter of the size.
            bin_range: used if `adaptive_bins`; None: the range of the last call or of loading.
        """

    @abstractmethod
    def drop_in_maps(self, features: EncoderFeatures) -> list[Tensor]:
        """Five maps at strides 2, 4, 8, 16, 32, from features that were computed before."""

    @abstractmethod
    def start_from(self, encoder: DepthEncoder) -> None:
        """Copies a single-frame encoder's weights; the cost volume has no effect until training continues.

        Raises:
            UserError: an encoder of another architecture.
        """

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups of parameters with settings of their own for an optimiser; by default there are none."""
        return []

    def original_state_dict(self) -> dict[str, Tensor]:
        """The state dict as it is written to encoder.pth."""
        return self.state_dict()

    def load_original_state_dict(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Fills the encoder with the tensors of an encoder.pth.

        Raises:
            UserError: tensors missing, surplus or of another shape; `source` names the file.
        """
        load_state(self, tensors, source)

    @torch.no_grad()
    def compute_depth_bins(self, min_depth_bin: Tensor | float, max_depth_bin: Tensor | float) -> None:
        """Sets the range of the bins; call it after loading, with the saved range."""
        self.depth_bins.copy_(depth_bins(min_depth_bin, max_depth_bin, self.num_depth_bins, self.depth_binning))

    @torch.no_grad()
    def ignore_costs(self) -> None:
        """Makes the joining convolution the identity on the current map, which is not negative.

        The layers after it then see the map that they were trained on; training adds the costs from there.
        """
        convolution = self.reduce_conv[0]
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        convolution.weight.zero_()
        nn.init.dirac_(convolution.weight[:, : convolution.out_channels])
        convolution.bias.zero_()

    def join(self, current: Tensor, lookup: Lookup, bin_range: BinRange | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Matches features and joins the cost volume to the current ones.

        Args:
            current: (B, C, H/4, W/4).
            lookup: features (B, F, C, H/4, W/4), without gradient.
            bin_range: used if `adaptive_bins`.

        Returns:
            (B, C, H/4, W/4); 1 / depth of the lowest cost (B, H/4, W/4); confidence (B, H/4, W/4), 0 or 1.
        """
        if self.adaptive_bins and bin_range is not None:
            self.compute_depth_bins(*bin_range)
        with torch.autocast(current.device.type, enabled=False):
            found = match(current, lookup, self.depth_bins, self.pixels, self.max_bytes)
        confidence = found.confidence.to(found.cost.dtype)
        # Costs say little where some bins are not seen: the decoder should rely on the image alone there.
        cost = found.cost * confidence[:, None]
        joined = self.reduce_conv(torch.cat([current, cost.to(current.dtype)], dim=1))
        return joined, 1 / self.depth_bins[found.best], confidence
