"""The photometric error of `losses.photometric_error` as trainers compute it: equal, in less time and memory.

The target's SSIM statistics are computed once and serve every source, every scale and the identity loss; the gradient
is in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import SSIM_C1, SSIM_C2, SSIM_WEIGHT

_SHARE = 1 / 9
"""Of a pixel in the mean of a 3x3 window."""


@dataclass(frozen=True)
class Target:
    """An image to be reconstructed, (B, 3, H, W), and what SSIM needs of its 3x3 windows (None without SSIM).

    No gradient reaches it.

    Attributes:
        image: as given.
        mean: of every window.
        luminance, contrast: its share of SSIM's two denominators, mean^2 + C1 and variance + C2.
    """

    image: Tensor
    mean: Tensor | None
    luminance: Tensor | None
    contrast: Tensor | None

    @classmethod
    def of(cls, image: Tensor, ssim: bool = True) -> Target:
        """Prepares a target once for many comparisons."""
        if not ssim:
            return cls(image, None, None, None)
        share = image * _SHARE
        mean, square = _window_sum(torch.cat([share, share * image], dim=1)).chunk(2, dim=1)
        mean_square = mean.square()
        return cls(image, mean, mean_square + SSIM_C1, square - mean_square + SSIM_C2)


def reprojection_loss(target: Target, predicted: Tensor) -> Tensor:
    """`photometric_error` of a target and a prediction, (B, 3, H, W) -> (B, 1, H, W); L1 alone for a target without
    SSIM. H and W are at least 3."""
    if target.mean is None or target.luminance is None or target.contrast is None:
        return (target.image - predicted).abs().mean(1, keepdim=True)
    if torch.compiler.is_compiling():  # which joins the steps of the plain formula by itself
        image, share = target.image, predicted * _SHARE
        statistics = _window_sum(torch.cat([share, share * predicted, share * image], dim=1))
        ssim = 4 * _QuarterSsim(statistics, target.mean, target.luminance, target.contrast).quarter.clamp(-0.25, 0.25)
        loss = SSIM_WEIGHT / 2 * (1 - ssim) + (1 - SSIM_WEIGHT) * (image - predicted).abs()
        return loss.mean(1, keepdim=True)
    found: Tensor = _Reprojection.apply(predicted, target.image, target.mean, target.luminance, target.contrast)
    return found


class _Reprojection(torch.autograd.Function):
    """The loss with its gradient in closed form: less than half of the memory and time that autograd takes."""

    @staticmethod
    def forward(
        ctx: Any, predicted: Tensor, image: Tensor, mean: Tensor, luminance: Tensor, contrast: Tensor
    ) -> Tensor:
        batch, channels, height, width = predicted.shape
        statistics = predicted.new_empty(batch, 3 * channels, height, width)
        own, square, product = statistics.chunk(3, dim=1)
        torch.mul(predicted, _SHARE, out=own)
        torch.mul(own, predicted, out=square)
        torch.mul(own, image, out=product)
        similarity = _QuarterSsim(_window_sum(statistics), mean, luminance, contrast)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(predicted, image, similarity.derive())
        ssim = similarity.quarter.clamp_(-0.25, 0.25).mean(1, keepdim=True).mul_(4)
        l1 = (image - predicted).abs_().mean(1, keepdim=True)
        return (1 - ssim).mul_(SSIM_WEIGHT / 2).add_(l1, alpha=1 - SSIM_WEIGHT)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        predicted, image, derivatives = ctx.saved_tensors
        grad = grad / predicted.shape[1]
        by_statistics = _window_sum(derivatives * (-2 * SSIM_WEIGHT * _SHARE * grad), adjoint=True)
        by_mean, by_square, by_product = by_statistics.chunk(3, dim=1)
        by_l1 = (predicted - image).sign_().mul_((1 - SSIM_WEIGHT) * grad)
        by_image = by_l1.add_(by_mean).addcmul_(predicted, by_square, value=2).addcmul_(image, by_product)
        return by_image, None, None, None, None


class _QuarterSsim:
    """A quarter of SSIM, so that its numerator is made of halves, for every pixel's window.

    Args:
        statistics: (B, 9, H, W), window means of the prediction, of its square, and of its product with the target.
        mean, luminance, contrast: (B, 3, H, W), of the target.
    """

    def __init__(self, statistics: Tensor, mean: Tensor, luminance: Tensor, contrast: Tensor) -> None:
        self.statistics, self.mean = statistics, mean
        own, square, product = statistics.chunk(3, dim=1)
        both, own_square = own * mean, own.square()
        self.contrast = (product - both).add_(SSIM_C2 / 2)
        self.luminance = both.add_(SSIM_C1 / 2)
        self.luminance_scale = luminance + own_square
        self.contrast_scale = (square - own_square).add_(contrast)
        self.scales = self.luminance_scale * self.contrast_scale
        self.quarter = (self.luminance * self.contrast).div_(self.scales)

    def derive(self) -> Tensor:
        """Its derivatives by the statistics, (B, 9, H, W), written over them; 0 where SSIM will be clamped."""
        own, by_square, by_product = self.statistics.chunk(3, dim=1)
        value, unit = (_clamped(part, self.quarter) for part in (self.quarter, self.scales.reciprocal()))
        torch.mul(unit, self.luminance, out=by_product)
        torch.div(value, self.contrast_scale, out=by_square).neg_()
        by_numerator = unit.mul_(self.mean).mul_(self.contrast - self.luminance)
        by_scales = value.div_(self.luminance_scale).add_(by_square)
        torch.addcmul(by_numerator, own, by_scales, value=-2, out=own)
        return self.statistics


def _clamped(grad: Tensor, quarter: Tensor) -> Tensor:
    """A gradient through the clamp of a quarter of SSIM; `torch.where` takes ten times as long on a CPU."""
    return torch.ops.aten.hardtanh_backward(grad, quarter, -0.25, 0.25)


def _window_sum(x: Tensor, adjoint: bool = False) -> Tensor:
    """3x3 sums of the image reflected at its borders: (B, C, H, W) -> same; `x` may be overwritten.

    Sums of shifted images: `avg_pool2d` takes ten times as long on a CPU.

    Args:
        adjoint: the transposed map, which carries gradients back.
    """
    if torch.compiler.is_compiling() and not adjoint:  # what is compiled cannot be written in place
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        rows = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
        return rows[..., :-2, :] + rows[..., 1:-1, :] + rows[..., 2:, :]
    rows = torch.empty_like(x)
    for dim, given, found in ((-1, x, rows), (-2, rows, x)):
        size = x.shape[dim]
        inner = torch.add(
            given.narrow(dim, 0, size - 2), given.narrow(dim, 1, size - 2), out=found.narrow(dim, 1, size - 2)
        )
        inner.add_(given.narrow(dim, 2, size - 2))
        for border, next_ in ((0, 1), (size - 1, size - 2)):
            at, beside = given.select(dim, border), given.select(dim, next_)
            torch.add(at, beside, alpha=1 if adjoint else 2, out=found.select(dim, border))
            if adjoint:
                found.select(dim, next_).add_(at)
    return x
