"""Noise and stripes for surfaces, filtered to the pixel's footprint.

Every function works on flat arrays of n pixels. Detail finer than the footprint fades out, so that nothing flickers
from frame to frame. Finer detail fades in when the camera comes closer: surfaces have texture at every distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from .scene import Colour

CELLS = 256
"""Number of cells along a side of the noise tile."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Surface coordinates of n pixels and their footprints on it, (n,) each, metres."""

    tile: Tensor
    """(1, 1, CELLS + 1, CELLS + 1), noise."""
    along: Tensor
    """Coordinate in the direction in which perspective shortens the surface most."""
    across: Tensor
    footprint_along: Tensor
    footprint_across: Tensor

    @cached_property
    def footprint(self) -> Tensor:
        """The larger of both footprints."""
        return torch.maximum(self.footprint_along, self.footprint_across)

    def squeezed(self, factor: float) -> Surface:
        """The surface with `along` divided by a factor: textures on it are that many times longer."""
        along, footprint = self.along / factor, self.footprint_along / factor
        return Surface(self.tile, along, self.across, footprint, self.footprint_across)


def pulses(x: Tensor, duty: Tensor | float, width: Tensor) -> Tensor:
    """A pulse train of period 1 that is 1 for the first `duty` of each period, averaged over a window of `width` around
    x: (n,) in [0, 1].

    >>> pulses(torch.tensor([0.25, 0.5, 0.75]), 0.5, torch.tensor(0.1))
    tensor([1.0000, 0.5000, 0.0000])
    """

    def integral(at: Tensor) -> Tensor:
        whole = at.floor()
        return whole * duty + torch.minimum(at - whole, torch.as_tensor(duty, dtype=at.dtype, device=at.device))

    width = width.clamp(min=1e-2)
    return ((integral(x + width / 2) - integral(x - width / 2)) / width).clamp(0, 1)


def stripe(distance: Tensor, half: float, footprint: Tensor) -> Tensor:
    """The share of each pixel that a stripe covers, (n,); the stripe reaches from -half to half."""
    return ((half + footprint / 2 - distance.abs()) / footprint).clamp(0, 1) * (2 * half / footprint).clamp(max=1)


def lookup(tile: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The noise tile at x and y, in cells: (n,) in [-1, 1]; periodic, with bilinear interpolation."""
    grid = torch.stack([x, y], -1).mul_(1 / CELLS)
    grid.sub_(grid.floor()).mul_(2).sub_(1)
    return F.grid_sample(tile, grid[None, None], align_corners=True).view(-1)


def fractal(surface: Surface, seed: Tensor | float, octaves: int) -> Tensor:
    """Value noise (n,) of octaves of equal weight, the finest of about the footprint's size; its standard deviation is
    about 0.4.

    While the footprint grows, the finest octave fades out and the coarsest fades in: the sum is continuous in the
    footprint.
    """
    level = surface.footprint.clamp(min=0.004).log2()
    base = level.floor()
    fade = level - base
    scale = torch.exp2(-1 - base)
    x, y = surface.along * scale, surface.across * scale
    shift = (base * 0.618034 + seed) * CELLS  # each octave of each object reads its own part of the tile
    total = lookup(surface.tile, x + shift, y - 0.37 * shift) * (1 - fade)
    for octave in range(1, octaves):
        x, y, shift = x * 0.5, y * 0.5, shift + 0.618034 * CELLS
        value = lookup(surface.tile, x + shift, y - 0.37 * shift)
        total += value * fade if octave == octaves - 1 else value
    return total / (octaves - 1) ** 0.5


def blotches(surface: Surface, seed: Tensor | float, size: float) -> Tensor:
    """One octave of noise (n,) with cells of `size` metres; it fades to 0 where the footprint reaches that size."""
    shift = (seed + 0.23 * size) * CELLS
    value = lookup(surface.tile, surface.along / size + shift, surface.across / size + 0.71 * shift)
    return value * (2 - 2 * surface.footprint / size).clamp(0, 1)


def grain(surface: Surface, seed: Tensor | float, stretch: float) -> Tensor:
    """Noise (n,) at all scales: isotropic noise plus noise that is `stretch` times longer along the shortened
    direction."""
    return fractal(surface, seed, 4) + 0.8 * fractal(surface.squeezed(stretch), seed + 0.41, 3)


def mix(low: Tensor, high: Tensor | Colour, share: Tensor) -> Tensor:
    """Linear interpolation (3, n): `low` where share (n,) is 0, `high` where it is 1."""
    if not isinstance(high, Tensor):
        high = low.new_tensor(high)[:, None]
    return torch.lerp(low, high.expand_as(low), share)
