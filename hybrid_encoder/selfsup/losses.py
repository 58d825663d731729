"""The losses of self-supervised depth, as pure functions (METHOD, section 4; Monodepth2, section 3).

The target's SSIM statistics are computed once and serve every source, scale and the identity loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_C1 = 0.01**2
_C2 = 0.03**2
SSIM_WEIGHT = 0.85


@dataclass(frozen=True)
class Target:
    """An image to be reconstructed, (B, 3, H, W), with its 3x3 means and variances for SSIM (None without SSIM)."""

    image: Tensor
    mean: Tensor | None
    variance: Tensor | None

    @classmethod
    def of(cls, image: Tensor, ssim: bool = True) -> Target:
        """Prepares a target once for many comparisons."""
        if not ssim:
            return cls(image, None, None)
        mean, square = _window_mean(torch.cat([image, image.square()], dim=1)).chunk(2, dim=1)
        return cls(image, mean, square - mean.square())


def ssim_loss(target: Target, predicted: Tensor) -> Tensor:
    """(1 - SSIM) / 2 over 3x3 windows, in [0, 1]: (B, 3, H, W) -> (B, 3, H, W)."""
    if target.mean is None or target.variance is None:
        raise ValueError("this target was prepared without SSIM")
    statistics = torch.cat([predicted, predicted.square(), predicted * target.image], dim=1)
    mean, square, product = _window_mean(statistics).chunk(3, dim=1)
    variance = square - mean.square()
    covariance = product - mean * target.mean
    numerator = (2 * mean * target.mean + _C1) * (2 * covariance + _C2)
    denominator = (mean.square() + target.mean.square() + _C1) * (variance + target.variance + _C2)
    return ((1 - numerator / denominator) / 2).clamp(0, 1)


def reprojection_loss(target: Target, predicted: Tensor) -> Tensor:
    """0.85 SSIM + 0.15 L1, averaged over channels; L1 alone for a target without SSIM: (B, 3, H, W) -> (B, 1, H, W)."""
    difference = (target.image - predicted).abs().mean(1, keepdim=True)
    if target.mean is None:
        return difference
    return SSIM_WEIGHT * ssim_loss(target, predicted).mean(1, keepdim=True) + (1 - SSIM_WEIGHT) * difference


@dataclass(frozen=True)
class Photometric:
    """`loss`: scalar. `chosen`: (B, 1, H, W), True where a warped frame explains the pixel better than standing still
    does."""

    loss: Tensor
    chosen: Tensor


def minimum_reprojection(
    reprojections: Tensor, identities: Tensor | None, average: bool = False, over_chosen: bool = False
) -> Photometric:
    """Per-pixel minimum over source frames, with auto-masking of pixels that do not move (Monodepth2, equations 4 and
    5).

    Args:
        reprojections: (B, S, H, W), losses of the S warped sources.
        identities: (B, S, H, W), losses of the unwarped sources, ties already broken by noise; None: no auto-masking.
        average: average over sources in place of the minimum.
        over_chosen: the loss is the mean over the chosen pixels, as in ManyDepth; else over all pixels, where the
            others count with their identity loss, as in Monodepth2.
    """
    best = reprojections.mean(1, keepdim=True) if average else reprojections.amin(1, keepdim=True)
    if identities is None:
        return Photometric(best.mean(), torch.ones_like(best, dtype=torch.bool))
    still = identities.mean(1, keepdim=True) if average else identities.amin(1, keepdim=True)
    chosen = best < still
    if over_chosen:
        return Photometric(torch.where(chosen, best, 0).sum() / (chosen.sum() + 1e-7), chosen)
    return Photometric(torch.minimum(best, still).mean(), chosen)


def smoothness_loss(disp: Tensor, image: Tensor) -> Tensor:
    """Edge-aware smoothness of mean-normalised disparity: (B, 1, H, W) and (B, 3, H, W) -> scalar (Monodepth2,
    equation 3)."""
    disp = disp / (disp.mean((2, 3), keepdim=True) + 1e-7)
    total = disp.new_zeros(())
    for dim in (2, 3):
        edge = image.diff(dim=dim).abs().mean(1, keepdim=True)
        total = total + (disp.diff(dim=dim).abs() * torch.exp(-edge)).mean()
    return total


def text_bin_loss(logits: Tensor, depth: Tensor, min_depth: float, max_depth: float) -> Tensor:
    """Pixel-wise text supervision: a pixel's K logits should pick the bin of its predicted depth.

    The K tokens stand for K bins, evenly spaced in log depth, near to far. The depth is the target, so no gradient
    flows to it: language learns to name what the decoder measures.

    Args:
        logits: (B, K, h, w), 100 x cosine.
        depth: (B, 1, H, W), resized to the logits' grid.
        min_depth, max_depth: the bins' range.

    Returns:
        Scalar cross entropy, in nats.
    """
    bins = logits.shape[1]
    small = F.interpolate(depth.detach().log(), logits.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    low, high = torch.tensor([min_depth, max_depth]).log().tolist()
    index = ((small - low) / (high - low) * bins).long().clamp(0, bins - 1)
    return F.cross_entropy(logits.float(), index)


def _window_mean(x: Tensor) -> Tensor:
    """3x3 means, reflection-padded: (B, C, H, W) -> same."""
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
