"""Surface colours of the synthetic street: patterns anchored to their objects, and filtered to the pixel's footprint.

Every function works on flat lists of n pixels. `a` and `b` are metres on the surface, `a` along the direction in
which perspective squeezes it most; `fa` and `fb` are the pixel's footprint along them. What is finer than the
footprint fades out, so nothing flickers from frame to frame, and new detail fades in as the camera comes closer, so
no distance is without texture.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .scene import (
    BLUE,
    BOTTOM,
    BUILDING,
    CABIN,
    DUTY,
    GREEN,
    HALF_X,
    HALF_Z,
    PERIOD,
    RED,
    SEED,
    STOREY,
    TOP,
    VEHICLE,
    WALL,
    Colour,
    Scene,
)

CELLS = 256
"""Cells along a side of the noise tile."""


def pulses(x: Tensor, duty: Tensor | float, width: Tensor) -> Tensor:
    """A train of pulses of period 1, on for the first `duty` of it, averaged over a window of `width` about x:
    (n,) in [0, 1]."""

    def integral(at: Tensor) -> Tensor:
        whole = at.floor()
        return whole * duty + torch.minimum(at - whole, torch.as_tensor(duty, dtype=at.dtype, device=at.device))

    width = width.clamp(min=1e-2)
    return ((integral(x + width / 2) - integral(x - width / 2)) / width).clamp(0, 1)


def lookup(tile: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The noise tile at x, y in cells, periodic and bilinear: (n,) in [-1, 1]."""
    grid = torch.stack([x, y], -1).mul_(1 / CELLS)
    grid.sub_(grid.floor()).mul_(2).sub_(1)
    return F.grid_sample(tile, grid[None, None], align_corners=True).view(-1)


def fractal(tile: Tensor, a: Tensor, b: Tensor, footprint: Tensor, seed: Tensor | float, octaves: int) -> Tensor:
    """Value noise of the given number of octaves from the footprint upwards, of equal weight: (n,), deviation about
    0.4.

    The finest octave fades out and the coarsest fades in as the footprint grows, so the sum is continuous in it.
    """
    level = footprint.clamp(min=0.004).log2()
    base = level.floor()
    fade = level - base
    scale = torch.exp2(-1 - base)
    x, y = a * scale, b * scale
    shift = (base * 0.618034 + seed) * CELLS  # each octave of each object has a place of its own in the tile
    total = lookup(tile, x + shift, y - 0.37 * shift) * (1 - fade)
    for octave in range(1, octaves):
        x, y, shift = x * 0.5, y * 0.5, shift + 0.618034 * CELLS
        value = lookup(tile, x + shift, y - 0.37 * shift)
        total += value * fade if octave == octaves - 1 else value
    return total / (octaves - 1) ** 0.5


def patches(tile: Tensor, a: Tensor, b: Tensor, footprint: Tensor, seed: Tensor | float, size: float) -> Tensor:
    """One octave of noise with cells of `size` metres, gone where the footprint reaches it: (n,)."""
    shift = (seed + 0.23 * size) * CELLS if isinstance(seed, float) else (seed + 0.23 * size).mul(CELLS)
    return lookup(tile, a / size + shift, b / size + 0.71 * shift) * (2 - 2 * footprint / size).clamp(0, 1)


def grain(tile: Tensor, a: Tensor, b: Tensor, fa: Tensor, fb: Tensor, seed: Tensor | float, stretch: float) -> Tensor:
    """Noise at all scales: even where the view is square, drawn out along `a` where the surface is seen at a
    slant: (n,)."""
    even = fractal(tile, a, b, torch.maximum(fa, fb), seed, 4)
    long = fractal(tile, a / stretch, b, torch.maximum(fa / stretch, fb), seed + 0.41, 3)
    return even + 0.8 * long


def mix(low: Tensor, high: Tensor | Colour, share: Tensor) -> Tensor:
    """(3, n) from `low` where share (n,) is 0 to `high` where it is 1."""
    if not isinstance(high, Tensor):
        high = low.new_tensor(high)[:, None]
    return torch.lerp(low, high.expand_as(low), share)


def ground(scene: Scene, tile: Tensor, x: Tensor, z: Tensor, fa: Tensor, fb: Tensor) -> Tensor:
    """(3, n) colours of the ground at world x, z: asphalt with its lines, walkways of slabs, and the land beyond."""
    road = scene.road
    lateral = x - road.amplitude * (torch.sin(road.frequency * z + road.phase) - torch.sin(x.new_tensor(road.phase)))
    away = lateral.abs()
    on_road = ((road.half_width + 0.2 - away) / fb + 0.5).clamp(0, 1)
    on_walk = ((road.half_width + 0.2 + road.walkway - away) / fb + 0.5).clamp(0, 1)
    noise = grain(tile, z, x, fa, fb, 0.0, 8.0)
    broad = patches(tile, z / 2, x, fa / 2, 0.3, 0.7) + patches(tile, z / 2, x, fa / 2, 0.6, 2.5)

    joints = 1 - pulses(x / scene.slab, 0.93, fb / scene.slab) * pulses(z / scene.slab, 0.93, fa / scene.slab)
    verge = x.new_tensor(scene.verge)[:, None] * (1 + 0.22 * noise + 0.25 * broad)
    walk = x.new_tensor(scene.pavement)[:, None] * (1 + 0.10 * noise + 0.12 * broad - 0.4 * joints)
    street = x.new_tensor(scene.asphalt)[:, None] * (1 + 0.16 * noise + 0.16 * broad)
    worn = (0.85 + 0.25 * noise).clamp(0.3, 1)
    for line in road.lines:
        share = ((0.075 + fb / 2 - (lateral - line.offset).abs()) / fb).clamp(0, 1) * (0.15 / fb).clamp(max=1)
        if line.dashed:
            share = share * pulses(z / road.dash[0], road.dash[1], fa / road.dash[0])
        street = mix(street, (0.85, 0.68, 0.2) if line.yellow else (0.88, 0.88, 0.88), share * worn)
    kerb = ((0.12 + fb / 2 - (away - road.half_width - 0.25).abs()) / fb).clamp(0, 1) * (0.24 / fb).clamp(max=1)
    walk = walk * (1 - 0.35 * kerb)
    return mix(mix(verge, walk, on_walk), street, on_road)


class Face(NamedTuple):
    """Which face of its box a pixel sees, three (n,) bool."""

    side: Tensor
    """One across the box's x axis."""
    top: Tensor
    end: Tensor
    """One across the box's z axis."""


def solid(
    scene: Scene,
    tile: Tensor,
    row: list[Tensor],
    kind: int,
    lx: Tensor,
    up: Tensor,
    lz: Tensor,
    fa: Tensor,
    fb: Tensor,
    face: Face,
) -> Tensor:
    """(3, n) colours of solids of one kind.

    Args:
        scene: for nothing but the sky's reflection.
        tile: the noise.
        row: 16 times (n,), the columns of the solid that each pixel sees.
        kind: theirs.
        lx, up, lz: (n,) the point seen, in the solid's own axes from its foot.
        fa, fb: (n,) footprints along the face, and up it.
        face: which one.
    """
    along = torch.where(face.side, lz, lx)
    a, b = torch.where(face.top, lz, along), torch.where(face.top, lx, up)
    colour = torch.stack([row[RED], row[GREEN], row[BLUE]])
    seed = row[SEED] + 0.19 * face.top + 0.38 * face.end
    if kind in (BUILDING, WALL):
        return facade(tile, colour, row, a, b, up, fa, fb, seed, face, windows=kind == BUILDING)
    noise = fractal(tile, a, b, torch.maximum(fa, fb), seed, 4)
    if kind not in (VEHICLE, CABIN):
        return colour * (1 + 0.3 * noise)
    glass = mix(torch.full_like(colour, 0.1), scene.sky[0], (0.15 + 0.25 * (up - row[BOTTOM])).clamp(0, 0.5))
    glass = glass * (1 + 0.5 * noise)
    paint = colour * (1 + 0.10 * noise)
    if kind == VEHICLE:
        return vehicle_body(paint, glass, row, lx, up, lz, face)
    frame = (up > row[TOP] - 0.08) | ((along.abs() - 0.1).abs() < 0.05) & face.side
    return mix(glass, paint, (frame | face.top).to(colour.dtype))


def crown(tile: Tensor, row: list[Tensor], x: Tensor, up: Tensor, z: Tensor, footprint: Tensor) -> Tensor:
    """(3, n) colours of foliage at points in the crown's own axes: blotchy at every scale."""
    a, b = 0.8 * x + 0.6 * z, up + 0.5 * (0.6 * x - 0.8 * z)
    noise = fractal(tile, a, b, footprint, row[SEED], 5) + patches(tile, a, b, footprint, 0.2, 0.5)
    return torch.stack([row[RED], row[GREEN], row[BLUE]]) * (1 + 0.55 * noise).clamp(min=0.15)


def facade(
    tile: Tensor,
    colour: Tensor,
    row: list[Tensor],
    a: Tensor,
    b: Tensor,
    up: Tensor,
    fa: Tensor,
    fb: Tensor,
    seed: Tensor,
    face: Face,
    windows: bool,
) -> Tensor:
    """(3, n): plaster with weather and storeys of windows, each of its own brightness; or panels with joints."""
    noise = grain(tile, a, b, fa, fb, seed, 4.0)
    widest = torch.maximum(fa, fb)
    broad = patches(tile, a, b, widest, seed, 1.2) + patches(tile, a, b, widest, seed + 0.5, 5.0)
    plain = colour * (1 + 0.11 * noise + 0.14 * broad)
    period, storey = row[PERIOD], row[STOREY]
    column, floor = a / period, up / storey
    if not windows:
        panel = pulses(column, 0.95, fa / period) * pulses(floor, 0.93, fb / storey)
        shade = lookup(tile, column.floor() + 0.5 + 31 * seed, floor.floor() + 17 * seed)
        return plain * (0.6 + 0.4 * panel) * (1 + 0.25 * shade * (1.5 - fa / period).clamp(0, 1))
    ledge = pulses(floor + 0.12, 0.07, fb / storey)
    plain = plain * (1 - 0.35 * ledge)
    upright = (~face.top).to(colour.dtype) * (row[TOP] - up > 0.4).to(colour.dtype)
    duty = row[DUTY]
    high = 0.45 + 0.2 * (duty - 0.5)
    window = pulses(column, duty, fa / period) * pulses(floor - 0.3, high, fb / storey) * upright
    pane = pulses(column + 0.02, duty * 0.46, fa / period) + pulses(column - duty * 0.52, duty * 0.46, fa / period)
    pane = pane.clamp(0, 1) * pulses(floor - 0.33, high - 0.06, fb / storey)
    own = lookup(tile, column.floor() + 0.5 + 31 * seed, (floor - 0.3).floor() + 17 * seed) * (1.5 - fa / period).clamp(
        0, 1
    )
    glass = (0.22 + 0.22 * own + 0.05 * noise).clamp(0.03, 0.7)
    trim = mix(plain, (0.85, 0.85, 0.82), window * 0.7)
    return mix(trim, torch.stack([0.85 * glass, 0.95 * glass, glass]), window * pane)


def vehicle_body(
    paint: Tensor, glass: Tensor, row: list[Tensor], lx: Tensor, up: Tensor, lz: Tensor, face: Face
) -> Tensor:
    """(3, n): paint with wheels, skirt, lamps and plate, and on tall bodies windows."""
    side, top, end = face
    low = up - row[BOTTOM]
    reach = lz.abs() - 0.62 * row[HALF_Z]
    hub = reach.square() + (up - 0.36).square()
    tall = row[TOP] > 1.5
    band = tall & (row[TOP] - up > 0.3) & (row[TOP] - up < 1.1) & ~top
    pillar = ((lz / 1.3).frac().abs() > 0.08) & side & (row[DUTY] > 0.5) & (reach < 0.2 * row[HALF_Z])
    screen = end & (lz > 0) & (lx.abs() < row[HALF_X] - 0.1)
    lamp = end & (lx.abs() > 0.6 * row[HALF_X]) & (low > 0.38) & (low < 0.58)
    plate = end & (lx.abs() < 0.26) & (low > 0.25) & (low < 0.38)
    dark = (low < 0.12) & ~top | side & (hub < 0.13)
    stripe = tall & (((up - 1.05).abs() < 0.12) | ((lz / 1.1 + row[SEED]).frac().abs() < 0.04) & side)
    colour = mix(paint, paint.flip(0) * 0.5 + 0.1, stripe.to(paint.dtype))
    colour = mix(colour, glass, (band & (pillar | screen)).to(paint.dtype))
    colour = mix(colour, (0.75, 0.1, 0.08), (lamp & (lz < 0)).to(paint.dtype))
    colour = mix(colour, (0.95, 0.93, 0.85), ((lamp & (lz > 0)) | plate).to(paint.dtype))
    colour = mix(colour, (0.06, 0.06, 0.06), dark.to(paint.dtype))
    return mix(colour, (0.55, 0.55, 0.55), (side & (hub < 0.035)).to(paint.dtype))


def sky(scene: Scene, tile: Tensor, direction: Tensor) -> Tensor:
    """(3, n) for world directions (3, n) of any length: brighter towards the horizon, with a few faint clouds."""
    unit = direction / direction.norm(dim=0)
    height = -unit[1]
    base = mix(torch.tensor(scene.sky[0]).to(unit)[:, None].expand_as(unit), scene.sky[1], (height * 3).clamp(0, 1))
    a, b = unit[0] * 6, height * 18
    cloud = lookup(tile, a, b) + 0.5 * lookup(tile, 2 * a + 50, 2 * b) + 0.25 * lookup(tile, 4 * a + 90, 4 * b)
    return mix(base, (0.95, 0.95, 0.97), (cloud * 0.6).clamp(0, 0.6))
