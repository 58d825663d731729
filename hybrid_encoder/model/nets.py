"""Which nets a depth model is made of: one description for options, config.json, encoder.pth and clones.

nets = DepthNets(config=preset("tiny"), decoder="dpt", scales=(0,))
encoder, decoder = nets.build()
again = DepthNets.from_dict(nets.to_dict())
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from torch import nn

from ..config import MAX_DEPTH, MIN_DEPTH, HybridEncoderConfig, Resize, check_scales
from ..errors import UserError
from .contract import Decodable, DepthEncoder
from .decoder import DPTDecoder, Head
from .encoder import HybridEncoder
from .resnet import RESNET_LAYERS, ResnetEncoder, UNetDecoder

DecoderKind = Literal["dpt", "unet"]


@dataclass(frozen=True)
class DepthNets:
    """Encoder and decoder of a depth model; the defaults are the originals' nets.

    Attributes:
        config: of the hybrid encoder; None: a ResNet.
        num_layers: of the ResNet, where the encoder is one.
        decoder: "dpt" or "unet".
        scales: of its disparities.
        head: end of a DPT decoder; "sigmoid" for a U-Net.
        min_depth, max_depth: limits of depth, in the model's unit.
        resize: how the training images were resized; `==` ignores it.

    Raises:
        UserError: no such nets can be built.
    """

    config: HybridEncoderConfig | None = None
    num_layers: int = 18
    decoder: DecoderKind = "unet"
    scales: tuple[int, ...] = (0, 1, 2, 3)
    head: Head = "sigmoid"
    min_depth: float = MIN_DEPTH
    max_depth: float = MAX_DEPTH
    resize: Resize = field(default="area", compare=False)

    def __post_init__(self) -> None:
        if self.num_layers not in RESNET_LAYERS:
            raise UserError(f"num_layers={self.num_layers!r}: expected one of {', '.join(map(str, RESNET_LAYERS))}")
        if self.decoder not in get_args(DecoderKind) or self.head not in get_args(Head):
            raise UserError(f"no decoder {self.decoder!r} with the head {self.head!r}")
        if self.resize not in get_args(Resize):
            raise UserError(f"resize={self.resize!r}: expected one of {', '.join(get_args(Resize))}")
        if not isinstance(self.scales, list | tuple) or not all(type(scale) is int for scale in self.scales):
            raise UserError(f"scales={self.scales!r}: expected whole numbers")
        check_scales(self.scales)
        object.__setattr__(self, "scales", tuple(self.scales))
        if not 0 < self.min_depth < self.max_depth < math.inf:
            raise UserError(
                f"min_depth={self.min_depth}, max_depth={self.max_depth}: expected 0 < min_depth < max_depth"
            )
        if self.decoder == "unet" and self.config is not None and len(self.config.num_ch_enc) != 5:
            raise UserError(f"the U-Net decoder reads five maps, and num_ch_enc={self.config.num_ch_enc} are others")
        if self.decoder == "dpt" and self.config is None:
            raise UserError("a DPT decoder reads a hybrid encoder, and none is described")

    @classmethod
    def of(
        cls, encoder: DepthEncoder, decoder: nn.Module, min_depth: float, max_depth: float, resize: Resize = "area"
    ) -> DepthNets:
        """The description of nets that are built already.

        Args:
            encoder: a `HybridEncoder` or a `ResnetEncoder`.
            decoder: a `DPTDecoder`, or a U-Net decoder, which may be an original's.

        Raises:
            UserError: an encoder of another class.
        """
        if isinstance(encoder, HybridEncoder):
            config, num_layers = encoder.config, cls.num_layers
        elif isinstance(encoder, ResnetEncoder):
            config, num_layers = None, encoder.num_layers
        else:
            raise UserError(f"a {type(encoder).__name__} cannot be described: expected a hybrid encoder or a ResNet")
        dpt = decoder if isinstance(decoder, DPTDecoder) else None
        return cls(
            config=config,
            num_layers=num_layers,
            decoder="unet" if dpt is None else "dpt",
            scales=tuple(cast(Any, decoder).scales),
            head="sigmoid" if dpt is None else dpt.head,
            min_depth=min_depth,
            max_depth=max_depth,
            resize=resize,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON; `from_dict` takes them back. Towers' weights are left out: they are in the file
        of tensors."""
        encoder: dict[str, Any] = {"kind": "resnet", "num_layers": self.num_layers}
        if self.config is not None:
            encoder = {"kind": "hybrid", "config": self.config.without_downloads().to_dict()}
        return {
            "encoder": encoder,
            "decoder": {"kind": self.decoder, "scales": list(self.scales), "head": self.head},
            "min_depth": self.min_depth,
            "max_depth": self.max_depth,
            "resize": self.resize,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DepthNets:
        """The nets that `to_dict` described; other entries are ignored.

        Raises:
            UserError: no such nets can be built.
            LookupError, TypeError, ValueError: entries that are missing or of another kind.
        """
        encoder, decoder = values["encoder"], values["decoder"]
        hybrid = encoder["kind"] == "hybrid"
        return cls(
            config=HybridEncoderConfig.from_dict(encoder["config"]).without_downloads() if hybrid else None,
            num_layers=cls.num_layers if hybrid else int(encoder["num_layers"]),
            decoder=decoder["kind"],
            scales=decoder["scales"],
            head=decoder["head"],
            min_depth=float(values["min_depth"]),
            max_depth=float(values["max_depth"]),
            resize=values.get("resize", "area"),  # older files lack it
        )

    def build(self, resnet_weights: str = "random") -> tuple[DepthEncoder, nn.Module]:
        """Encoder and decoder, with the weights that the config names; the decoder starts from random numbers.

        Args:
            resnet_weights: "pretrained" (ImageNet), "random", or a file.
        """
        encoder = self.build_encoder(resnet_weights)
        return encoder, self.build_decoder(encoder)

    def build_encoder(self, resnet_weights: str = "random") -> DepthEncoder:
        """The encoder alone."""
        if self.config is not None:
            return HybridEncoder(self.config)
        return ResnetEncoder(self.num_layers, resnet_weights)

    def build_decoder(self, encoder: Decodable) -> nn.Module:
        """The decoder for an encoder of this description, of one frame or of two."""
        if self.decoder == "dpt":
            return DPTDecoder(encoder, self.scales, self.head)
        return UNetDecoder(encoder.num_ch_enc, self.scales)
