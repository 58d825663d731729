"""Vision transformers in the place of CLIP's image tower: four maps on one patch grid, at any image size."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .exporting import is_exporting
from .tower import Normalization, Tower, quarters, to_patch_grid

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer


class ClipVitTower(Tower):
    """A CLIP vision transformer at any image size: its position embeddings are resampled to the image's grid."""

    def __init__(self, visual: VisionTransformer, blocks: tuple[int, ...], normalization: Normalization | None) -> None:
        super().__init__(normalization)
        self.visual = _Intermediates(visual, blocks)
        self.patch = visual.patch_size[0]
        self.grid = visual.grid_size
        self.channels = (visual.conv1.out_channels,) * 4

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps (B, C, h, w), h = round(H / patch)."""
        image, grid = to_patch_grid(self.normalize(image), self.patch)
        position = self.visual.visual.positional_embedding
        if is_exporting() or tuple(grid) != tuple(self.grid):
            spatial = position[1:].T.reshape(1, -1, *self.grid)
            spatial = F.interpolate(spatial, grid, mode="bicubic", antialias=True, align_corners=False)
            position = torch.cat([position[:1], spatial.flatten(2)[0].T])
        return cast("list[Tensor]", self.visual(image, position))


class _Intermediates(nn.Module):
    """open_clip's transformer up to the last of four blocks, with position embeddings as an argument.

    open_clip's `forward` reads them from the module. For another image size they would have to be replaced there
    during the call, which other threads would see.
    """

    def __init__(self, visual: VisionTransformer, blocks: tuple[int, ...]) -> None:
        super().__init__()
        visual.ln_post, visual.proj = nn.Identity(), None  # the pooled output is never asked for
        self.visual = visual
        self.blocks = list(blocks)

    def forward(self, image: Tensor, position: Tensor) -> list[Tensor]:
        """(B, 3, h patch, w patch) normalised and (1 + h w, C) -> four maps (B, C, h, w)."""
        visual = self.visual
        patches = visual.conv1(image)
        x = patches.flatten(2).transpose(1, 2)
        class_token = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([class_token, x], dim=1) + position.to(x.dtype)
        x = visual.ln_pre(visual.patch_dropout(x))
        _, taken = visual.transformer.forward_intermediates(x, indices=self.blocks)
        return [tokens[:, 1:].transpose(1, 2).reshape(patches.shape).contiguous() for tokens in taken]


class TimmVitTower(Tower):
    """A vision transformer of timm, as in open_clip's SigLIP and EVA02; all that comes after the last map is left
    out."""

    def __init__(self, vit: nn.Module, normalization: Normalization | None) -> None:
        """
        Args:
            vit: the model whose tensors are taken; its pooling and its head are left out.
        """
        super().__init__(normalization)
        self.blocks = list(quarters(len(vit.blocks)))  # type: ignore[arg-type]
        self.vit = _of_any_size(vit, self.blocks)
        self.patch = int(vit.patch_embed.patch_size[0])  # type: ignore[index, union-attr]
        self.channels = (int(vit.num_features),) * 4  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps (B, C, h, w), h = round(H / patch)."""
        image, _ = to_patch_grid(self.normalize(image), self.patch)
        maps = self.vit.forward_intermediates(image, indices=self.blocks, norm=False, intermediates_only=True)  # type: ignore[operator]
        return cast("list[Tensor]", maps)


def is_timm_vit(model: nn.Module) -> bool:
    """Whether a model is a vision transformer of timm whose maps can be taken."""
    return all(hasattr(model, name) for name in ("blocks", "patch_embed", "forward_intermediates"))


def _of_any_size(vit: nn.Module, blocks: list[int]) -> nn.Module:
    """The same transformer of timm with the same tensors, for images of any size; all after its last block is left
    out."""
    name = str(vit.pretrained_cfg["architecture"])  # type: ignore[index]
    import timm  # slow to import, and not needed by the tiny towers

    twin = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    for model in (vit, twin):
        model.prune_intermediate_layers(blocks, prune_norm=True, prune_head=True)  # type: ignore[operator]
    twin.load_state_dict(vit.state_dict())
    return twin
