"""Enters `HybridBackbone` into the lists by which configs name their models.

    custom_imports = dict(imports=["hybrid_encoder.adapters.mmdet.register"])
    model = dict(backbone=dict(type="HybridBackbone", source="paper", pixels="torchvision"), ...)

Importing this module does it: into mmengine's list, in which mmdet 3 and mmdet3d 1 look, too; and, where mmcv 1.x
is installed, into the one of mmdet 2, in which its mmdet3d looks, too. `pip install hybrid-encoder[mmdet]` installs
mmengine and mmdet 3; mmcv has to fit PyTorch and CUDA, so it is left to you.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from hybrid_encoder.errors import UserError

from .backbone import HybridBackbone


def registries() -> list[Any]:
    """The lists that are installed.

    Raises:
        UserError: none.
    """
    found = []
    if find_spec("mmengine") is not None:
        from mmengine.registry import MODELS

        found.append(MODELS)
    if find_spec("mmcv") is not None and find_spec("mmcv.runner") is not None:  # mmcv 1.x
        from mmdet.models.builder import BACKBONES

        found.append(BACKBONES)
    if not found:
        raise UserError(
            "neither mmengine nor mmcv 1.x with mmdet 2 is installed: pip install hybrid-encoder[mmdet], or build "
            "hybrid_encoder.adapters.mmdet.backbone.HybridBackbone by hand"
        )
    return found


for _registry in registries():
    _registry.register_module(module=HybridBackbone)
