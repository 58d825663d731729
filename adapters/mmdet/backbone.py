"""A hybrid encoder in the place of a ResNet: the maps C2 to C5 of images that a detector's pipeline has normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hybrid_encoder.config import PRESETS
from hybrid_encoder.engine.activation_checkpointing import checkpoint_activations
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.conv_tower import ConvTower
from hybrid_encoder.model.encoder import HybridEncoder, create_encoder

from .pixels import ChannelOrder, ToRgb, declared
from .weights import fill, load_checkpoint, open_encoder

_STRIDES = (4, 8, 16, 32)
"""Of C2 to C5."""


class HybridBackbone(nn.Module):
    """A hybrid encoder with the arguments and the outputs of mmdet's `ResNet`.

    Called on (B, 3, H, W) as the data pipeline normalised it, of any height and width, it returns a tuple of maps
    (B, channels[i], ceil(H / stride), ceil(W / stride)) for i in `out_indices`, at strides 4, 8, 16, 32. Only those
    maps are built, and every trainable tensor gets a gradient through them.

    Args:
        source: a preset; or trained weights, as for `weights.open_encoder`, which say what the encoder is.
        out_indices: ascending ones of 0 to 3, for C2 to C5.
        channels: of C2 to C5; the default is a ResNet-50's, so that necks stay as they are.
        pixels: the name of what the pipeline did to pixels, one of `pixels.NORMALIZATIONS`.
        channel_order, mean, std: the same by hand: "rgb" or "bgr", and three numbers each in that order, for pixels
            from 0 to 255.
        frozen_stages: -1: none; 0: the stem of the image tower; 1 to 3: its first layers, too; 4: all but the layers
            that make the maps. DINO trains its last block alone, unless `options` says otherwise.
        norm_eval: batch norms of the towers keep their statistics; those of the maps, which start anew, never do.
        with_cp: compute blocks again in the backward pass: less memory, more time.
        init_cfg: dict(type="Pretrained", checkpoint=..., prefix=...), as for `weights.load_checkpoint`; read by
            `init_weights`, which the frameworks call.
        weights_dir: as for `create_encoder`.
        options: fields of `HybridEncoderConfig` to change, e.g. dict(train_dino_blocks=4).

    Raises:
        UserError: arguments that no backbone can be built from, or weights that do not fit.
    """

    def __init__(
        self,
        source: str = "paper",
        out_indices: Sequence[int] = (0, 1, 2, 3),
        channels: Sequence[int] = (256, 512, 1024, 2048),
        pixels: str | None = None,
        channel_order: ChannelOrder | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = True,
        with_cp: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
        weights_dir: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.init_cfg = _pretrained(init_cfg)
        self.to_rgb = ToRgb(declared(pixels, channel_order, mean, std))
        fields = {**(options or {}), **_maps(out_indices, channels)}
        self.encoder = _build(source, fields, weights_dir, filled_later=self.init_cfg is not None)
        self.norm_eval = norm_eval
        self._frozen = frozen_parts(self.encoder, frozen_stages)
        for module in self._frozen:
            module.requires_grad_(False)
        if with_cp:
            checkpoint_activations(self.encoder)
        self.train()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) as the pipeline normalised it -> the maps of `out_indices`."""
        return tuple(self.encoder(self.to_rgb(image)))

    def init_weights(self) -> None:
        """Loads what `init_cfg` names.

        Raises:
            UserError: as `weights.load_checkpoint`.
        """
        if self.init_cfg is not None:
            load_checkpoint(self.encoder, self.init_cfg["checkpoint"], self.init_cfg.get("prefix"))

    def train(self, mode: bool = True) -> HybridBackbone:
        """As of any module; what is frozen, and under `norm_eval` the towers' batch norms, stay in eval mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        for name, part in self.encoder.named_children():
            for module in part.modules():
                if self.norm_eval and name != "pyramid" and isinstance(module, _BatchNorm):
                    module.eval()
        return self


def frozen_parts(encoder: HybridEncoder, stages: int) -> list[nn.Module]:
    """The modules that `frozen_stages` freezes.

    Raises:
        UserError: not -1 to 4; or 0 to 3, and the image tower has no layers to count.
    """
    if stages not in range(-1, 5):
        raise UserError(f"frozen_stages={stages}: expected -1 to 4")
    if stages == -1:
        return []
    if stages == 4:
        return [part for name, part in encoder.named_children() if name != "pyramid"]
    tower = encoder.image_tower
    if not isinstance(tower, ConvTower):
        raise UserError(f"frozen_stages={stages} counts layers of a ResNet, which this encoder has not: use -1 or 4")
    return [tower.stem, tower.layer1, tower.layer2, tower.layer3][: stages + 1]


def _maps(out_indices: Sequence[int], channels: Sequence[int]) -> dict[str, Any]:
    """The fields of a config that describe these maps."""
    wanted = list(out_indices)
    if not wanted or wanted != sorted(set(wanted)) or not set(wanted) <= {0, 1, 2, 3}:
        raise UserError(f"out_indices={tuple(wanted)}: expected ascending ones of 0, 1, 2, 3, which are C2 to C5")
    if len(channels) != len(_STRIDES):
        raise UserError(
            f"channels={tuple(channels)}: expected four numbers, those of C2 to C5, whichever are asked for"
        )
    widths, strides = tuple(channels[i] for i in wanted), tuple(_STRIDES[i] for i in wanted)
    return {"pyramid": True, "num_ch_enc": widths, "strides": strides, "nesting": None, "size": "pad"}


def _build(source: str, fields: Mapping[str, Any], weights_dir: str | Path | None, filled_later: bool) -> HybridEncoder:
    """The encoder of a preset or of trained weights, with some fields of its config changed."""
    if source in PRESETS:
        config = PRESETS[source].without_downloads() if filled_later else PRESETS[source]
        return create_encoder(config, weights_dir, **fields)
    theirs = open_encoder(source)
    encoder = create_encoder(theirs.config.without_downloads(), **fields)
    fill(encoder, theirs.state_dict(), source)
    return encoder


def _pretrained(init_cfg: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """An `init_cfg` with a checkpoint.

    Raises:
        UserError: something else.
    """
    if init_cfg is None:
        return None
    if not isinstance(init_cfg, Mapping) or init_cfg.get("type") != "Pretrained" or not init_cfg.get("checkpoint"):
        raise UserError(
            f"init_cfg={init_cfg}: expected dict(type='Pretrained', checkpoint=PATH), or none for a preset's "
            "published weights"
        )
    return dict(init_cfg)
