"""Joins the maps of CLIP and DINO: four fused levels on one grid (docs/METHOD.md, section 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fusion(nn.Module):
    """Brings each image-tower map to the grid and to `channels`, and concatenates it after the DINO map of its level.

    Kinds: "interp_conv1x1" resizes (nearest), then a 1x1 convolution, none where the level has `channels` already;
    "convs2_interp" convolves at the map's own stride (3x3 stride 2 for levels 1 and 2, 1x1 for level 3, transposed
    3x3 stride 2 for level 4), then resizes (nearest).

    Args:
        image_channels, dino_channels: of each tower's four maps; None: there is no such tower.
        channels: width that the image tower's maps are projected to.
        kind: as above.
        output_padding: whether the transposed convolution adds a row and a column, which makes its map exactly twice as
            large; False as released: (2 h - 1) x (2 w - 1).

    Attributes:
        channels: channels of the four fused levels.
    """

    def __init__(
        self,
        image_channels: tuple[int, ...] | None,
        dino_channels: tuple[int, ...] | None,
        channels: int,
        kind: str,
        output_padding: bool = True,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.project = nn.ModuleList()
        for level, given in enumerate(image_channels or ()):
            self.project.append(_projection(kind, level, given, channels, output_padding))
        own = (channels if image_channels else 0,) * 4
        self.channels = tuple(d + c for d, c in zip(dino_channels or (0,) * 4, own, strict=True))

    def forward(
        self, image_maps: list[Tensor] | None, dino_maps: list[Tensor] | None, grid: tuple[int, int]
    ) -> list[Tensor]:
        """Four maps of each tower at their own sizes -> four levels (B, C_dino + C, h, w) on the grid (h, w)."""
        levels = []
        for level in range(4):
            parts = []
            if dino_maps is not None:
                parts.append(_resize(_as_autocast(dino_maps[level]), grid))
            if image_maps is not None:
                project, given = self.project[level], image_maps[level]
                # A 1x1 convolution and nearest resizing commute: convolve where there are fewer pixels.
                if self.kind == "interp_conv1x1" and given.shape[-1] > grid[1]:
                    parts.append(project(_resize(given, grid)))
                else:
                    parts.append(_resize(project(given), grid))
            levels.append(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])
        return levels


def _projection(kind: str, level: int, given: int, channels: int, output_padding: bool) -> nn.Module:
    if kind == "interp_conv1x1":
        return nn.Identity() if given == channels else nn.Conv2d(given, channels, 1)
    if level < 2:
        return nn.Conv2d(given, channels, 3, stride=2, padding=1)
    if level == 2:
        return nn.Conv2d(given, channels, 1)
    return nn.ConvTranspose2d(given, channels, 3, stride=2, padding=1, output_padding=int(output_padding))


def _resize(x: Tensor, grid: tuple[int, int]) -> Tensor:
    return x if x.shape[-2:] == grid else F.interpolate(x, grid, mode="nearest")


def _as_autocast(x: Tensor) -> Tensor:
    """The map in autocast's precision: norms return float32 there, and concatenation would make the whole level
    float32, which nothing needs."""
    device = x.device.type
    enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return x.to(torch.get_autocast_dtype(device)) if enabled else x
