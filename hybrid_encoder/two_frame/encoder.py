"""Encoders that match a frame against the frames before it: a ResNet, and the hybrid encoder with a cost volume inside.

maps, lowest_cost, confidence = encoder(current, Lookup(frames, poses, K, inv_K), bin_range)
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..config import MIN_DEPTH, HybridEncoderConfig, check_image_size
from ..model.contract import DepthEncoder, EncoderFeatures
from ..model.encoder import HybridEncoder
from ..model.nets import DepthNets
from ..model.resnet import ResnetEncoder
from ..stage2.networks import build_hybrid
from ..weights.reading import load_state
from .cost_volume import Binning, Lookup, depth_bins, inner_pixels, match

MATCHING_STRIDE = 4

BinRange = tuple[Tensor | float, Tensor | float]
"""Nearest and farthest depth bin."""


class Matched(NamedTuple):
    """What an encoder finds in a frame and its lookup frames.

    Attributes:
        features: what a decoder reads.
        lowest_cost: (B, H/4, W/4), 1 / depth of the bin of the lowest cost.
        confidence: (B, H/4, W/4), 1 where every bin was seen, else 0.
    """

    features: EncoderFeatures
    lowest_cost: Tensor
    confidence: Tensor


class MatchingEncoder(nn.Module, ABC):
    """Common to both encoders: bins, matching, and the convolution that joins the cost volume to the current map.

    Args:
        channels: of the maps that are matched.
        input_height, input_width: of the images.
        min_depth_bin, max_depth_bin: range of the bins until another is given.
        num_depth_bins: how many.
        adaptive_bins: take the range of the bins from the call.
        depth_binning: bins evenly spaced in depth ("linear") or in 1 / depth ("inverse").
        max_bytes: working memory of matching; None: what suits the device.

    Attributes:
        num_ch_enc, aligned_channels, config: what decoders read, as of a `DepthEncoder`.

    Raises:
        UserError: a side that is no multiple of 32.
    """

    depth_bins: Tensor
    pixels: Tensor
    num_ch_enc: np.ndarray
    aligned_channels: tuple[int, ...] = ()
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
        """`forward_features`, with five maps at strides 2, 4, 8, 16, 32 in place of the features; the cost volume is in
        the last three of them.

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
            lookup: images (B, F, 3, H, W), the frames before; intrinsics are those of images at a quarter of the size.
            bin_range: used if `adaptive_bins`; None: that of the last call or of loading.
        """

    @abstractmethod
    def drop_in_maps(self, features: EncoderFeatures) -> list[Tensor]:
        """Five maps at strides 2, 4, 8, 16, 32, from features computed before."""

    @abstractmethod
    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The trainable parameters that have groups of their own; the others go with the rest of the nets."""

    @abstractmethod
    def start_from(self, encoder: DepthEncoder) -> None:
        """Takes over a single-frame encoder's weights; until trained further, the cost volume has no effect.

        Raises:
            UserError: an encoder of another architecture.
        """

    @abstractmethod
    def original_state_dict(self) -> dict[str, Tensor]:
        """The state dict as it is written to encoder.pth."""

    @abstractmethod
    def load_original_state_dict(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Fills the encoder with the tensors of an encoder.pth.

        Raises:
            UserError: tensors missing, surplus or of another shape; `source` names the file.
        """

    @torch.no_grad()
    def compute_depth_bins(self, min_depth_bin: Tensor | float, max_depth_bin: Tensor | float) -> None:
        """Sets the range of the bins; called after loading, with the range that was saved."""
        self.depth_bins.copy_(depth_bins(min_depth_bin, max_depth_bin, self.num_depth_bins, self.depth_binning))

    @torch.no_grad()
    def ignore_costs(self) -> None:
        """Makes the joining convolution the identity on the current map, which is not negative.

        The layers after it then see what they know, and learn to use the costs from there.
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
        # Where some bin was out of sight the costs say little: the decoder is to rely on the image alone there.
        cost = found.cost * confidence[:, None]
        joined = self.reduce_conv(torch.cat([current, cost.to(current.dtype)], dim=1))
        return joined, 1 / self.depth_bins[found.best], confidence


class ResnetMatchingEncoder(MatchingEncoder):
    """A ResNet that matches after its first layer, under the original's tensor names.

    Args:
        num_layers: 18, 34, 50, 101 or 152.
        weights: "pretrained" (ImageNet), "random", or a file.
        input_height, input_width, settings: as `MatchingEncoder` takes them.

    Attributes:
        num_ch_enc: channels of the five maps.
    """

    def __init__(self, num_layers: int, weights: str, input_height: int, input_width: int, **settings: Any) -> None:
        resnet = ResnetEncoder(num_layers, weights)
        super().__init__(int(resnet.num_ch_enc[1]), input_height, input_width, **settings)
        self.num_layers = num_layers
        self.num_ch_enc: np.ndarray = resnet.num_ch_enc
        net: Any = resnet.encoder
        self.layer0 = nn.Sequential(net.conv1, net.bn1, nn.ReLU())
        self.layer1 = nn.Sequential(nn.MaxPool2d(3, 2, 1), net.layer1)
        self.layer2, self.layer3, self.layer4 = net.layer2, net.layer3, net.layer4
        # Computes nothing: a part of the original's checkpoints that its own code does not use either.
        self.prematching_conv = nn.Sequential(nn.Conv2d(64, 16, 1), nn.ReLU()).requires_grad_(False)

    def forward_features(self, current: Tensor, lookup: Lookup, bin_range: BinRange | None = None) -> Matched:
        """As `MatchingEncoder.forward_features`; the features are five maps, the second of them before matching."""
        maps = self._shallow(current)
        with torch.no_grad():
            seen = self._shallow(lookup.frames.flatten(0, 1))[1].unflatten(0, lookup.frames.shape[:2])
        joined, lowest_cost, confidence = self.join(maps[1], dataclasses.replace(lookup, frames=seen), bin_range)
        maps.append(self.layer2(joined))
        maps.append(self.layer3(maps[-1]))
        maps.append(self.layer4(maps[-1]))
        size = (current.shape[-2], current.shape[-1])
        return Matched(EncoderFeatures(maps, [], [], None, size), lowest_cost, confidence)

    def drop_in_maps(self, features: EncoderFeatures) -> list[Tensor]:
        """The fused levels, which are the five maps."""
        return features.fused

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """None: a ResNet trains as the rest of the nets does."""
        return []

    def _shallow(self, image: Tensor) -> list[Tensor]:
        first = self.layer0((image - 0.45) / 0.225)
        return [first, self.layer1(first)]

    def start_from(self, encoder: DepthEncoder) -> None:
        """As `MatchingEncoder.start_from`, from a ResNet of as many layers."""
        first = {"conv1": "layer0.0", "bn1": "layer0.1", "layer1": "layer1.1"}
        tensors = {k: v for k, v in self.state_dict().items() if k.startswith(("reduce_conv", "prematching_conv"))}
        for name, value in encoder.state_dict().items():
            name = name.removeprefix("encoder.")
            part, _, rest = name.partition(".")
            if part != "fc":
                tensors[f"{first.get(part, part)}.{rest}"] = value
        load_state(self, tensors, "the teacher's encoder")
        self.ignore_costs()

    def original_state_dict(self) -> dict[str, Tensor]:
        """The state dict with the original's fixed grids, which it keeps among its weights and loads strictly."""
        height, width = self.matching_height, self.matching_width
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grid = torch.stack([x, y]).to(self.pixels)
        ones = grid.new_ones(self.num_depth_bins, 1, height * width)
        homogeneous = torch.cat([grid.view(1, 2, -1).expand(self.num_depth_bins, -1, -1), ones], dim=1)
        return {
            **self.state_dict(),
            "backprojector.id_coords": grid,
            "backprojector.ones": ones,
            "backprojector.pix_coords": homogeneous,
        }

    def load_original_state_dict(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Fills the encoder from an original's encoder.pth of any image size; its fixed grids are left aside.

        Raises:
            UserError: tensors missing, surplus or of another shape; `source` names the file.
        """
        load_state(self, {k: v for k, v in tensors.items() if not k.startswith("backprojector.")}, source)


class HybridMatchingEncoder(MatchingEncoder):
    """The hybrid encoder with a cost volume between CLIP's layers 1 and 2 (METHOD, section 4).

    CLIP's stride-4 maps of all frames are matched, layers 2 to 4 run on the joined map; DINO sees the current frame
    alone; fusion and language are the single-frame encoder's own.

    Args:
        encoder: its image tower must be convolutional.
        input_height, input_width, settings: as `MatchingEncoder` takes them.

    Attributes:
        num_ch_enc: channels of the five maps of `forward`.

    Raises:
        UserError: an image tower without a stride-4 map.
    """

    def __init__(self, encoder: HybridEncoder, input_height: int, input_width: int, **settings: Any) -> None:
        channels = encoder.matching_tower.channels[0]
        super().__init__(channels, input_height, input_width, **settings)
        self.encoder = encoder
        self.num_ch_enc, self.aligned_channels = encoder.num_ch_enc, encoder.aligned_channels
        self.config = encoder.config
        self.ignore_costs()

    def forward_features(self, current: Tensor, lookup: Lookup, bin_range: BinRange | None = None) -> Matched:
        """As `MatchingEncoder.forward_features`; the features are the single-frame encoder's."""
        tower, text = self.encoder.matching_tower, self.encoder.text()
        shallow = tower.shallow(current)
        with torch.no_grad():
            seen = tower.shallow(lookup.frames.flatten(0, 1)).unflatten(0, lookup.frames.shape[:2])
        joined, lowest_cost, confidence = self.join(shallow, dataclasses.replace(lookup, frames=seen), bin_range)
        features = self.encoder.combine(current, [shallow, *tower.deep(joined)], text)
        return Matched(features, lowest_cost, confidence)

    def drop_in_maps(self, features: EncoderFeatures) -> list[Tensor]:
        """The single-frame encoder's pyramid; needs an encoder that was built with it."""
        return self.encoder.drop_in_maps(features)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Those of the hybrid encoder inside; the convolution that joins the cost volume goes with the rest."""
        return self.encoder.parameter_groups(lr)

    def start_from(self, encoder: DepthEncoder) -> None:
        """As `MatchingEncoder.start_from`, from a hybrid encoder of the same config."""
        load_state(self.encoder, encoder.state_dict(), "the teacher's encoder")
        self.ignore_costs()

    def original_state_dict(self) -> dict[str, Tensor]:
        """The state dict: the original has no such encoder."""
        return self.state_dict()

    def load_original_state_dict(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """As `MatchingEncoder.load_original_state_dict`."""
        load_state(self, tensors, source)


def build_matching_encoder(
    nets: DepthNets,
    size: tuple[int, int],
    resnet_weights: str = "random",
    stage1: Path | None = None,
    **settings: Any,
) -> MatchingEncoder:
    """The matching encoder of a two-frame net.

    Args:
        nets: what it is made of.
        size: height and width of the images.
        resnet_weights: "pretrained" (ImageNet), "random", or a file.
        stage1: what a hybrid encoder starts from.
        settings: as `MatchingEncoder` takes them.
    """
    if nets.config is None:
        return ResnetMatchingEncoder(nets.num_layers, resnet_weights, *size, **settings)
    return HybridMatchingEncoder(build_hybrid(nets.config, stage1), *size, **settings)
