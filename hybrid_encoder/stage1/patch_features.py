"""Patch features at image points, read from the fused levels: all patches of a batch in one call.

docs/METHOD.md, section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.language import LOGIT_SCALE, nearest_index

REGION = 32
"""Side of the averaged region, in pixels of the image (the RoI variant)."""


def patch_features(
    levels: list[Tensor],
    points: Tensor,
    image_index: Tensor,
    image_size: tuple[int, int],
    width: int,
    region: bool = False,
) -> Tensor:
    """Unit features of points: the four fused levels at each point's cell, concatenated and resized (nearest) to
    `width`.

    Args:
        levels: four maps (B, C, h, w) on one grid.
        points: (N, n, 2) x, y in pixels of the image.
        image_index: (N,) the image that each sequence lies in.
        image_size: (H, W).
        width: length D of a feature, the text's.
        region: average over a 32 x 32 pixel region (RoI align) in place of the one cell.

    Returns:
        (N, n, D), each of length 1.
    """
    # Nearest resizing picks D of the 4 C channels: pick them before gathering.
    stacked = torch.cat(levels, dim=1)
    stacked = stacked[:, nearest_index(stacked.shape[1], width, stacked.device)]
    rows, columns = stacked.shape[-2:]
    to_x, to_y = columns / image_size[1], rows / image_size[0]
    if region:
        from torchvision.ops import roi_align  # slow to import

        x, y = points.unbind(-1)
        half = REGION / 2
        corners = torch.stack([(x - half) * to_x, (y - half) * to_y, (x + half) * to_x, (y + half) * to_y], dim=-1)
        owner = image_index[:, None, None].expand(-1, points.shape[1], 1).to(points.dtype)
        boxes = torch.cat([owner, corners], dim=-1).flatten(0, 1)
        with torch.autocast(stacked.device.type, enabled=False):  # bfloat16 cannot count images beyond 256
            features = roi_align(stacked.float(), boxes.float(), output_size=1, aligned=True).flatten(1)
        features = features.view(*points.shape[:2], width)
    else:
        x = (points[..., 0] * to_x).long().clamp(0, columns - 1)
        y = (points[..., 1] * to_y).long().clamp(0, rows - 1)
        features = stacked[image_index[:, None], :, y, x]
    return F.normalize(features.float(), dim=-1)


def patch_logits(features: Tensor, text: Tensor) -> Tensor:
    """(N, n, D) unit patch features and (m, D) unit text features -> (N, n, m), 100 x cosine.

    In float32 even under autocast: bfloat16 rounds logits to steps of 0.5, and the ranking loss compares them.
    """
    with torch.autocast(features.device.type, enabled=False):
        return LOGIT_SCALE * features @ text.T
