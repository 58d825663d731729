"""Encoders that match a frame against its lookup frames: a ResNet, and the hybrid encoder with a cost volume inside.

maps, lowest_cost, confidence = encoder(current, Lookup(frames, poses, K, inv_K), bin_range)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..model.contract import DepthEncoder, EncoderFeatures
from ..model.encoder import HybridEncoder
from ..model.nets import DepthNets
from ..model.resnet import ResnetEncoder
from ..stage2.networks import Stage1Start, build_hybrid
from ..weights.reading import load_state
from .cost_volume import Lookup
from .matching import BinRange, Matched, MatchingEncoder


class ResnetMatchingEncoder(MatchingEncoder):
    """A ResNet that matches after its first layer, under the original's tensor names.

    Args:
        num_layers: 18, 34, 50, 101 or 152.
        weights: "pretrained" (ImageNet), "random", or a file.
        input_height, input_width, settings: as `MatchingEncoder` takes them.

    """

    def __init__(self, num_layers: int, weights: str, input_height: int, input_width: int, **settings: Any) -> None:
        resnet = ResnetEncoder(num_layers, weights)
        super().__init__(int(resnet.num_ch_enc[1]), input_height, input_width, **settings)
        self.num_ch_enc = resnet.num_ch_enc
        net: Any = resnet.encoder
        self.layer0 = nn.Sequential(net.conv1, net.bn1, nn.ReLU())
        self.layer1 = nn.Sequential(nn.MaxPool2d(3, 2, 1), net.layer1)
        self.layer2, self.layer3, self.layer4 = net.layer2, net.layer3, net.layer4
        # Never run: it is in the original's checkpoints, whose own code does not use it either.
        self.prematching_conv = nn.Sequential(nn.Conv2d(64, 16, 1), nn.ReLU()).requires_grad_(False)

    def forward_features(self, current: Tensor, lookup: Lookup, bin_range: BinRange | None = None) -> Matched:
        """As `MatchingEncoder.forward_features`; the features are five maps, the first two from before matching."""
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

    def _shallow(self, image: Tensor) -> list[Tensor]:
        first = self.layer0((image - 0.45) / 0.225)
        return [first, self.layer1(first)]

    def start_from(self, encoder: DepthEncoder) -> None:
        """As `MatchingEncoder.start_from`, from a ResNet with the same number of layers."""
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
        """The state dict with fixed grids: the original saves them with its weights and requires them when it loads."""
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
        """As `MatchingEncoder.load_original_state_dict`, for any image size: the fixed grids are ignored."""
        kept = {k: v for k, v in tensors.items() if not k.startswith("backprojector.")}
        super().load_original_state_dict(kept, source)


class HybridMatchingEncoder(MatchingEncoder):
    """The hybrid encoder with a cost volume between CLIP's layers 1 and 2 (docs/METHOD.md, section 4).

    CLIP's stride-4 maps of all frames are matched, and layers 2 to 4 run on the joined map. DINO sees the current frame
    only. Fusion and language are those of the single-frame encoder.

    Args:
        encoder: its image tower must be convolutional.
        input_height, input_width, settings: as `MatchingEncoder` takes them.

    Raises:
        UserError: an image tower without a stride-4 map.
    """

    def __init__(self, encoder: HybridEncoder, input_height: int, input_width: int, **settings: Any) -> None:
        channels = encoder.matching_tower.channels[0]
        super().__init__(channels, input_height, input_width, **settings)
        self.encoder = encoder
        self.num_ch_enc, self.aligned_channels = encoder.num_ch_enc, encoder.aligned_channels
        self.stride4_channels = encoder.stride4_channels
        self.config = encoder.config
        self.ignore_costs()

    def forward_features(self, current: Tensor, lookup: Lookup, bin_range: BinRange | None = None) -> Matched:
        """As `MatchingEncoder.forward_features`; the features have the form of the single-frame encoder's."""
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
        """The groups of the hybrid encoder inside, without the convolution that joins the cost volume."""
        return self.encoder.parameter_groups(lr)

    def start_from(self, encoder: DepthEncoder) -> None:
        """As `MatchingEncoder.start_from`, from a hybrid encoder of the same config."""
        load_state(self.encoder, encoder.state_dict(), "the teacher's encoder")
        self.ignore_costs()


def build_matching_encoder(
    nets: DepthNets,
    size: tuple[int, int],
    resnet_weights: str = "random",
    stage1: Stage1Start | None = None,
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
