"""The encoder contract: what decoders, pose heads, losses and trainers ask of a depth encoder, ResNet or hybrid.

A new encoder is one subclass of `DepthEncoder`. This part of the contract is a base class because every encoder is an
`nn.Module`. What decoders read is a `Protocol` because encoders of two frames offer it, too, and are no `DepthEncoder`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from ..config import HybridEncoderConfig
from ..errors import UserError
from .channels import Channels
from .trainable import Trainable

if TYPE_CHECKING:
    from timm.models import FeatureInfo


@dataclass
class EncoderFeatures:
    """What an encoder makes of images (B, 3, H, W); h x w is DINO's grid, about H/14 x W/14.

    Attributes:
        fused: the hybrid encoder's four levels (B, C, h, w), before language; a ResNet's five maps, coarsest last.
        aligned: four levels (B, C', h, w) for the DPT decoder: [logits, fused], logits or fused, as the config's
            `alignment` says; empty for a ResNet.
        logits: four levels (B, K, h, w), 100 x cosine with the K text features; empty without alignment.
        class_token: (B, C_dino), None without DINO.
        image_size: (H, W).
        stride4: the image tower's map (B, C1, H/4, W/4), where the config has `stride4_skip` and the tower has such a
            map; else None.
    """

    fused: list[Tensor]
    aligned: list[Tensor]
    logits: list[Tensor]
    class_token: Tensor | None
    image_size: tuple[int, int]
    stride4: Tensor | None = None

    def chunk(self, parts: int) -> list[EncoderFeatures]:
        """Splits the features of one batch (parts * B, 3, H, W) into those of `parts` batches of B images."""

        def part(levels: list[Tensor], index: int) -> list[Tensor]:
            return [level.chunk(parts)[index] for level in levels]

        nothing = [None] * parts
        tokens = nothing if self.class_token is None else self.class_token.chunk(parts)
        finest = nothing if self.stride4 is None else self.stride4.chunk(parts)
        return [
            EncoderFeatures(
                part(self.fused, i), part(self.aligned, i), part(self.logits, i), token, self.image_size, stride4
            )
            for i, (token, stride4) in enumerate(zip(tokens, finest, strict=True))
        ]


class Decodable(Protocol):
    """What a decoder reads of an encoder, of single frames or of two frames.

    Attributes:
        num_ch_enc: channels of the drop-in maps, which U-Net decoders take.
        aligned_channels: channels of the four aligned levels, which the DPT decoder takes; empty: there are none.
        stride4_channels: channels of the features' stride-4 map; 0: there is none.
        config: of a hybrid encoder; else None.
    """

    num_ch_enc: Channels
    aligned_channels: tuple[int, ...]
    stride4_channels: int

    @property
    def config(self) -> HybridEncoderConfig | None: ...

    def drop_in_maps(self, features: EncoderFeatures) -> list[Tensor]:
        """The drop-in maps, from features that were computed before."""
        ...


class DepthEncoder(Trainable, ABC):
    """A depth encoder: images in; feature levels, or drop-in maps, out.

    Called on `image: (B, 3, H, W)`, RGB in [0, 1], H and W multiples of 32, it returns five maps at strides 2, 4, 8,
    16, 32 with `num_ch_enc` channels; a hybrid encoder returns the maps that its config describes.

    Attributes:
        config: of a hybrid encoder; else None.
        num_ch_enc, strides: channels and strides of the drop-in maps.
        fused_channels, aligned_channels: channels of the features' levels; `aligned_channels` is empty where the DPT
            decoder cannot read the encoder.
        stride4_channels: channels of the features' stride-4 map; 0: there is none.
        class_width: length of the class token, 0 without one.
    """

    config: HybridEncoderConfig | None = None
    num_ch_enc: Channels
    strides: tuple[int, ...] = (2, 4, 8, 16, 32)
    fused_channels: tuple[int, ...]
    aligned_channels: tuple[int, ...] = ()
    stride4_channels: int = 0
    class_width: int = 0

    @property
    def has_drop_in_maps(self) -> bool:
        """Whether the encoder was built with its drop-in maps, which the DPT decoder does not read."""
        return self.config is None or self.config.pyramid

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> the drop-in maps.

        Raises:
            UserError: a side is no multiple of 32, or the encoder was built without these maps.
        """
        return self.drop_in_maps(self.forward_features(image))

    @abstractmethod
    def forward_features(self, image: Tensor) -> EncoderFeatures:
        """(B, 3, H, W) in [0, 1] -> what decoders, pose heads and losses read.

        Raises:
            UserError: no batch of RGB images, or a side is no multiple of 32.
        """

    @abstractmethod
    def drop_in_maps(self, features: EncoderFeatures) -> list[Tensor]:
        """The maps of `forward`, from features that were computed before.

        Raises:
            UserError: the encoder was built without them.
        """

    @property
    def feature_info(self) -> FeatureInfo:
        """The drop-in maps as timm describes them: `.channels()`, `.reduction()`."""
        from timm.models import FeatureInfo  # slow to import, and not needed by predictions

        maps = enumerate(zip(self.num_ch_enc, self.strides, strict=True))
        info = [{"num_chs": channels, "reduction": stride, "module": f"maps.{i}"} for i, (channels, stride) in maps]
        return FeatureInfo(info, tuple(range(len(info))))

    @abstractmethod
    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """The trainable parameters as groups for an optimiser; empty where nothing trains."""

    def class_token(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, class_width); the other features are not computed.

        Raises:
            UserError: the encoder has no class token.
        """
        raise UserError(f"a {type(self).__name__} has no class token: use a hybrid encoder with DINO")
