"""The nets of a BEV model, as its file of weights describes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import HybridEncoderConfig, check_image_size
from ..errors import UserError
from ..model.contract import DepthEncoder
from ..model.encoder import HybridEncoder
from ..model.resnet import RESNET_LAYERS, ResnetEncoder
from .grid import BevGrid
from .options import LIFT_STRIDES, check_classes


@dataclass(frozen=True)
class BevNets:
    """Image encoder, lift, grid and BEV decoder.

    Attributes:
        config: of a hybrid encoder, without drop-in maps; None: a ResNet.
        num_layers: of the ResNet, if the encoder is one.
        height, width: of the images, multiples of 32.
        stride: of the lifted map, 8 or 16.
        near, far, bins: nearest and farthest depth of a lifted pixel in metres, and number of depths.
        channels: of the lifted features.
        bev_channels: of the BEV decoder at half the grid's resolution.
        grid: the cells.
        classes: of the maps: "vehicle", "road" or both.

    Raises:
        UserError: no such nets can be built.
    """

    config: HybridEncoderConfig | None
    num_layers: int
    height: int
    width: int
    stride: int
    near: float
    far: float
    bins: int
    channels: int
    bev_channels: int
    grid: BevGrid
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_image_size(self.height, self.width)
        if self.num_layers not in RESNET_LAYERS or self.stride not in LIFT_STRIDES:
            raise UserError(f"no BEV nets with num_layers={self.num_layers!r} and stride={self.stride!r}")
        if not 0 < self.near < self.far or min(self.bins, self.channels, self.bev_channels) < 1:
            raise UserError(
                f"near={self.near}, far={self.far}, bins={self.bins}, channels={self.channels}, "
                f"bev_channels={self.bev_channels}: expected 0 < near < far, and 1 or more of the others"
            )
        check_classes(self.classes)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the images."""
        return self.height, self.width

    def build_encoder(self, weights: str = "random") -> DepthEncoder:
        """The image encoder; a hybrid one with the weights that its config names.

        Args:
            weights: of a ResNet: "pretrained" (ImageNet), "random", or a file.
        """
        if self.config is None:
            return ResnetEncoder(self.num_layers, weights)
        return HybridEncoder(self.config)

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold, for `from_dict`."""
        config = None if self.config is None else self.config.without_downloads().to_dict()
        return {**dataclasses.asdict(self), "config": config}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BevNets:
        """The nets that `to_dict` described.

        Raises:
            UserError: no such nets can be built.
            LookupError, TypeError: missing entries, or values of another type.
        """
        config = values["config"]
        hybrid = None if config is None else HybridEncoderConfig.from_dict(config).without_downloads()
        grid, classes = BevGrid(**values["grid"]), tuple(values["classes"])
        return cls(**{**values, "config": hybrid, "grid": grid, "classes": classes})
