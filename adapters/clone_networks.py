"""The hybrid nets in the form that the original trainers' code handles, for the `upstream.py` of Monodepth2 and
ManyDepth.

Their scripts build encoder and decoder by `networks.ResnetEncoder(...)` and `networks.DepthDecoder(...)`, pass a list
of maps from one to the other and save `state_dict()`s. `HybridNetworks` takes the place of their `networks`.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_encoder.errors import UserError
from hybrid_encoder.model.contract import Decodable, EncoderFeatures
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.model.nets import DecoderKind, DepthNets
from hybrid_encoder.model.pose import ClassTokenPose

from .clone_options import asked_config
from .old_libraries import Shadow

_rates: weakref.WeakKeyDictionary[Any, float | None] = weakref.WeakKeyDictionary()
"""Encoders built here and their learning rates; None: the host's. `adam` finds them by their parameters."""


@dataclass(frozen=True)
class Start:
    """How a training run with hybrid encoders begins.

    Attributes:
        stage1: file of stage 1's weights; None: there are none.
        encoder_lr: learning rate of the encoder; None: the host's.
    """

    stage1: str | None = None
    encoder_lr: float | None = None


def start_as_identity(resnet: nn.Module) -> nn.Module:
    """Sets the last scale of every residual block to 0, as in our ResNets of random numbers; returns the net.

    All other random weights are drawn in a clone as in our trainers.
    """
    for block in resnet.modules():
        if hasattr(block, "downsample") and isinstance(getattr(block, "bn2", None), nn.BatchNorm2d):
            last = block.bn3 if hasattr(block, "bn3") else block.bn2
            nn.init.zeros_(last.weight)  # type: ignore[union-attr, arg-type]
    return resnet


def listed(encoder: Decodable, nets: DepthNets, features: EncoderFeatures) -> list[Tensor]:
    """Features as a plain list: the maps that the encoder's decoder reads, then the coarsest fused level."""
    if nets.decoder != "dpt":
        return [*encoder.drop_in_maps(features), features.fused[-1]]
    skipped = [] if features.stride4 is None else [features.stride4]
    return [*features.aligned, *skipped, features.fused[-1]]


class ListedEncoder(HybridEncoder):
    """The hybrid encoder with a plain list as its output: the maps that its decoder reads, then the coarsest fused
    level.

    Pose nets that share the encoder read the fused level; decoders ignore it.

    Attributes:
        nets: what the encoder was built from.
        image_size: (H, W) of the last images.
    """

    def __init__(self, nets: DepthNets) -> None:
        assert nets.config is not None
        super().__init__(nets.config)
        self.nets = nets
        self.image_size = (0, 0)
        self._token: tuple[Tensor, Tensor | None] | None = None

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> five maps at strides 2..32, or the aligned levels for the DPT decoder; then a fused
        level."""
        features = self.forward_features(image)
        self.image_size = features.image_size
        self._token = (image, features.class_token)
        return listed(self, self.nets, features)

    def class_token(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, class_width); not computed again for the images that `forward` saw last."""
        if self._token is not None and self._token[0] is image and self._token[1] is not None:
            return self._token[1]
        return super().class_token(image)


class ListedDPTDecoder(DPTDecoder):
    """The DPT decoder for the list that a `ListedEncoder` returns, or another encoder with the same attributes."""

    def __init__(self, encoder: Any) -> None:
        super().__init__(encoder, encoder.nets.scales, encoder.nets.head)
        self._encoder = (encoder,)  # in a tuple, so that the encoder is not registered as a submodule

    def forward(self, features: Any) -> dict[tuple[str, int], Tensor]:
        """The output of `listed` -> {("disp", s): (B, 1, H / 2^s, W / 2^s)}."""
        aligned, stride4 = list(features[:4]), features[4] if self.skip is not None else None
        return super().forward(EncoderFeatures([], aligned, [], None, self._encoder[0].image_size, stride4))


class PairPose(ClassTokenPose):
    """The class-token pose head, called with a pair of images, the earlier one first."""

    def __init__(self, encoder: ListedEncoder) -> None:
        super().__init__(encoder.class_width)
        self._encoder = (encoder,)

    def forward(self, images: Any, *_: Any) -> tuple[Tensor, Tensor]:
        """Two images (B, 3, H, W) -> axis-angle and translation, each (B, 1, 1, 3)."""
        first, second = (self._encoder[0].class_token(image) for image in images)
        return super().forward(first, second)


class HybridNetworks(Shadow):
    """An original's `networks` module in which the depth encoder and its decoder are ours; pose nets are the
    original's.

    Args:
        networks: the original's module.
        nets: what to build in place of `ResnetEncoder`; if it has no hybrid encoder, the original's nets are built.
        their_scales: disparity scales of the original's decoders in place of the caller's; None: the caller's.
        start: how a training run begins; None: no training run.
        names: further names of the module.

    Attributes:
        built: the encoders built so far.
        called: names of the module by which depth encoders were built, ours or the original's.
        trains: whether this is a training run. It builds all nets that were asked for; other scripts may build one.
    """

    def __init__(
        self,
        networks: ModuleType,
        nets: DepthNets,
        their_scales: tuple[int, ...] | None = None,
        start: Start | None = None,
        **names: Any,
    ) -> None:
        super().__init__(
            networks, ResnetEncoder=self.encoder, DepthDecoder=self.decoder, PoseDecoder=self.pose_decoder, **names
        )
        self.nets, self.start, self.trains = nets, start or Start(), start is not None
        self.their_scales = their_scales
        self.built: list[Any] = []
        self.called: set[str] = set()

    def encoder(self, num_layers: int, pretrained: bool, num_input_images: int = 1, **settings: Any) -> nn.Module:
        """In place of `ResnetEncoder`: our encoder; the original's for pairs of images."""
        self.called |= {"ResnetEncoder"} if num_input_images == 1 else set()
        if num_input_images > 1 or self.nets.config is None:
            theirs: nn.Module = self._original.ResnetEncoder(num_layers, pretrained, num_input_images, **settings)
            return theirs if pretrained else start_as_identity(theirs)
        encoder = ListedEncoder(self.nets)
        self.add(encoder, encoder)
        return encoder

    def add(self, built: Any, encoder: HybridEncoder) -> None:
        """Fills an encoder with stage 1's weights, if there are any, and registers the net that was built around it."""
        if self.start.stage1 is not None:
            from hybrid_encoder.stage1.checkpoint import load_stage1

            load_stage1(encoder, self.start.stage1)
        self.built.append(built)
        _rates[built] = self.start.encoder_lr

    def decoder(self, num_ch_enc: Any, scales: Any = range(4), *args: Any, **settings: Any) -> nn.Module:
        """In place of `DepthDecoder`: the decoder of the encoder to which these channels belong."""
        networks: Any = self._original
        encoder = self.owner(num_ch_enc)
        if encoder is None:
            theirs: nn.Module = networks.DepthDecoder(num_ch_enc, self.their_scales or scales, *args, **settings)
            return theirs
        if encoder.nets.decoder == "dpt":
            return ListedDPTDecoder(encoder)

        class FirstFive(networks.DepthDecoder):
            def forward(self, features: Any) -> Any:
                return super().forward(list(features[:5]))

        on_list: nn.Module = FirstFive(num_ch_enc, encoder.nets.scales, *args, **settings)
        return on_list

    def pose_decoder(self, num_ch_enc: Any, *args: Any, **settings: Any) -> nn.Module:
        """In place of `PoseDecoder`: the original's; it reads the fused level if it shares our encoder."""
        encoder = self.owner(num_ch_enc)
        channels = num_ch_enc if encoder is None else [encoder.fused_channels[-1]]
        theirs: nn.Module = self._original.PoseDecoder(channels, *args, **settings)
        return theirs

    def replaced(self) -> set[str]:
        """Names of the module by which hybrid encoders are built."""
        return set() if self.nets.config is None else {"ResnetEncoder"}

    def check_built(self) -> None:
        """Raises `UserError` if a hybrid encoder was asked for and the clone has built another one."""
        unbuilt = self.replaced() - self.called
        if unbuilt and (self.trains or not self.called):
            raise UserError(
                f"a hybrid encoder was asked for and not built: this clone does not build its encoder by networks."
                f"{' and networks.'.join(sorted(unbuilt))}. Put the encoder in by hand, as README says under 'Your own "
                "trainer'"
            )

    def owner(self, num_ch_enc: Any) -> Any:
        """The encoder built here whose attribute `num_ch_enc` is this very object; None: there is none."""
        return next((encoder for encoder in self.built if encoder.num_ch_enc is num_ch_enc), None)


def watched(names: dict[str, Any], networks: HybridNetworks) -> HybridNetworks:
    """Makes a file's loaders check, when they start, that its nets are those that were asked for.

    Args:
        names: `globals()` of the file.
        networks: the module by which the file builds its nets; it is returned.
    """
    loader: Any = names.get("DataLoader")
    if loader is not None:

        class WatchedLoader(loader):
            def __iter__(self) -> Any:
                networks.check_built()
                return super().__iter__()

        names["DataLoader"] = WatchedLoader
    return networks


def adam(theirs: Any) -> Any:
    """A function in place of `Adam`: AdamW with our trainers' groups, if it gets parameters of hybrid encoders.

    Args:
        theirs: the original's `Adam`, for all other parameters.
    """

    def grouped(parameters: Any, lr: float, *args: Any, **settings: Any) -> torch.optim.Optimizer:
        given = list(parameters)
        place = {id(p): i for i, p in enumerate(given) if isinstance(p, Tensor) and p.requires_grad}
        found = [(min(place.get(id(p), len(given)) for p in built.parameters()), built) for built in _rates]
        groups: list[dict[str, Any]] = []
        for first, built in sorted(found, key=lambda pair: pair[0]):
            if first < len(given):
                rate = _rates[built]
                groups += built.parameter_groups(lr if rate is None else rate)
        if not groups:
            plain: torch.optim.Optimizer = theirs(given, lr, *args, **settings)
            return plain
        own = {id(p) for group in groups for p in group["params"]}
        rest = [p for p in given if id(p) in place and id(p) not in own]
        return torch.optim.AdamW([*groups, {"params": rest, "lr": lr}], lr=lr)

    return grouped


def asked_nets(options: Any, kind: DecoderKind | None, filled: bool) -> DepthNets:
    """The nets that the options of a training run ask for.

    Args:
        options: parsed options.
        kind: kind of decoder; None: dpt.
        filled: whether a file of weights will fill the encoder, so that its towers need no published weights.
    """
    kind = kind or "dpt"
    return DepthNets(
        config=asked_config(options, filled).replace(pyramid=kind == "unet"),
        decoder=kind,
        scales=tuple(options.scales),
        head=options.head if kind == "dpt" else "sigmoid",
        min_depth=options.min_depth,
        max_depth=options.max_depth,
        resize="lanczos",  # as in the originals' data sets
    )
