"""The loss of a two-frame depth net: photometric where matching can be trusted, the teacher's depth where it cannot.

ManyDepth (https://arxiv.org/abs/2104.14540), sections 3.4 and 3.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.sample import FrameId
from ..stage2.objective import ObjectiveOptions, View, mean_over_scales
from .matching import Matched

AGREEMENT = 2.0
"""Matching and teacher agree where their depths differ by less than this factor."""


@dataclass(frozen=True)
class TwoFrameObjective:
    """The loss of a batch and its parts.

    Attributes:
        loss: scalar, averaged over scales.
        photometric, consistency, smoothness: scalars, averaged over scales, smoothness before weighting.
        depth: (B, 1, H, W) of the finest scale.
        consistency_mask: (B, 1, H, W) bool, pixels of the photometric loss; the others follow the teacher.
    """

    loss: Tensor
    photometric: Tensor
    consistency: Tensor
    smoothness: Tensor
    depth: Tensor
    consistency_mask: Tensor

    def scalars(self) -> dict[str, Tensor]:
        """The scalars that are logged."""
        return {
            "loss": self.loss,
            "photometric": self.photometric,
            "consistency": self.consistency,
            "smoothness": self.smoothness,
            "consistency_mask_share": self.consistency_mask.float().mean(),
        }


def matching_agrees(lowest_cost: Tensor, teacher_depth: Tensor) -> Tensor:
    """Where the best-matching depth is within a factor of `AGREEMENT` of the teacher's; it is not on moving objects.

    >>> teacher = torch.tensor([[[[4.0, 4.0]]]])
    >>> matching_agrees(1 / torch.tensor([[[5.0, 9.0]]]), teacher).tolist()
    [[[[True, False]]]]

    Args:
        lowest_cost: (B, h, w), 1 / depth.
        teacher_depth: (B, 1, H, W), in the unit of depth.

    Returns:
        (B, 1, H, W) bool.
    """
    ratio = teacher_depth * F.interpolate(lowest_cost[:, None], teacher_depth.shape[-2:], mode="nearest")
    return (ratio < AGREEMENT) & (ratio > 1 / AGREEMENT)


@torch.no_grad()
def find_consistency_mask(found: Matched, teacher_depth: Tensor) -> Tensor:
    """(B, 1, H, W) bool: all bins are seen, and matching agrees with the teacher's depth (B, 1, H, W)."""
    confident = F.interpolate(found.confidence[:, None], teacher_depth.shape[-2:], mode="nearest") > 0
    return confident & matching_agrees(found.lowest_cost, teacher_depth)


def two_frame_loss(
    disparities: dict[tuple[str, int], Tensor],
    view: View,
    poses: dict[FrameId, Tensor],
    teacher_depths: dict[int, Tensor],
    consistency_mask: Tensor,
    options: ObjectiveOptions,
) -> TwoFrameObjective:
    """The loss of ManyDepth's two-frame net, every scale compared at the full resolution.

    Args:
        disparities: {("disp", s): (B, 1, H / 2^s, W / 2^s)}.
        view: the frames.
        poses: (B, 4, 4) from frame 0 to each source; they get no gradient from here.
        teacher_depths: (B, 1, H, W) by scale; they get no gradient.
        consistency_mask: (B, 1, H, W) bool, pixels of the photometric loss; elsewhere the depth should equal the
            teacher's, which moving objects do not mislead.
        options: weights and switches.
    """
    poses = {frame_id: pose.detach() for frame_id, pose in poses.items()}

    def compare(scale: int, depth: Tensor) -> dict[str, Tensor]:
        losses = view.reprojections(depth, poses)
        best = losses.mean(1, keepdim=True) if options.avg_reprojection else losses.amin(1, keepdim=True)
        explained = torch.where(consistency_mask, best, 0).sum() / (consistency_mask.sum() + 1e-7)
        follows = torch.where(consistency_mask, 0, (depth - teacher_depths[scale].detach()).abs()).mean()
        return {"photometric": explained, "consistency": follows}

    with torch.autocast(view.K.device.type, enabled=False):
        means = mean_over_scales(disparities, view, options, compare)
    return TwoFrameObjective(**means.terms, loss=means.loss, depth=means.depth, consistency_mask=consistency_mask)
