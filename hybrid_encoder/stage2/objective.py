"""From disparities and poses to the self-supervised loss of a batch: view synthesis, minimum reprojection, smoothness.

docs/METHOD.md, section 4; Monodepth2 (https://arxiv.org/abs/1806.01260), section 3. Shared by all trainers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.sample import FrameId
from ..model.disparity import disp_to_depth
from .geometry import project, warp
from .losses import minimum_reprojection, smoothness_loss
from .options import ObjectiveOptions
from .ssim_kernel import Target, reprojection_loss

TIE_BREAK = 1e-5
"""Noise on the identity loss, so that a pixel that is equally good moved and unmoved counts as unmoved half the
time."""


@dataclass(frozen=True)
class Objective:
    """The loss of a batch and what it was made of.

    Attributes:
        loss: scalar, averaged over scales.
        photometric, smoothness: scalars, averaged over scales, before weighting.
        depth: (B, 1, H, W) of the finest scale.
        auto_mask: (B, 1, H, W) bool, the pixels that auto-masking left in at the finest scale.
    """

    loss: Tensor
    photometric: Tensor
    smoothness: Tensor
    depth: Tensor
    auto_mask: Tensor

    def scalars(self) -> dict[str, Tensor]:
        """What is logged."""
        return {
            "loss": self.loss,
            "photometric": self.photometric,
            "smoothness": self.smoothness,
            "auto_mask_share": self.auto_mask.float().mean(),
        }


@dataclass(frozen=True)
class View:
    """A batch as the loss needs it, prepared once for all scales.

    Attributes:
        target: frame 0 with its SSIM statistics.
        sources: the other frames, (B, 3, H, W) each.
        identities: (B, S, H, W) losses of the sources as they are; None without auto-masking.
        K: (B, 3, 3).
    """

    target: Target
    sources: dict[FrameId, Tensor]
    identities: Tensor | None
    K: Tensor

    @classmethod
    def of(cls, frames: dict[FrameId, Tensor], K: Tensor, options: ObjectiveOptions) -> View:
        """Prepares frames (B, 3, H, W) in [0, 1], 0 among them, for `self_supervised_loss`."""
        target = Target.of(frames[0], ssim=not options.no_ssim)
        sources = {frame_id: image for frame_id, image in frames.items() if frame_id != 0}
        identities = None
        if not options.disable_automasking:
            identities = torch.cat([reprojection_loss(target, source) for source in sources.values()], dim=1)
            identities = identities + TIE_BREAK * torch.randn_like(identities)
        return cls(target, sources, identities, K)

    def reprojections(self, depth: Tensor, poses: dict[FrameId, Tensor]) -> Tensor:
        """(B, 1, H, W) depth and (B, 4, 4) poses from frame 0 to each source -> (B, S, H, W) losses of the warped
        sources."""
        losses = []
        for frame_id, source in self.sources.items():
            predicted = warp(source, project(depth, self.K, poses[frame_id]))
            losses.append(reprojection_loss(self.target, predicted))
        return torch.cat(losses, dim=1)


@dataclass(frozen=True)
class ScaleMeans:
    """The loss over all scales of a net's disparities.

    Attributes:
        loss: scalar, averaged over scales.
        terms: scalars by name, averaged over scales, without gradient: the data terms, and "smoothness" before
            weighting.
        depth: (B, 1, H, W) of the finest scale, without gradient.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    depth: Tensor


def mean_over_scales(
    disparities: dict[tuple[str, int], Tensor],
    view: View,
    options: ObjectiveOptions,
    data_terms: Callable[[int, Tensor], dict[str, Tensor]],
) -> ScaleMeans:
    """Data terms and smoothness of every scale, compared at the full resolution.

    Args:
        disparities: {("disp", s): (B, 1, H / 2^s, W / 2^s)}.
        view: the frames.
        options: weights and depth limits.
        data_terms: from a scale and its depth, resized to (B, 1, H, W), to scalars by name, which are added up.
    """
    height, width = view.target.image.shape[-2:]
    total = zero = view.K.new_zeros(())
    means: dict[str, Tensor] = {}
    finest = min(scale for _, scale in disparities)
    for (_, scale), disp in disparities.items():
        full = disp
        if disp.shape[-2:] != (height, width):
            full = F.interpolate(disp, (height, width), mode="bilinear", align_corners=False)
        _, depth = disp_to_depth(full, options.min_depth, options.max_depth)
        terms = data_terms(scale, depth)
        image = view.target.image if scale == 0 else F.avg_pool2d(view.target.image, 2**scale)
        smooth = smoothness_loss(disp, image)
        total = sum(terms.values(), total) + options.disparity_smoothness * smooth / 2**scale
        for name, value in {**terms, "smoothness": smooth}.items():
            means[name] = means.get(name, zero) + value.detach()
        if scale == finest:
            finest_depth = depth.detach()
    count = len(disparities)
    return ScaleMeans(total / count, {name: value / count for name, value in means.items()}, finest_depth)


def self_supervised_loss(
    disparities: dict[tuple[str, int], Tensor], view: View, poses: dict[FrameId, Tensor], options: ObjectiveOptions
) -> Objective:
    """The loss of Monodepth2, every scale compared at the full resolution.

    Args:
        disparities: {("disp", s): (B, 1, H / 2^s, W / 2^s)}.
        view: the frames.
        poses: (B, 4, 4) from frame 0 to each source.
        options: weights and switches.
    """
    masks: dict[int, Tensor] = {}

    def photometric(scale: int, depth: Tensor) -> dict[str, Tensor]:
        best = minimum_reprojection(
            view.reprojections(depth, poses), view.identities, options.avg_reprojection, options.mean_over_mask
        )
        masks[scale] = best.auto_mask
        return {"photometric": best.loss}

    with torch.autocast(view.K.device.type, enabled=False):
        means = mean_over_scales(disparities, view, options, photometric)
    return Objective(means.loss, means.terms["photometric"], means.terms["smoothness"], means.depth, masks[min(masks)])
