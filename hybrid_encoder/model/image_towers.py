"""Builds the image tower: the image half of CLIP, or a timm model in its place."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from ..errors import UserError
from .conv_tower import ClipStem, ConvTower
from .pixels import CLIP_MEAN, CLIP_STD
from .tower import Tower, choose_normalization, quarters
from .vit_towers import ClipVitTower, TimmVitTower, is_timm_vit


def clip_image_tower(visual: nn.Module, normalization: str) -> Tower:
    """The image half of an open_clip model as a tower.

    Raises:
        UserError: a model of another family, such as ConvNeXt, whose maps we cannot take.
    """
    own = (
        tuple(getattr(visual, "image_mean", None) or CLIP_MEAN),
        tuple(getattr(visual, "image_std", None) or CLIP_STD),
    )
    chosen = choose_normalization(normalization, own)
    if all(hasattr(visual, name) for name in ("conv3", "act3", "layer1", "layer4")):  # a ModifiedResNet
        layers: list[Any] = [getattr(visual, f"layer{number}") for number in (1, 2, 3, 4)]
        channels = tuple(layer[-1].conv3.out_channels for layer in layers)
        return ConvTower(ClipStem(visual), layers, channels, chosen)
    from open_clip.timm_model import TimmModel  # slow to import, and not needed by the tiny towers
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, VisionTransformer):
        return ClipVitTower(visual, quarters(len(visual.transformer.resblocks)), chosen)
    if isinstance(visual, TimmModel) and is_timm_vit(visual.trunk):
        return TimmVitTower(visual.trunk, chosen)
    trunk = visual.trunk if isinstance(visual, TimmModel) else visual
    raise UserError(
        f"CLIP image tower {type(trunk).__name__} is not supported: choose a ModifiedResNet (RN50) or ViT model"
    )


def timm_image_tower(model: nn.Module, normalization: str) -> Tower:
    """A timm model in CLIP's place: a ResNet (the paper's ablation with ImageNet weights) or a vision transformer.

    Raises:
        UserError: neither a vision transformer nor a model with ResNet's stem and four layers.
    """
    config = model.pretrained_cfg
    own = (tuple(config["mean"]), tuple(config["std"]))  # type: ignore[index]
    chosen = choose_normalization(normalization, own)
    if is_timm_vit(model):
        return TimmVitTower(model, chosen)
    missing = [name for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer4") if not hasattr(model, name)]
    if missing:
        raise UserError(
            f"image_tower {type(model).__name__} has no {', '.join(missing)}: choose a timm ResNet or vision "
            "transformer, e.g. resnet50.tv_in1k"
        )
    stem = nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool)  # type: ignore[arg-type]
    layers = [cast(nn.Module, getattr(model, f"layer{i}")) for i in (1, 2, 3, 4)]
    channels = tuple(int(info["num_chs"]) for info in model.feature_info[-4:])  # type: ignore[index]
    return ConvTower(stem, layers, channels, chosen)
