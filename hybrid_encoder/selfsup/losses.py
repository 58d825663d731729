"""The losses of self-supervised depth, as pure functions (METHOD, section 4; Monodepth2, section 3).

The target's SSIM statistics are computed once and serve every source, scale and the identity loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_C1 = 0.01**2
_C2 = 0.03**2
SSIM_WEIGHT = 0.85


@dataclass(frozen=True)
class Target:
    """An image to be reconstructed, (B, 3, H, W), with its 3x3 means and variances for SSIM (None without SSIM).

    No gradient reaches it.
    """

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


def reprojection_loss(target: Target, predicted: Tensor) -> Tensor:
    """0.85 (1 - SSIM) / 2 + 0.15 L1, averaged over channels; L1 alone for a target without SSIM.

    SSIM is that of 3x3 windows; (B, 3, H, W) -> (B, 1, H, W).
    """
    if target.mean is None:
        return (target.image - predicted).abs().mean(1, keepdim=True)
    loss: Tensor = _Reprojection.apply(predicted, target.image, target.mean, target.variance)
    return loss


class _Reprojection(torch.autograd.Function):
    """The loss with its gradient in closed form: less than half of the memory and time that autograd takes."""

    @staticmethod
    def forward(ctx: Any, predicted: Tensor, image: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        statistics = _window_mean(torch.cat([predicted, predicted.square(), predicted * image], dim=1))
        ctx.save_for_backward(predicted, image, mean, variance, statistics)
        likeness = _Likeness(statistics, mean, variance)
        dissimilar = ((1 - likeness.ssim) / 2).clamp_(0, 1).mean(1, keepdim=True)
        return dissimilar.mul_(SSIM_WEIGHT).add_(
            (image - predicted).abs_().mean(1, keepdim=True), alpha=1 - SSIM_WEIGHT
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        predicted, image, mean, variance, statistics = ctx.saved_tensors
        likeness = _Likeness(statistics, mean, variance)
        grad = grad / predicted.shape[1]
        inside = likeness.ssim.abs() <= 1  # the clamp is flat elsewhere
        to_ssim = torch.where(inside, -SSIM_WEIGHT / 2 * grad, 0)
        by_statistics = torch.cat([to_ssim * part for part in likeness.derivatives()], dim=1)
        by_mean, by_square, by_product = _window_mean(by_statistics, adjoint=True).chunk(3, dim=1)
        by_l1 = (predicted - image).sign_().mul_((1 - SSIM_WEIGHT) * grad)
        found = by_l1.add_(by_mean).addcmul_(predicted, by_square, value=2).addcmul_(image, by_product)
        return found, None, None, None


class _Likeness:
    """SSIM of every pixel's window, and what it changes by.

    Args:
        statistics: (B, 9, H, W), window means of the prediction, of its square, and of its product with the target.
        mean, variance: (B, 3, H, W), of the target.
    """

    def __init__(self, statistics: Tensor, mean: Tensor, variance: Tensor) -> None:
        self.own, square, product = statistics.chunk(3, dim=1)
        self.mean = mean
        both, own_square = self.own * mean, self.own.square()
        self.luminance = both.mul(2).add_(_C1)
        self.contrast = (product - both).mul_(2).add_(_C2)
        self.luminance_scale = mean.square().add_(own_square).add_(_C1)
        self.contrast_scale = (square - own_square).add_(variance).add_(_C2)
        self.scales = self.luminance_scale * self.contrast_scale
        self.ssim = self.luminance * self.contrast / self.scales

    def derivatives(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of SSIM by the three statistics."""
        by_square = -self.ssim / self.contrast_scale
        scale = 2 / self.scales
        by_product = self.luminance * scale
        by_mean = self.mean * (self.contrast * scale - by_product)
        by_mean -= 2 * self.own * (self.ssim / self.luminance_scale + by_square)
        return by_mean, by_square, by_product


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
    chosen = ~(best >= still)  # so that what is not a number shows in the loss
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


def _window_mean(x: Tensor, adjoint: bool = False) -> Tensor:
    """3x3 means of the image reflected at its borders, in place: (B, C, H, W) -> the same tensor.

    Sums of shifted images: `avg_pool2d` takes ten times as long on a CPU.

    Args:
        adjoint: the transposed map, which carries gradients back.
    """
    before = torch.empty_like(x)
    for dim in (-1, -2):
        size = x.shape[dim]
        before.copy_(x)
        x.narrow(dim, 1, size - 1).add_(before.narrow(dim, 0, size - 1))
        x.narrow(dim, 0, size - 1).add_(before.narrow(dim, 1, size - 1))
        for border, inner in ((0, 1), (size - 1, size - 2)):
            to, source = (inner, border) if adjoint else (border, inner)
            x.select(dim, to).add_(before.select(dim, source))
    return x.mul_(1 / 9)
