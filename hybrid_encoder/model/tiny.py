"""The towers of the preset `tiny`: a CLIP and a DINO small enough for tests, the demo and the weights in the package.

They compute what open_clip's CLIP and timm's vision transformer of the same sizes compute, under the same names of
tensors, in PyTorch alone: importing those libraries takes longer than predicting an image.

Architectures: Radford et al., https://arxiv.org/abs/2103.00020, section 2.4; Dosovitskiy et al.,
https://arxiv.org/abs/2010.11929, section 3.1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .exporting import is_exporting
from .pixels import IMAGENET_MEAN, IMAGENET_STD

EXPANSION = 4
"""Channels that a block of the ResNet returns, per channel inside it."""
VOCABULARY = 49408
"""Tokens in CLIP's vocabulary."""


class TinyBottleneck(nn.Module):
    """A block of CLIP's ResNet: an average pool in place of a stride."""

    def __init__(self, given: int, inside: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(given, inside, 1, bias=False), nn.BatchNorm2d(inside)
        self.conv2, self.bn2 = nn.Conv2d(inside, inside, 3, padding=1, bias=False), nn.BatchNorm2d(inside)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(inside, EXPANSION * inside, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(EXPANSION * inside)
        nn.init.zeros_(self.bn3.weight)  # the block starts as its shortcut
        shortcut: dict[str, nn.Module] = {
            "-1": nn.AvgPool2d(stride),
            "0": nn.Conv2d(given, EXPANSION * inside, 1, bias=False),
            "1": nn.BatchNorm2d(EXPANSION * inside),
        }
        self.downsample = nn.Sequential(OrderedDict(shortcut))

    def forward(self, x: Tensor) -> Tensor:
        """(B, given, h, w) -> (B, 4 inside, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.avgpool(F.relu(self.bn2(self.conv2(y))))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class TinyResNet(nn.Module):
    """The image half of CLIP, without its last pool: a stem of three convolutions, and four layers of one block.

    Args:
        width: channels of the stem; the layers return 4, 8, 16 and 32 times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        for number, (given, made, stride) in enumerate(((3, half, 2), (half, half, 1), (half, width, 1)), 1):
            self.add_module(f"conv{number}", nn.Conv2d(given, made, 3, stride, padding=1, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(made))
            self.add_module(f"act{number}", nn.ReLU(inplace=True))
        self.avgpool = nn.AvgPool2d(2)
        self.layer1 = nn.Sequential(TinyBottleneck(width, width, 1))
        for number in (2, 3, 4):
            inside = width << (number - 1)
            self.add_module(f"layer{number}", nn.Sequential(TinyBottleneck(EXPANSION * inside // 2, inside, 2)))


class QuickGELU(nn.Module):
    """CLIP's activation: x sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * torch.sigmoid(1.702 * x)


class TinyTextBlock(nn.Module):
    """The layers of a block of CLIP's text transformer; `language.py` runs them."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads)
        self.ls_1, self.ls_2 = nn.Identity(), nn.Identity()
        layers: dict[str, nn.Module] = {
            "c_fc": nn.Linear(width, 4 * width),
            "gelu": QuickGELU(),
            "c_proj": nn.Linear(4 * width, width),
        }
        self.mlp = nn.Sequential(OrderedDict(layers))
        deviation = width**-0.5
        nn.init.normal_(self.attn.in_proj_weight, std=deviation)
        for projection in (self.attn.out_proj, layers["c_proj"]):
            nn.init.normal_(cast(nn.Linear, projection).weight, std=deviation * (2 * blocks) ** -0.5)
        nn.init.normal_(cast(nn.Linear, layers["c_fc"]).weight, std=(2 * width) ** -0.5)


class TinyText(nn.Module):
    """The blocks of CLIP's text transformer."""

    def __init__(self, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(TinyTextBlock(width, heads, blocks) for _ in range(blocks))


class TinyClip(nn.Module):
    """CLIP's parts: `visual`, and what `Language` takes of the text half.

    Args:
        image_width: as of `TinyResNet`.
        text_width, text_heads, text_blocks: of the text transformer.
        embed_dim: length of a text feature.
    """

    context_length = 77
    text_pool_type = "argmax"

    def __init__(self, image_width: int, text_width: int, text_heads: int, text_blocks: int, embed_dim: int) -> None:
        super().__init__()
        self.visual = TinyResNet(image_width)
        self.transformer = TinyText(text_width, text_heads, text_blocks)
        self.token_embedding = nn.Embedding(VOCABULARY, text_width)
        self.positional_embedding = nn.Parameter(torch.empty(self.context_length, text_width))
        self.ln_final = nn.LayerNorm(text_width)
        self.text_projection = nn.Parameter(torch.empty(text_width, embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=text_width**-0.5)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width)."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        return cast(Tensor, self.proj(attended.transpose(1, 2).flatten(2)))


class TinyBlock(nn.Module):
    """A block of a vision transformer, norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        layers: dict[str, nn.Module] = {
            "fc1": nn.Linear(width, 4 * width),
            "act": nn.GELU(),
            "fc2": nn.Linear(4 * width, width),
        }
        self.mlp = nn.Sequential(OrderedDict(layers))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width)."""
        x = x + self.attn(self.norm1(x))
        return x + cast(Tensor, self.mlp(self.norm2(x)))


class _PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int, side: int) -> None:
        super().__init__()
        self.patch_size = (patch, patch)
        self.num_patches = (side // patch) ** 2
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h, w, width)."""
        return cast(Tensor, self.proj(image).permute(0, 2, 3, 1))


class TinyDino(nn.Module):
    """A vision transformer of DINO's kind, for images of any size.

    Args:
        width, blocks, heads: of the transformer.
        patch: pixels of a patch's side.
        side: pixels of the square images that its position embeddings are for; they are resized for others.
    """

    num_prefix_tokens = 1

    def __init__(self, width: int, blocks: int, heads: int, patch: int, side: int = 224) -> None:
        super().__init__()
        self.num_features = width
        self.pretrained_cfg: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        self.patch_embed = _PatchEmbed(width, patch, side)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.patch_embed.num_patches, width))
        self.blocks = nn.ModuleList(TinyBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self._start_positions()

    @torch.no_grad()
    def _start_positions(self) -> None:
        """Position embeddings start as sines and cosines of amplitude 0.5 rather than as random numbers.

        A pretrained DINO knows where its patches lie. A DINO that does not know it takes long to learn that the road at
        the bottom of an image is near: it first takes dark for near.
        """
        side, width = round(self.patch_embed.num_patches**0.5), self.num_features
        bands = 10000.0 ** -(torch.arange(width // 4) / (width // 4))
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        angles = torch.stack([rows, columns], dim=-1).reshape(-1, 2, 1) * bands
        places = torch.stack([angles.sin(), angles.cos()], dim=1).flatten(1)
        self.pos_embed[0, 1:] = 0.5 * places

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Adds class token and positions, resized as timm does: patches (B, h, w, C) -> (B, 1 + h w, C)."""
        batch, height, width, channels = x.shape
        side = round(self.patch_embed.num_patches**0.5)
        spatial = self.pos_embed[:, 1:]
        if is_exporting() or (height, width) != (side, side):
            grid = spatial.float().reshape(1, side, side, channels).permute(0, 3, 1, 2)
            grid = F.interpolate(grid, (height, width), mode="bicubic", antialias=True)
            spatial = grid.permute(0, 2, 3, 1).flatten(1, 2).to(spatial.dtype)
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), x.flatten(1, 2)], dim=1)
        return tokens + torch.cat([self.pos_embed[:, :1], spatial], dim=1)

    def forward_intermediates(self, image: Tensor, indices: Sequence[int], **_: bool) -> list[tuple[Tensor, Tensor]]:
        """timm's method, as `DinoTower` asks for it: with prefix tokens and the last norm, and nothing else.

        Args:
            image: (B, 3, h patch, w patch).
            indices: of the blocks, ascending.

        Returns:
            Of each block, the map (B, C, h, w) and the class token (B, 1, C).
        """
        patches = self.patch_embed(image)
        grid, x = patches.shape[1:3], self._pos_embed(patches)
        found: list[tuple[Tensor, Tensor]] = []
        for index in range(indices[-1] + 1):
            x = self.blocks[index](x)
            if index in indices:
                normed = self.norm(x)
                spatial = normed[:, 1:].unflatten(1, grid).permute(0, 3, 1, 2).contiguous()
                found.append((spatial, normed[:, :1]))
        return found
