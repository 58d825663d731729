"""DINO as a tower: four maps with the final norm applied to each, and the class token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .exported_resizing import bicubic_with_offset
from .exporting import is_exporting, length
from .tower import Normalization, Tower, quarters, to_patch_grid
from .vit_towers import is_timm_vit

_OFFSET = 0.1
"""What Facebook's DINOv2 adds to the wanted rows and columns of its position embedding before it divides."""


@dataclass
class DinoOutput:
    """DINO's four `maps` (B, C, h, w), and its `class_token` (B, C) after the last map's block and the final norm."""

    maps: list[Tensor]
    class_token: Tensor


class DinoTower(Tower):
    """A DINO vision transformer of timm (v1, v2, v3, or fine-tuned from them); four maps with the final norm on each.

    Blocks after the last map are not run. `train_blocks` is how many blocks train, counted back from the last map.
    """

    def __init__(
        self,
        vit: nn.Module,
        blocks: tuple[int, ...] | None,
        train_blocks: int,
        normalization: Normalization | None,
        position_resize: str = "timm",
    ) -> None:
        super().__init__(normalization)
        if not is_timm_vit(vit):
            raise UserError(f"dino: {type(vit).__name__} is no vision transformer, e.g. vit_small_patch14_dinov2")
        depth = len(vit.blocks)  # type: ignore[arg-type]
        self.blocks = list(blocks or quarters(depth))
        if self.blocks[-1] >= depth:
            raise UserError(f"dino_blocks={tuple(self.blocks)}: this DINO has blocks 0 to {depth - 1}")
        self.vit = vit
        self.patch = int(vit.patch_embed.patch_size[0])  # type: ignore[index, union-attr]
        self.channels = (int(vit.num_features),) * 4  # type: ignore[arg-type]
        if position_resize == "facebook":
            position = cast("Tensor | None", getattr(vit, "pos_embed", None))
            expected = 1 + int(vit.patch_embed.num_patches)  # type: ignore[union-attr, arg-type]
            if position is None or position.shape[1] != expected or vit.num_prefix_tokens != 1:
                raise UserError("position_resize='facebook' is for DINO v1 and v2 without registers: use 'timm'")
            _resize_positions_as_facebook(vit)
        used = self.blocks[-1] + 1
        if train_blocks < depth:
            self.freeze(vit)
            for block in list(vit.blocks)[max(used - train_blocks, 0) : used]:  # type: ignore[arg-type]
                block.requires_grad_(True)
        self.freeze(*vit.blocks[used:])  # type: ignore[index]

    def forward(self, image: Tensor) -> DinoOutput:
        """(B, 3, H, W) -> maps (B, C, h, w) with h = round(H / patch), class token (B, C)."""
        image, _ = to_patch_grid(self.normalize(image), self.patch)
        with _rotary_embedding_of_any_grid(self.vit):
            taken = self.vit.forward_intermediates(  # type: ignore[operator]
                image,
                indices=self.blocks,
                return_prefix_tokens=True,
                norm=True,
                stop_early=True,
                intermediates_only=True,
            )
        return DinoOutput([spatial for spatial, _ in taken], taken[-1][1][:, 0])


def _resize_positions_as_facebook(vit: nn.Module) -> nn.Module:
    """An attribute shadows timm's method, the only step in which timm's and Facebook's code differ; also in the copies
    that `nn.DataParallel` makes."""
    vit._pos_embed = partial(_facebook_position_embedding, vit)  # type: ignore[assignment]
    vit._replicate_for_data_parallel = partial(_copy_for_data_parallel, vit)  # type: ignore[method-assign]
    return vit


def _copy_for_data_parallel(vit: nn.Module) -> nn.Module:
    return _resize_positions_as_facebook(type(vit)._replicate_for_data_parallel(vit))


def _facebook_position_embedding(vit: nn.Module, x: Tensor) -> Tensor:
    """Adds class token and position embeddings as Facebook's DINOv2 does: bicubic, not antialiased, scale offset 0.1.

    Args:
        x: (B, h, w, C) patches.

    Returns:
        (B, 1 + h w, C).
    """
    batch, height, width, channels = x.shape
    if torch.jit.is_tracing():  # sizes are tensors then, of which interpolate takes no scale
        height, width = int(height), int(width)
    position = cast(Tensor, vit.pos_embed)
    side = math.isqrt(int(position.shape[1]) - 1)
    spatial = position[:, 1:].reshape(1, side, side, channels).permute(0, 3, 1, 2)
    if is_exporting():
        spatial = bicubic_with_offset(spatial.float(), (height, width), _OFFSET).to(spatial.dtype)
    elif (height, width) != (side, side):
        scale = ((height + _OFFSET) / side, (width + _OFFSET) / side)
        spatial = F.interpolate(spatial.float(), scale_factor=scale, mode="bicubic", antialias=False).to(spatial.dtype)
    spatial = spatial.flatten(2).transpose(1, 2)
    class_token = cast(Tensor, vit.cls_token).expand(batch, -1, -1) + position[:, :1]
    return torch.cat([class_token, x.flatten(1, 2) + spatial], dim=1)


@contextmanager
def _rotary_embedding_of_any_grid(vit: nn.Module) -> Iterator[None]:
    """While `torch.export` traces, an attribute shadows the method of timm's DINOv3, which makes constants of sizes."""
    rope = getattr(vit, "rope", None)
    # By name, because timm is slow to import.
    if not is_exporting() or type(rope).__name__ != "RotaryEmbeddingDinoV3" or not _is_as_published(rope):
        yield
        return
    rope.get_embed = partial(_rotary_embedding, rope)  # type: ignore[union-attr]
    try:
        yield
    finally:
        del rope.get_embed  # type: ignore[union-attr]


def _is_as_published(rope: Any) -> bool:
    """Whether timm's module computes what `_rotary_embedding` does."""
    layout = (rope.rotate_half, rope.normalize_coords, rope.grid_offset, rope.grid_indexing)
    return layout == (True, "separate", 0, "ij")


def _rotary_embedding(rope: Any, shape: tuple[int, int]) -> Tensor:
    """Sines and cosines (h w, 2 x head's width) of the places of patches on a grid (h, w), each axis from -1 to 1, as
    timm's `get_embed` (DINOv3, https://arxiv.org/abs/2508.10104)."""
    indices = [torch.arange(side, dtype=rope.periods.dtype, device=rope.periods.device) for side in shape]
    places = torch.meshgrid(*(2 * (index + 0.5) / length(index) - 1 for index in indices), indexing="ij")
    angles = (2 * math.pi * torch.stack(places, dim=-1).flatten(0, 1)[..., None] / rope.periods).flatten(1)
    return torch.cat([angles.sin().tile(2), angles.cos().tile(2)], dim=-1)
