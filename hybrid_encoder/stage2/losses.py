"""The losses of self-supervised depth, as pure functions (docs/METHOD.md, section 4).

Monodepth2 (https://arxiv.org/abs/1806.01260), section 3. `photometric_error` is the formula to read; what trains is its
kernel in `ssim_kernel`, which is equal and faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
"""The constants that keep SSIM's denominators off 0, for images in [0, 1]."""
SSIM_WEIGHT = 0.85
"""Share of SSIM in the photometric error; the rest is L1."""


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of 3x3 windows, the images reflected at their borders.

    >>> image = torch.rand(1, 3, 8, 8)
    >>> bool((ssim(image, image) > 0.999).all())
    True

    Args:
        first, second: (B, C, H, W) in [0, 1].

    Returns:
        (B, C, H, W), at most 1, where both windows are equal.
    """

    def window_mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, stride=1)

    mean1, mean2 = window_mean(first), window_mean(second)
    variance1 = window_mean(first**2) - mean1**2
    variance2 = window_mean(second**2) - mean2**2
    covariance = window_mean(first * second) - mean1 * mean2
    luminance = (2 * mean1 * mean2 + SSIM_C1) / (mean1**2 + mean2**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (variance1 + variance2 + SSIM_C2)
    return luminance * structure


def photometric_error(target: Tensor, predicted: Tensor, use_ssim: bool = True) -> Tensor:
    """0.85 (1 - SSIM) / 2 + 0.15 L1, averaged over channels; or L1 alone (Monodepth2, section 3.1).

    >>> image = torch.full((1, 3, 4, 4), 0.5)
    >>> photometric_error(image, image + 0.25, use_ssim=False).unique().item()
    0.25

    Args:
        target, predicted: (B, 3, H, W) in [0, 1].

    Returns:
        (B, 1, H, W).
    """
    l1 = (target - predicted).abs()
    if not use_ssim:
        return l1.mean(1, keepdim=True)
    unlike = ((1 - ssim(target, predicted)) / 2).clamp(0, 1)
    return (SSIM_WEIGHT * unlike + (1 - SSIM_WEIGHT) * l1).mean(1, keepdim=True)


@dataclass(frozen=True)
class Photometric:
    """`loss`: scalar. `auto_mask`: (B, 1, H, W), True where a warped frame explains the pixel better than standing
    still does."""

    loss: Tensor
    auto_mask: Tensor


def minimum_reprojection(
    reprojections: Tensor, identities: Tensor | None, average: bool = False, mean_over_mask: bool = False
) -> Photometric:
    """Per-pixel minimum over source frames, with auto-masking of pixels that do not move (Monodepth2, equations 4 and
    5).

    >>> warped = torch.tensor([[[[0.5, 0.1]], [[0.2, 0.4]]]])
    >>> still = torch.tensor([[[[0.3, 0.05]], [[0.9, 0.9]]]])
    >>> best = minimum_reprojection(warped, still)
    >>> best.loss.item(), best.auto_mask.flatten().tolist()
    (0.125, [True, False])

    Args:
        reprojections: (B, S, H, W), losses of the S warped sources.
        identities: (B, S, H, W), losses of the unwarped sources, ties already broken by noise; None: no auto-masking.
        average: average over sources in place of the minimum.
        mean_over_mask: the loss is the mean over the mask, as in ManyDepth; else over all pixels, where the others
            count with their identity loss, as in Monodepth2.
    """
    best = reprojections.mean(1, keepdim=True) if average else reprojections.amin(1, keepdim=True)
    if identities is None:
        return Photometric(best.mean(), torch.ones_like(best, dtype=torch.bool))
    still = identities.mean(1, keepdim=True) if average else identities.amin(1, keepdim=True)
    auto_mask = ~(best >= still)  # written so that a non-finite error reaches the loss
    if mean_over_mask:
        return Photometric(torch.where(auto_mask, best, 0).sum() / (auto_mask.sum() + 1e-7), auto_mask)
    return Photometric(torch.minimum(best, still).mean(), auto_mask)


def smoothness_loss(disp: Tensor, image: Tensor) -> Tensor:
    """Edge-aware smoothness of mean-normalised disparity: (B, 1, H, W) and (B, 3, H, W) -> scalar (Monodepth2,
    equation 3).

    >>> smoothness_loss(torch.full((1, 1, 4, 4), 7.0), torch.rand(1, 3, 4, 4)).item()
    0.0
    """
    disp = disp / (disp.mean((2, 3), keepdim=True) + 1e-7)
    total = disp.new_zeros(())
    for dim in (2, 3):
        edge = image.diff(dim=dim).abs().mean(1, keepdim=True)
        total = total + (disp.diff(dim=dim).abs() * torch.exp(-edge)).mean()
    return total


def text_bin_loss(logits: Tensor, depth: Tensor, min_depth: float, max_depth: float) -> Tensor:
    """Pixel-wise text supervision: a pixel's K logits should pick the bin of its predicted depth.

    >>> nearest = torch.tensor([[[[50.0]], [[0.0]]]])
    >>> text_bin_loss(nearest, torch.tensor([[[[1.0]]]]), min_depth=0.1, max_depth=100.0).item() < 1e-6
    True

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
    low, high = math.log(min_depth), math.log(max_depth)
    index = ((small - low) / (high - low) * bins).long().clamp(0, bins - 1)
    return F.cross_entropy(logits.float(), index)
