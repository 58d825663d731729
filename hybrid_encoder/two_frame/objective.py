"""The loss of a two-frame depth net: photometric where matching can be trusted, the teacher's depth where it cannot.

ManyDepth (arXiv 2104.14540), sections 3.4 and 3.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.sample import FrameId
from ..model.disparity import disp_to_depth
from ..stage2.losses import smoothness_loss
from ..stage2.objective import ObjectiveOptions, View

AGREEMENT = 2.0
"""Matching and teacher agree where their depths differ by less than this factor."""


@dataclass(frozen=True)
class TwoFrameObjective:
    """The loss of a batch and what it was made of.

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
        """What is logged."""
        return {
            "loss": self.loss,
            "photometric": self.photometric,
            "consistency": self.consistency,
            "smoothness": self.smoothness,
            "consistency_mask_share": self.consistency_mask.float().mean(),
        }


def matching_agrees(lowest_cost: Tensor, teacher_depth: Tensor) -> Tensor:
    """Where the best-matching depth is within a factor of `AGREEMENT` of the teacher's: False on what moves.

    Args:
        lowest_cost: (B, h, w), 1 / depth.
        teacher_depth: (B, 1, H, W).

    Returns:
        (B, 1, H, W) bool.
    """
    ratio = teacher_depth * F.interpolate(lowest_cost[:, None], teacher_depth.shape[-2:], mode="nearest")
    return (ratio < AGREEMENT) & (ratio > 1 / AGREEMENT)


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
        consistency_mask: (B, 1, H, W) bool; elsewhere the depth is to be the teacher's, who knows about pixels that do
            not move.
        options: weights and switches.
    """
    height, width = view.target.image.shape[-2:]
    poses = {frame_id: pose.detach() for frame_id, pose in poses.items()}
    with torch.autocast(view.K.device.type, enabled=False):
        total = view.K.new_zeros(())
        photometric, consistency, smoothness = total, total, total
        finest = min(scale for _, scale in disparities)
        for (_, scale), disp in disparities.items():
            full = disp
            if disp.shape[-2:] != (height, width):
                full = F.interpolate(disp, (height, width), mode="bilinear", align_corners=False)
            _, depth = disp_to_depth(full, options.min_depth, options.max_depth)
            losses = view.reprojections(depth, poses)
            best = losses.mean(1, keepdim=True) if options.avg_reprojection else losses.amin(1, keepdim=True)
            explained = torch.where(consistency_mask, best, 0).sum() / (consistency_mask.sum() + 1e-7)
            follows = torch.where(consistency_mask, 0, (depth - teacher_depths[scale].detach()).abs()).mean()
            image = view.target.image if scale == 0 else F.avg_pool2d(view.target.image, 2**scale)
            smooth = smoothness_loss(disp, image)
            total = total + explained + follows + options.disparity_smoothness * smooth / 2**scale
            photometric, consistency = photometric + explained.detach(), consistency + follows.detach()
            smoothness = smoothness + smooth.detach()
            if scale == finest:
                finest_depth = depth.detach()
        count = len(disparities)
        return TwoFrameObjective(
            total / count, photometric / count, consistency / count, smoothness / count, finest_depth, consistency_mask
        )
