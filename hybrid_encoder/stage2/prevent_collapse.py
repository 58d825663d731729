"""What keeps nets that start from random numbers from collapsing (`--prevent_collapse`; docs/METHOD.md, section 4).

The photometric loss knows depth and translation only up to a common factor. Nets that know nothing yet follow it to a
limit of depth, where the sigmoid saturates and the map stays flat; and a first motion of the wrong sign is explained by
depth that is upside down. Three cures: translations are counted in the mean depth, so that the loss does not change
with the common factor (compare Wang et al., https://arxiv.org/abs/1712.00175, section 3.2, who divide disparity by its
mean); a weak term holds the factor that is then free; and the first motion is a short way forward.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

FIRST_MOTION = 0.03
"""Mean depths that the camera moves forward between neighbouring frames, before the pose nets have learnt anything."""
HELD_DISPARITY = 1 / (1 + math.exp(2))
"""Geometric mean of a sigmoid's disparity that is held: far from both ends of the sigmoid, and where decoders start."""
HELD_WEIGHT = 0.02
"""Weight of `drift`."""
MOMENTUM = 0.1
"""Share of a batch in the running mean of depth, as in batch norm."""


class MotionUnit(nn.Module):
    """The unit of translations: the mean depth of the scenes, which is 1 / the mean of 1 / depth.

    In training mode its value is the running mean, so that motion and depth agree between images, and its gradient is
    the batch's mean's. A loss that depends on depth / unit alone then has no gradient that makes all depths larger. In
    evaluation mode it is the running mean, a constant.

    Attributes:
        mean_depth: the running mean, scalar.
        batches: how many were seen; the first ones count alike.
    """

    mean_depth: Tensor
    batches: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean_depth", torch.ones(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, inverse_depth: Tensor) -> Tensor:
        """1 / depth of a batch, (B, 1, H, W) -> scalar."""
        if not self.training:
            return self.mean_depth
        batch = 1 / inverse_depth.float().mean()
        with torch.no_grad():
            self.batches += 1
            self.mean_depth.lerp_(batch.detach(), (1 / self.batches).clamp_min(MOMENTUM))
        return self.mean_depth.clone() * (batch / batch.detach())


def drift(disparities: Iterable[Tensor]) -> Tensor:
    """How far the disparities of a batch have drifted from `HELD_DISPARITY` as a whole: the squared difference of
    logarithms, averaged over scales.

    >>> round(drift([torch.full((2, 1, 4, 4), HELD_DISPARITY)]).item(), 6)
    0.0
    >>> round(drift([torch.full((2, 1, 4, 4), HELD_DISPARITY * math.e)]).item(), 4)
    1.0

    Args:
        disparities: of each scale, (B, 1, h, w) in (0, 1).
    """
    means = torch.stack([disparity.float().clamp_min(1e-6).log().mean() for disparity in disparities])
    return (means - math.log(HELD_DISPARITY)).square().mean()
