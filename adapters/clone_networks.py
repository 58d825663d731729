"""The hybrid nets in the shape that the original trainers' own code handles, shared by both hosts' `upstream.py`.

Their scripts build encoder and decoder by `networks.ResnetEncoder(...)` and `networks.DepthDecoder(...)`, pass a list
of maps from one to the other and write `state_dict()`s. `HybridNetworks` takes the place of their `networks`.
"""

from __future__ import annotations

import argparse
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_encoder.config import HybridEncoderConfig
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.encoder import HybridEncoder, HybridFeatures
from hybrid_encoder.model.pose import ClassTokenPose
from hybrid_encoder.options import HYBRID_ONLY, EncoderOptions
from hybrid_encoder.stage2.checkpoint import NetDescription, check_config, encoder_extras
from hybrid_encoder.weights.reading import load_state, read_checkpoint

from .old_libraries import Shadow

_built: weakref.WeakSet[Any] = weakref.WeakSet()
"""Encoders made here, by whose parameters `adam` knows them."""


@dataclass(frozen=True)
class Nets:
    """What to build.

    Attributes:
        config: the hybrid encoder.
        kind: "dpt" or "unet".
        head: end of the DPT decoder.
        scales: disparity scales; None: those that the host asks for.
        stage1: weights of stage 1, or None.
        encoder_lr: learning rate of the encoder; None: the host's.
    """

    config: HybridEncoderConfig
    kind: str
    head: str = "sigmoid"
    scales: tuple[int, ...] | None = None
    stage1: str | None = None
    encoder_lr: float | None = None

    @property
    def encoder_config(self) -> HybridEncoderConfig:
        """The encoder with the maps that its decoder reads, and no others."""
        return self.config.replace(pyramid=self.kind == "unet")

    @classmethod
    def of_file(cls, path: str | Path) -> Nets | None:
        """What wrote an encoder's file; None for a ResNet.

        Raises:
            UserError: missing or damaged.
        """
        return cls.of_entries(read_checkpoint(path), str(path))

    @classmethod
    def of_entries(cls, entries: dict[str, Any], source: str = "the encoder's file") -> Nets | None:
        """The same from what such a file holds; `source` names it in messages."""
        found = NetDescription.of_entries(entries, source)
        return None if found.config is None else cls(found.config, found.kind, found.head, found.scales)


def unusual_scales(entries: dict[str, Any], source: str = "the encoder's file") -> tuple[int, ...] | None:
    """Disparity scales of the decoder behind an original's ResNet, from what the ResNet's file holds.

    Returns:
        None where they are all four, as the originals' scripts take for granted; and for a hybrid encoder.
    """
    found = NetDescription.of_entries(entries, source)
    return None if found.config is not None or found.scales == (0, 1, 2, 3) else found.scales


def start_as_identity(resnet: nn.Module) -> nn.Module:
    """Sets the last scale of every residual block to 0, as ResNets of ours begin that start from random numbers.

    Of all weights that a run starts with, these alone would be drawn otherwise in a clone than in our trainers.
    """
    for block in resnet.modules():
        if hasattr(block, "downsample") and isinstance(getattr(block, "bn2", None), nn.BatchNorm2d):
            last = block.bn3 if hasattr(block, "bn3") else block.bn2
            nn.init.zeros_(last.weight)  # type: ignore[union-attr, arg-type]
    return resnet


def listed(encoder: HybridEncoder, features: HybridFeatures) -> list[Tensor]:
    """Features as a plain list: what the encoder's decoder reads, then the coarsest fused level."""
    read = features.aligned if encoder.pyramid is None else encoder.drop_in_maps(features)
    return [*read, features.fused[-1]]


class DepthEncoder(HybridEncoder):
    """The hybrid encoder as one that returns a plain list: what its decoder reads, then the coarsest fused level.

    The fused level is what a pose net that shares the encoder reads; decoders leave it out.

    Attributes:
        nets: what it was built from.
        image_size: (H, W) of the last images.
    """

    def __init__(self, nets: Nets) -> None:
        super().__init__(nets.encoder_config)
        self.nets = nets
        self.image_size = (0, 0)
        self._token: tuple[Tensor, Tensor | None] | None = None

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> five maps at strides 2..32, or four aligned levels for the DPT decoder; and a fused
        level."""
        features = self.forward_features(image)
        self.image_size = features.image_size
        self._token = (image, features.class_token)
        return listed(self, features)

    def class_token(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, class_width); of the images that `forward` saw last, without another look."""
        if self._token is not None and self._token[0] is image and self._token[1] is not None:
            return self._token[1]
        assert self.dino is not None
        token = self.dino(image).class_token
        assert token is not None
        return token


class ListedDPTDecoder(DPTDecoder):
    """The DPT decoder on the list that a `DepthEncoder` returns, or another encoder with the same attributes."""

    def __init__(self, encoder: Any, scales: tuple[int, ...], head: str) -> None:
        super().__init__(encoder, scales, head)  # type: ignore[arg-type]
        self._encoder = (encoder,)  # in a tuple, so that it is no part of this net

    def forward(self, features: Any) -> dict[tuple[str, int], Tensor]:
        """Four levels and a fused one -> {("disp", s): (B, 1, H / 2^s, W / 2^s)}."""
        return super().forward(HybridFeatures([], list(features[:4]), [], None, self._encoder[0].image_size))


class PairPose(ClassTokenPose):
    """The class-token pose head called on a pair of images, the earlier first."""

    def __init__(self, encoder: DepthEncoder) -> None:
        super().__init__(encoder.class_width)
        self._encoder = (encoder,)

    def forward(self, images: Any, *_: Any) -> tuple[Tensor, Tensor]:
        """Two images (B, 3, H, W) -> axis-angle and translation, each (B, 1, 1, 3)."""
        first, second = (self._encoder[0].class_token(image) for image in images)
        return super().forward(first, second)


class HybridNetworks(Shadow):
    """An original's `networks` module in which the depth encoder and its decoder are ours; pose nets stay theirs.

    Args:
        networks: the original's module.
        nets: what to build in the place of `ResnetEncoder`; None: theirs.
        their_scales: disparity scales of their own decoders, whatever is asked for; None: as asked for.
        names: further names of the module.

    Attributes:
        built: the encoders made so far.
    """

    def __init__(
        self, networks: ModuleType, nets: Nets | None, their_scales: tuple[int, ...] | None = None, **names: Any
    ) -> None:
        super().__init__(
            networks, ResnetEncoder=self.encoder, DepthDecoder=self.decoder, PoseDecoder=self.pose_decoder, **names
        )
        self.nets = nets
        self.their_scales = their_scales
        self.built: list[Any] = []

    def encoder(self, num_layers: int, pretrained: bool, num_input_images: int = 1, **settings: Any) -> nn.Module:
        """In the place of `ResnetEncoder`: ours, or theirs for pairs of images."""
        if num_input_images > 1 or self.nets is None:
            theirs: nn.Module = self._behind.ResnetEncoder(num_layers, pretrained, num_input_images, **settings)
            return theirs if pretrained else start_as_identity(theirs)
        encoder = DepthEncoder(self.nets)
        self.add(encoder, encoder)
        return encoder

    def add(self, built: Any, encoder: HybridEncoder) -> None:
        """Fills an encoder with stage 1's weights, where there are any, and remembers what was built around it."""
        if built.nets.stage1 is not None:
            from hybrid_encoder.stage1.checkpoint import load_stage1

            load_stage1(encoder, built.nets.stage1)
        self.built.append(built)
        _built.add(built)

    def decoder(self, num_ch_enc: Any, scales: Any = range(4), *args: Any, **settings: Any) -> nn.Module:
        """In the place of `DepthDecoder`: the decoder of the encoder that these channels are an attribute of."""
        networks: Any = self._behind
        encoder = self.owner(num_ch_enc)
        if encoder is None:
            theirs: nn.Module = networks.DepthDecoder(num_ch_enc, self.their_scales or scales, *args, **settings)
            return theirs
        scales = encoder.nets.scales or tuple(scales)
        if encoder.nets.kind == "dpt":
            return ListedDPTDecoder(encoder, scales, encoder.nets.head)

        class FirstFive(networks.DepthDecoder):
            def forward(self, features: Any) -> Any:
                return super().forward(list(features[:5]))

        on_list: nn.Module = FirstFive(num_ch_enc, scales, *args, **settings)
        return on_list

    def pose_decoder(self, num_ch_enc: Any, *args: Any, **settings: Any) -> nn.Module:
        """In the place of `PoseDecoder`: theirs, on the fused level where it shares our encoder."""
        encoder = self.owner(num_ch_enc)
        channels = num_ch_enc if encoder is None else [encoder.fused_channels[-1]]
        theirs: nn.Module = self._behind.PoseDecoder(channels, *args, **settings)
        return theirs

    def owner(self, num_ch_enc: Any) -> Any:
        """The encoder built here whose `num_ch_enc` this very array is; None for another's."""
        return next((encoder for encoder in self.built if encoder.num_ch_enc is num_ch_enc), None)


def adam(theirs: Any) -> Any:
    """`Adam` that gives hybrid encoders' parameters the groups that our trainers give them, with AdamW.

    Args:
        theirs: what to call where no parameter is a hybrid encoder's.
    """

    def grouped(parameters: Any, lr: float, *args: Any, **settings: Any) -> torch.optim.Optimizer:
        given = list(parameters)
        place = {id(p): i for i, p in enumerate(given) if isinstance(p, Tensor) and p.requires_grad}
        found = [(min(place.get(id(p), len(given)) for p in built.parameters()), built) for built in _built]
        groups: list[dict[str, Any]] = []
        for first, built in sorted(found, key=lambda pair: pair[0]):
            if first < len(given):
                groups += built.parameter_groups(lr if built.nets.encoder_lr is None else built.nets.encoder_lr)
        if not groups:
            plain: torch.optim.Optimizer = theirs(given, lr, *args, **settings)
            return plain
        own = {id(p) for group in groups for p in group["params"]}
        rest = [p for p in given if id(p) in place and id(p) not in own]
        return torch.optim.AdamW([*groups, {"params": rest, "lr": lr}], lr=lr)

    return grouped


def add_options(parser: argparse.ArgumentParser) -> Any:
    """Adds the options of the hybrid encoder to an original's parser; returns their group."""
    group = parser.add_argument_group("hybrid encoder")
    group.add_argument("--encoder", choices=("resnet", "hybrid"), default="resnet", help="depth encoder")
    group.add_argument("--preset", default="paper", help="hybrid encoder: paper, released, small, dinov3 or tiny")
    group.add_argument("--encoder_option", action="append", default=[], help="NAME=VALUE of HybridEncoderConfig")
    group.add_argument("--clip_weights", help="CLIP's weights: a file, an open_clip tag, or random")
    group.add_argument("--dino_weights", help="DINO's weights: a file, pretrained, or random")
    group.add_argument("--decoder", choices=("dpt", "unet"), help="depth decoder (hybrid: dpt)")
    group.add_argument("--head", choices=("sigmoid", "relu"), default="sigmoid", help="end of the DPT decoder")
    group.add_argument("--stage1", help="stage1.pth of `hybrid-encoder pretrain`")
    group.add_argument("--encoder_lr", type=float, help="learning rate of the encoder, where it differs")
    return group


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace, any_hybrid: bool) -> None:
    """Settles what depends on other options.

    Args:
        parser: which filled them: its defaults tell what was not asked for.
        any_hybrid: whether any encoder is a hybrid one.

    Raises:
        UserError: options that contradict each other.
    """
    if not any_hybrid:
        for name in ("stage1", "encoder_lr", *HYBRID_ONLY):
            if getattr(options, name) not in (None, []):
                raise UserError(f"--{name} {getattr(options, name)} is for the hybrid encoder: add --encoder hybrid")
    if options.encoder != "hybrid" and options.decoder == "dpt":
        raise UserError("--decoder dpt reads the hybrid encoder's levels: add --encoder hybrid, or use --decoder unet")
    options.decoder = options.decoder or ("dpt" if options.encoder == "hybrid" else "unet")
    if options.decoder == "dpt" and options.scales is parser.get_default("scales"):
        options.scales = [0]


def asked_nets(options: Any, kind: str | None, filled: bool) -> Nets:
    """What the options of a training run ask for.

    Args:
        options: parsed options.
        kind: of the decoder; None: dpt.
        filled: whether a file of weights will fill the encoder, so that its towers need none of their own.
    """
    config = EncoderOptions(
        preset=options.preset,
        clip_weights=options.clip_weights,
        dino_weights=options.dino_weights,
        weights_init=options.weights_init,
        encoder_option=tuple(options.encoder_option),
    ).config()
    if filled or options.stage1 is not None:
        config = config.without_downloads()
    kind = kind or "dpt"
    head = options.head if kind == "dpt" else "sigmoid"
    return Nets(config, kind, head, None, options.stage1, options.encoder_lr)


def describe(to_save: dict[str, Any], encoder: nn.Module, decoder: nn.Module, options: Any) -> None:
    """Adds to an encoder's state dict what its nets are, so that its file can be opened without the options of the run.

    A ResNet's file stays as the original writes it, unless scales or depth limits are unusual.
    """
    limits = (options.min_depth, options.max_depth)
    if not isinstance(encoder, HybridEncoder) and list(options.scales) == [0, 1, 2, 3] and limits == (0.1, 100.0):
        return
    extras = encoder_extras(encoder, decoder, options.height, options.width, *limits)
    to_save.update({name: extras[name] for name in extras if name not in ("height", "width")})


def check_weights(model: nn.Module, tensors: dict[str, Any], path: str) -> None:
    """Refuses a file that does not fill a net of ours, and one of ours for an original's net.

    Else an original's own nets keep what a file lacks, as they do: of a file of ours they would keep everything.

    Raises:
        UserError: what does not fit.
    """
    if hasattr(model, "nets") or isinstance(model, (DPTDecoder, ClassTokenPose)):
        encoder = getattr(model, "encoder", model)
        if isinstance(encoder, HybridEncoder):
            check_config(encoder, tensors, path)
        load_state(model, {name: value for name, value in tensors.items() if isinstance(value, Tensor)}, path)
    elif tensors.get("hybrid_config"):
        option = "--teacher_encoder" if Path(path).name == "mono_encoder.pth" else "--encoder"
        raise UserError(f"{path} holds a hybrid encoder: add {option} hybrid")
    elif set(tensors) == {"linear.weight", "linear.bias"}:
        raise UserError(f"{path} reads poses from class tokens: add --pose_model_type class_token")


def fitting_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A loaded optimizer state, or the optimizer's own one where the loaded one is of other parameters."""
    own = optimizer.state_dict()
    sizes = [[len(group["params"]) for group in found["param_groups"]] for found in (state, own)]
    if sizes[0] == sizes[1]:
        return state
    print("adam.pth is of other parameters: the optimizer starts anew")
    return own
