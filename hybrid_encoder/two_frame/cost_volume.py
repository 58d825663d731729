"""The cost volume of two-frame depth: how well the features of a pixel match those of earlier frames at each depth.

docs/METHOD.md, section 4; ManyDepth (https://arxiv.org/abs/2104.14540), section 3. Pure functions, and the running
range of the bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import MIN_DEPTH

Binning = Literal["linear", "inverse"]

BORDER = 2
"""Pixels within this distance of the border of either image do not count."""

DEFAULT_BYTES = {"cpu": 16 << 20, "cuda": 512 << 20}
"""Working memory of a chunk: it should fit a CPU's cache, and keep a whole GPU busy."""

TRACKER_MOMENTUM = 0.99

_EPSILON = 1e-7


@dataclass(frozen=True)
class Lookup:
    """The F lookup frames that a frame is matched with, as images or as feature maps.

    Attributes:
        frames: (B, F, C, h, w).
        poses: (B, F, 4, 4), from the current camera to each lookup camera; all zeros: there is no such frame.
        K, inv_K: (B, 3, 3) or (B, 4, 4), in pixels of the feature maps that are matched.
    """

    frames: Tensor
    poses: Tensor
    K: Tensor
    inv_K: Tensor


@dataclass(frozen=True)
class CostVolume:
    """What matching found, at the features' size h x w.

    Attributes:
        cost: (B, D, h, w), mean absolute difference of features, averaged over the lookup frames that see the point of
            a bin; where none sees it, the largest cost of the pixel; 0 where no point of the pixel is seen.
        confidence: (B, h, w), True where the points of all bins are seen.
        best: (B, h, w), the bin of the lowest cost; 0 where no point is seen.
    """

    cost: Tensor
    confidence: Tensor
    best: Tensor


def depth_bins(near: Tensor | float, far: Tensor | float, count: int, binning: Binning = "linear") -> Tensor:
    """(count,) depths, near to far, evenly spaced in depth ("linear") or in 1 / depth ("inverse").

    >>> depth_bins(1.0, 4.0, 4).tolist()
    [1.0, 2.0, 3.0, 4.0]
    >>> depth_bins(1.0, 4.0, 4, "inverse").tolist()
    [1.0, 1.3333333730697632, 2.0, 4.0]
    """
    near, far = torch.as_tensor(near), torch.as_tensor(far)
    steps = torch.linspace(0, 1, count, dtype=near.dtype, device=near.device)
    if binning == "linear":
        return near + (far - near) * steps
    return 1 / (1 / near + (1 / far - 1 / near) * steps)


def inner_pixels(
    height: int, width: int, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Tensor:
    """(3, n): x, y, 1 of the pixels inside a border of `BORDER` pixels, row by row.

    >>> inner_pixels(5, 6).tolist()
    [[2.0, 3.0], [2.0, 2.0], [1.0, 1.0]]
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    y, x = torch.meshgrid(
        torch.arange(BORDER, max(height - BORDER, BORDER), dtype=dtype, device=device),
        torch.arange(BORDER, max(width - BORDER, BORDER), dtype=dtype, device=device),
        indexing="ij",
    )
    return torch.stack([x, y, torch.ones_like(x)]).flatten(1)


@torch.no_grad()
def match(
    current: Tensor,
    lookup: Lookup,
    depths: Tensor,
    pixels: Tensor | None = None,
    max_bytes: int | None = None,
) -> CostVolume:
    """Compares the current features with lookup features warped by every depth.

    A point counts where its pixel, and the place where the lookup frame sees it, lie inside the border of `BORDER`
    pixels. No gradient flows through.

    Args:
        current: (B, C, h, w) features.
        lookup: (B, F, C, h, w) features, poses and intrinsics of the lookup frames.
        depths: (D,), the depths of the bins.
        pixels: `inner_pixels(h, w)`, where the caller keeps it as a buffer; None: it is computed.
        max_bytes: limit of the working memory besides inputs and result, but at least one pixel is computed at a time;
            None: `DEFAULT_BYTES`.
    """
    batch, frames, channels, height, width = lookup.frames.shape
    inner = (max(height - 2 * BORDER, 0), max(width - 2 * BORDER, 0))
    pixels = inner_pixels(height, width, lookup.K.dtype, lookup.K.device) if pixels is None else pixels
    # One table holds the pixels of all lookup frames and of the current frame as rows of C numbers. Bilinear sampling
    # and the difference to the current feature are then a weighted sum of five rows, which reads memory in whole cache
    # lines.
    table = torch.cat([_rows(lookup.frames.flatten(0, 1)), _rows(current)])
    samples = _samples(lookup, pixels, inner)
    per_pixel = frames * len(depths) * (channels * table.element_size() + _BYTES_PER_SAMPLE)
    chunk = max((max_bytes or DEFAULT_BYTES.get(table.device.type, 64 << 20)) // per_pixel, 1)
    cost = table.new_empty(len(samples.own_row), len(depths))
    for start in range(0, len(cost), chunk):
        part = slice(start, start + chunk)
        rows, weights, seen = _five_rows(_Samples(*(values[part] for values in samples)), depths, (height, width))
        difference = F.embedding_bag(rows.flatten(0, -2), table, per_sample_weights=weights.flatten(0, -2), mode="sum")
        l1 = difference.abs_().mean(1).view(seen.shape).mul_(seen)
        cost[part] = l1[:, 0] if frames == 1 else l1.sum(1) / ((l1 > 0).sum(1) + _EPSILON)
    missing = cost == 0
    cost = torch.where(missing, cost.amax(1, keepdim=True), cost)
    return CostVolume(
        _to_image(cost, batch, inner),
        _to_image(~missing.any(1, keepdim=True), batch, inner)[:, 0],
        _to_image(cost.argmin(1, keepdim=True), batch, inner)[:, 0],
    )


class DepthBinTracker(nn.Module):
    """Tracks the range of the teacher's depths, so that the bins cover it (ManyDepth, section 3.3).

    Attributes:
        near, far: scalars, the tracked range, in the unit of depth; they start at `MIN_DEPTH` and 10.
    """

    near: Tensor
    far: Tensor

    def __init__(self, min_depth: float = MIN_DEPTH) -> None:
        super().__init__()
        self.min_depth = min_depth
        self.register_buffer("near", torch.tensor(MIN_DEPTH))
        self.register_buffer("far", torch.tensor(10.0))

    @torch.no_grad()
    def update(self, depth: Tensor, momentum: float = TRACKER_MOMENTUM) -> None:
        """Moves the range by the share 1 - `momentum` towards that of depths (B, 1, H, W): 0.9 x the mean of the
        images' minima (at least `min_depth`), and 1.1 x the mean of their maxima."""
        low, high = depth.float().flatten(1).aminmax(dim=1)
        self.near.lerp_((0.9 * low.mean()).clamp(min=self.min_depth), 1 - momentum)
        self.far.lerp_(1.1 * high.mean(), 1 - momentum)


_BYTES_PER_SAMPLE = 5 * 8 + 12 * 4
"""Five rows and their weights, and the coordinates that they are computed from."""


class _Samples(NamedTuple):
    """The input of warping for n pixels (of all images, one after the other) and F lookup frames.

    A lookup camera sees a pixel of depth d at d * ray + shift, in homogeneous coordinates.

    Attributes:
        rays, shift: (n, F, 3).
        first_row: (n, F, 1) int32, the table's row where the lookup frame begins.
        own_row: (n,) int32, the table's row of the pixel itself.
        exists: (n, F, 1) bool, whether there is such a lookup frame.
    """

    rays: Tensor
    shift: Tensor
    first_row: Tensor
    own_row: Tensor
    exists: Tensor


def _samples(lookup: Lookup, pixels: Tensor, inner: tuple[int, int]) -> _Samples:
    """The samples of all pixels inside the border; `inner` is their number of rows and columns in an image."""
    batch, frames, _, height, width = lookup.frames.shape
    each, all_ = (batch, inner[0] * inner[1], frames), batch * inner[0] * inner[1]
    K, inv_K = lookup.K[:, None, :3, :3], lookup.inv_K[:, None, :3, :3]
    rays = (K @ lookup.poses[:, :, :3, :3] @ inv_K @ pixels).permute(0, 3, 1, 2)
    shift = (K @ lookup.poses[:, :, :3, 3:])[..., 0][:, None]
    first_row = torch.arange(batch * frames, device=pixels.device).view(batch, 1, frames, 1) * (height * width)
    exists = (lookup.poses != 0).flatten(2).any(2)[:, None, :, None]
    return _Samples(
        rays.reshape(all_, frames, 3),
        shift.expand(*each, 3).reshape(all_, frames, 3),
        first_row.expand(*each, 1).reshape(all_, frames, 1).to(torch.int32),
        batch * frames * height * width + _own_rows(batch, height, width, pixels.device),
        exists.expand(*each, 1).reshape(all_, frames, 1),
    )


def _rows(features: Tensor) -> Tensor:
    """(N, C, h, w) -> (N h w, C)."""
    features = features if features.dtype == torch.float64 else features.float()
    return features.flatten(2).transpose(1, 2).flatten(0, 1)


def _own_rows(batch: int, height: int, width: int, device: torch.device) -> Tensor:
    """(samples,) int32: the row of every inner pixel among those of the current images."""
    rows = torch.arange(batch * height * width, dtype=torch.int32, device=device).view(batch, height, width)
    return rows[:, BORDER : height - BORDER, BORDER : width - BORDER].flatten()


def _five_rows(samples: _Samples, depths: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and weights (n, F, D, 5) of the four pixels around the place where a bin's point is seen, less the current
    pixel; and whether it is seen, (n, F, D)."""
    height, width = size
    rays, shift = samples.rays, samples.shift
    x, y, z = (torch.addcmul(shift[..., i, None], rays[..., i, None], depths) for i in range(3))
    z = z.add_(_EPSILON)
    x, y = x.div_(z), y.div_(z)
    seen = (x >= BORDER) & (x <= width - BORDER) & (y >= BORDER) & (y <= height - BORDER) & samples.exists
    x, y = torch.where(seen, x, 0), torch.where(seen, y, 0)
    left, top = x.to(torch.int32), y.to(torch.int32)
    x, y = x.sub_(left), y.sub_(top)
    corner = top.mul_(width).add_(left).add_(samples.first_row)
    rows = torch.stack([corner, corner + 1, corner + width, corner + (width + 1)], dim=-1)
    right_below = x * y
    right_above, left_below = x - right_below, y - right_below
    left_above = 1 - x - left_below
    return (
        torch.cat([rows, samples.own_row.view(-1, 1, 1, 1).expand(*rows.shape[:-1], 1)], dim=-1),
        torch.stack([left_above, right_above, left_below, right_below, x.new_full((), -1).expand_as(x)], dim=-1),
        seen,
    )


def _to_image(values: Tensor, batch: int, inner: tuple[int, int]) -> Tensor:
    """(samples, D) -> (B, D, h, w), zero in the border."""
    image = values.view(batch, *inner, -1).permute(0, 3, 1, 2)
    return F.pad(image, (BORDER,) * 4)
