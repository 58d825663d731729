"""Noise and stripes for surfaces, filtered to the pixel's footprint.

Every function works on flat lists of n pixels. What is finer than the footprint fades out, so nothing flickers from
frame to frame, and new detail fades in as the camera comes closer, so no distance is without texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from .scene import Colour

CELLS = 256
"""Cells along a side of the noise tile."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Where on a surface each of n pixels looks, in metres, and its footprint there; (n,) each but the tile."""

    tile: Tensor
    """(1, 1, CELLS + 1, CELLS + 1), the noise."""
    along: Tensor
    """Place along the direction in which perspective squeezes the surface most."""
    across: Tensor
    footprint_along: Tensor
    footprint_across: Tensor

    @cached_property
    def footprint(self) -> Tensor:
        """The larger one."""
        return torch.maximum(self.footprint_along, self.footprint_across)

    def squeezed(self, factor: float) -> Surface:
        """The surface on which textures are this many times longer."""
        along, footprint = self.along / factor, self.footprint_along / factor
        return Surface(self.tile, along, self.across, footprint, self.footprint_across)


def pulses(x: Tensor, duty: Tensor | float, width: Tensor) -> Tensor:
    """A train of pulses of period 1, on for the first `duty` of it, averaged over a window of `width` about x:
    (n,) in [0, 1].

    >>> pulses(torch.tensor([0.25, 0.5, 0.75]), 0.5, torch.tensor(0.1))
    tensor([1.0000, 0.5000, 0.0000])
    """

    def integral(at: Tensor) -> Tensor:
        whole = at.floor()
        return whole * duty + torch.minimum(at - whole, torch.as_tensor(duty, dtype=at.dtype, device=at.device))

    width = width.clamp(min=1e-2)
    return ((integral(x + width / 2) - integral(x - width / 2)) / width).clamp(0, 1)


def stripe(distance: Tensor, half: float, footprint: Tensor) -> Tensor:
    """How much of each pixel a stripe covers, `half` of its width to either side of distance 0: (n,)."""
    return ((half + footprint / 2 - distance.abs()) / footprint).clamp(0, 1) * (2 * half / footprint).clamp(max=1)


def lookup(tile: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The noise tile at x, y in cells, periodic and bilinear: (n,) in [-1, 1]."""
    grid = torch.stack([x, y], -1).mul_(1 / CELLS)
    grid.sub_(grid.floor()).mul_(2).sub_(1)
    return F.grid_sample(tile, grid[None, None], align_corners=True).view(-1)


def fractal(surface: Surface, seed: Tensor | float, octaves: int) -> Tensor:
    """Value noise of the given number of octaves from the footprint upwards, of equal weight: (n,), deviation about
    0.4.

    The finest octave fades out and the coarsest fades in as the footprint grows, so the sum is continuous in it.
    """
    level = surface.footprint.clamp(min=0.004).log2()
    base = level.floor()
    fade = level - base
    scale = torch.exp2(-1 - base)
    x, y = surface.along * scale, surface.across * scale
    shift = (base * 0.618034 + seed) * CELLS  # each octave of each object has a place of its own in the tile
    total = lookup(surface.tile, x + shift, y - 0.37 * shift) * (1 - fade)
    for octave in range(1, octaves):
        x, y, shift = x * 0.5, y * 0.5, shift + 0.618034 * CELLS
        value = lookup(surface.tile, x + shift, y - 0.37 * shift)
        total += value * fade if octave == octaves - 1 else value
    return total / (octaves - 1) ** 0.5


def blotches(surface: Surface, seed: Tensor | float, size: float) -> Tensor:
    """One octave of noise with cells of `size` metres, gone where the footprint reaches it: (n,)."""
    shift = (seed + 0.23 * size) * CELLS
    value = lookup(surface.tile, surface.along / size + shift, surface.across / size + 0.71 * shift)
    return value * (2 - 2 * surface.footprint / size).clamp(0, 1)


def grain(surface: Surface, seed: Tensor | float, stretch: float) -> Tensor:
    """Noise at all scales: even where the view is square, drawn out along where the surface is seen at a slant:
    (n,)."""
    return fractal(surface, seed, 4) + 0.8 * fractal(surface.squeezed(stretch), seed + 0.41, 3)


def mix(low: Tensor, high: Tensor | Colour, share: Tensor) -> Tensor:
    """(3, n) from `low` where share (n,) is 0 to `high` where it is 1."""
    if not isinstance(high, Tensor):
        high = low.new_tensor(high)[:, None]
    return torch.lerp(low, high.expand_as(low), share)
