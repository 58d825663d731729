"""The towers that look at the image: one backbone each, any image size, own normalisation, frozen parts.

Every tower takes `image: (B, 3, H, W)`, RGB in [0, 1], H and W multiples of 32. `ConvTower` gives four maps at
strides 4, 8, 16, 32, and can be entered after the first one, which is where a matching encoder inserts its cost
volume. `ClipVitTower` and `DinoTower` give four maps on one patch grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .pixels import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, PixelCheck

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer

Normalization = tuple[tuple[float, ...], tuple[float, ...]]


class Tower(nn.Module):
    """Common to all towers: normalisation as buffers, saved with the weights that it belongs to, and frozen parts that
    stay in eval mode.

    Attributes:
        channels: channels of the four maps.
    """

    channels: tuple[int, ...]
    mean: Tensor
    std: Tensor

    def __init__(self, normalization: Normalization | None) -> None:
        super().__init__()
        mean, std = normalization or ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self._frozen: list[nn.Module] = []
        self._check_pixels = PixelCheck()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("mean", "std"):  # which files of others, and of our first versions, do not hold
            state_dict.setdefault(f"{prefix}{name}", getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def normalize(self, image: Tensor) -> Tensor:
        """The image with this tower's mean and standard deviation, same shape.

        Raises:
            UserError: pixels that are not in [0, 1], as `PixelCheck` sees them.
        """
        self._check_pixels(image)
        return (image - self.mean) / self.std

    def freeze(self, *modules: nn.Module) -> None:
        """No gradients for these modules, and eval mode even under `.train()`."""
        for module in modules:
            module.requires_grad_(False)
            module.eval()
            self._frozen.append(module)

    def train(self, mode: bool = True) -> Tower:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


class ConvTower(Tower):
    """A ResNet seen as a stem with its first layer (stride 4) and three further layers (strides 8, 16, 32).

    Serves CLIP's ModifiedResNet and timm's ResNets.
    """

    def __init__(
        self, stem: nn.Module, layers: list[nn.Module], channels: tuple[int, ...], normalization: Normalization | None
    ) -> None:
        super().__init__(normalization)
        self.stem = stem
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.channels = channels

    def shallow(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C1, H/4, W/4), the map that a cost volume is built on."""
        return cast(Tensor, self.layer1(self.stem(self.normalize(image))))

    def deep(self, shallow: Tensor) -> list[Tensor]:
        """(B, C1, H/4, W/4) -> three maps at strides 8, 16, 32."""
        second = self.layer2(shallow)
        third = self.layer3(second)
        return [second, third, self.layer4(third)]

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps at strides 4, 8, 16, 32."""
        shallow = self.shallow(image)
        return [shallow, *self.deep(shallow)]


class _ClipStem(nn.Module):
    """ModifiedResNet's three convolutions and average pool, under OpenAI's tensor names."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        for name in ("conv1", "bn1", "act1", "conv2", "bn2", "act2", "conv3", "bn3", "act3", "avgpool"):
            self.add_module(name, getattr(visual, name))

    def forward(self, image: Tensor) -> Tensor:
        for module in self.children():
            image = module(image)
        return image


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
        if tuple(grid) != tuple(self.grid):
            spatial = position[1:].T.reshape(1, -1, *self.grid)
            spatial = F.interpolate(spatial, grid, mode="bicubic", antialias=True, align_corners=False)
            position = torch.cat([position[:1], spatial.flatten(2)[0].T])
        return cast("list[Tensor]", self.visual(image, position))


class _Intermediates(nn.Module):
    """open_clip's transformer up to four of its blocks, with the position embeddings given.

    Its own forward reads them off the module, where other sizes would have to be put for the time of a call, in sight
    of other threads.
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


@dataclass
class DinoOutput:
    """What DINO sees: `maps`, four (B, C, h, w), and `class_token` (B, C) after the last of their blocks and norm."""

    maps: list[Tensor]
    class_token: Tensor


class DinoTower(Tower):
    """A DINO vision transformer (v1, v2, v3) of timm; four maps with the final norm applied to each.

    Blocks after the last map are not run. `train_blocks` counts back from it.
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
        if not all(hasattr(vit, name) for name in ("blocks", "patch_embed", "forward_intermediates")):
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
            # An instance attribute shadows timm's method: the only step in which the two implementations differ.
            vit._pos_embed = partial(_facebook_position_embedding, vit)  # type: ignore[assignment]
        used = self.blocks[-1] + 1
        if train_blocks < depth:
            self.freeze(vit)
            for block in list(vit.blocks)[max(used - train_blocks, 0) : used]:  # type: ignore[arg-type]
                block.requires_grad_(True)
        self.freeze(*vit.blocks[used:])  # type: ignore[index]

    def forward(self, image: Tensor) -> DinoOutput:
        """(B, 3, H, W) -> maps (B, C, h, w) with h = round(H / patch), class token (B, C)."""
        image, _ = to_patch_grid(self.normalize(image), self.patch)
        taken = self.vit.forward_intermediates(  # type: ignore[operator]
            image,
            indices=self.blocks,
            return_prefix_tokens=True,
            norm=True,
            stop_early=True,
            intermediates_only=True,
        )
        return DinoOutput([spatial for spatial, _ in taken], taken[-1][1][:, 0])


def _facebook_position_embedding(vit: nn.Module, x: Tensor) -> Tensor:
    """Adds class token and position embeddings as Facebook's DINOv2 does: bicubic, not antialiased, scale offset 0.1.

    Args:
        x: (B, h, w, C) patches.

    Returns:
        (B, 1 + h w, C).
    """
    batch, height, width, channels = x.shape
    if torch.jit.is_tracing():  # where sizes are tensors, which interpolate takes for no scale
        height, width = int(height), int(width)
    position = cast(Tensor, vit.pos_embed)
    side = math.isqrt(int(position.shape[1]) - 1)
    spatial = position[:, 1:].reshape(1, side, side, channels).permute(0, 3, 1, 2)
    if (height, width) != (side, side):
        scale = ((height + 0.1) / side, (width + 0.1) / side)
        spatial = F.interpolate(spatial.float(), scale_factor=scale, mode="bicubic", antialias=False).to(spatial.dtype)
    spatial = spatial.flatten(2).transpose(1, 2)
    class_token = cast(Tensor, vit.cls_token).expand(batch, -1, -1) + position[:, :1]
    return torch.cat([class_token, x.flatten(1, 2) + spatial], dim=1)


def to_patch_grid(image: Tensor, patch: int) -> tuple[Tensor, tuple[int, int]]:
    """The image resized (bilinear) to the nearest multiple of the patch size, and its grid (h, w)."""
    height, width = image.shape[-2:]
    # As round(height / patch): in whole numbers, since torch.jit.trace has tensors for sizes. Multiples of 32 are never
    # halfway between two multiples of a patch below 64.
    grid = (max((2 * height + patch) // (2 * patch), 1), max((2 * width + patch) // (2 * patch), 1))
    size = (grid[0] * patch, grid[1] * patch)
    if size != (height, width):
        image = F.interpolate(image, size, mode="bilinear", align_corners=False)
    return image, grid


def quarters(depth: int) -> tuple[int, ...]:
    """The last block of each quarter of a transformer, 0-based: 2, 5, 8, 11 of 12."""
    return tuple(depth * (i + 1) // 4 - 1 for i in range(4))


def choose_normalization(choice: str, own: Normalization) -> Normalization | None:
    """The mean and deviation of a tower under "own", "imagenet" or "none" (`HybridEncoderConfig.normalization`, and
    `normalization_of_dino`); None: values stay in [0, 1]."""
    return {"own": own, "imagenet": (IMAGENET_MEAN, IMAGENET_STD), "none": None}[choice]


def clip_image_tower(visual: nn.Module, normalization: str) -> Tower:
    """The image half of an open_clip model.

    Raises:
        UserError: an image tower of another family (timm trunks, ConvNeXt) that has no maps we know how to take.
    """
    own = (
        tuple(getattr(visual, "image_mean", None) or CLIP_MEAN),
        tuple(getattr(visual, "image_std", None) or CLIP_STD),
    )
    chosen = choose_normalization(normalization, own)
    if all(hasattr(visual, name) for name in ("conv3", "act3", "layer1", "layer4")):  # a ModifiedResNet
        layers: list[Any] = [getattr(visual, f"layer{number}") for number in (1, 2, 3, 4)]
        channels = tuple(layer[-1].conv3.out_channels for layer in layers)
        return ConvTower(_ClipStem(visual), layers, channels, chosen)
    from open_clip.transformer import VisionTransformer  # slow to import, and not needed by the tiny towers

    if isinstance(visual, VisionTransformer):
        return ClipVitTower(visual, quarters(len(visual.transformer.resblocks)), chosen)
    raise UserError(
        f"CLIP image tower {type(visual).__name__} is not supported: choose a ModifiedResNet (RN50) or ViT model"
    )


def timm_image_tower(model: nn.Module, normalization: str) -> ConvTower:
    """A timm ResNet in CLIP's place (the paper's ablation with ImageNet weights).

    Raises:
        UserError: a model without ResNet's stem and four layers.
    """
    missing = [name for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer4") if not hasattr(model, name)]
    if missing:
        raise UserError(
            f"image_tower {type(model).__name__} has no {', '.join(missing)}: choose a timm ResNet, "
            "e.g. resnet50.tv_in1k"
        )
    config = model.pretrained_cfg
    stem = nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool)  # type: ignore[arg-type]
    layers = [cast(nn.Module, getattr(model, f"layer{i}")) for i in (1, 2, 3, 4)]
    channels = tuple(int(info["num_chs"]) for info in model.feature_info[-4:])  # type: ignore[index]
    own = (tuple(config["mean"]), tuple(config["std"]))  # type: ignore[index]
    return ConvTower(stem, layers, channels, choose_normalization(normalization, own))
