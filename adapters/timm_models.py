"""The presets as timm models, for hosts that choose their encoder by `timm.create_model(NAME, features_only=True)`.

    import hybrid_encoder.adapters.timm_models
    encoder = timm.create_model("hybrid_encoder_paper", pretrained=True, features_only=True)

Importing this module registers them with timm, as timm's own modules do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from timm.models import register_model

from hybrid_encoder.config import PRESETS
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.encoder import HybridEncoder, create_encoder


def create(
    preset: str, pretrained: bool, features_only: bool, out_indices: Sequence[int] | None = None, **changes: Any
) -> HybridEncoder:
    """A hybrid encoder, by the arguments of `timm.create_model`.

    Args:
        preset: name of the preset.
        pretrained: whether towers have their published weights rather than random numbers.
        features_only: must be True.
        out_indices: which of the preset's five maps to return; None: all.
        changes: fields of `HybridEncoderConfig`; arguments that timm adds with the value None are ignored.

    Raises:
        UserError: without `features_only`, or as `create_encoder`.
    """
    if not features_only:
        raise UserError(f"hybrid_encoder_{preset} is an encoder and classifies nothing: add features_only=True")
    config = PRESETS[preset] if pretrained else PRESETS[preset].without_downloads()
    if out_indices is not None:
        wanted = [range(len(config.strides))[i] for i in out_indices]
        config = config.replace(
            num_ch_enc=tuple(config.num_ch_enc[i] for i in wanted), strides=tuple(config.strides[i] for i in wanted)
        )
    return create_encoder(config, **{name: value for name, value in changes.items() if value is not None})


def _entry(preset: str) -> Callable[..., HybridEncoder]:
    def build(pretrained: bool = False, features_only: bool = False, **settings: Any) -> HybridEncoder:
        return create(preset, pretrained, features_only, **settings)

    build.__name__ = f"hybrid_encoder_{preset}"
    return build


for _preset in PRESETS:
    register_model(_entry(_preset))
