"""Surface colours of the synthetic street: textures that are fixed to their objects.

Every function works on flat arrays of n pixels and returns colours (3, n), without light and haze.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
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
    Scene,
)
from .side_streets import GUTTER, covered, side_cover
from .texture import Surface, blotches, fractal, grain, lookup, mix, pulses, stripe


class Points(NamedTuple):
    """Points of solids that n pixels see."""

    solid: list[Tensor]
    """16 tensors (n,): columns of the solid that each pixel sees."""
    x: Tensor
    up: Tensor
    z: Tensor
    """(n,) each, in the solid's axes, from the middle of its base."""

    @property
    def colour(self) -> Tensor:
        return torch.stack([self.solid[RED], self.solid[GREEN], self.solid[BLUE]])


class Face(NamedTuple):
    """The face of its box that a pixel sees: three bool (n,)."""

    side: Tensor
    """A face normal to the box's x axis."""
    top: Tensor
    end: Tensor
    """A face normal to the box's z axis."""

    def choose(self, side: Tensor, top: Tensor, end: Tensor) -> Tensor:
        """For each pixel, the value for its face."""
        return torch.where(self.side, side, torch.where(self.top, top, end))


def ground(scene: Scene, surface: Surface) -> Tensor:
    """Asphalt with painted lines, walkways of slabs, and open land.

    Args:
        surface: `across` is the world's x, `along` its z.
    """
    road, x, z = scene.road, surface.across, surface.along
    long, wide = surface.footprint_along, surface.footprint_across
    lateral = x - road.amplitude * (torch.sin(road.frequency * z + road.phase) - torch.sin(x.new_tensor(road.phase)))
    away = lateral.abs()
    on_road = covered(road.half_width + GUTTER - away, wide)
    on_walk = covered(road.half_width + GUTTER + road.walkway - away, wide)
    noise = grain(surface, 0.0, 8.0)
    squeezed = surface.squeezed(2)
    broad = blotches(squeezed, 0.3, 0.7) + blotches(squeezed, 0.6, 2.5)

    joints = 1 - pulses(x / scene.slab, 0.93, wide / scene.slab) * pulses(z / scene.slab, 0.93, long / scene.slab)
    verge = x.new_tensor(scene.verge)[:, None] * (1 + 0.22 * noise + 0.25 * broad)
    walk = x.new_tensor(scene.pavement)[:, None] * (1 + 0.10 * noise + 0.12 * broad - 0.4 * joints)
    street = x.new_tensor(scene.asphalt)[:, None] * (1 + 0.16 * noise + 0.16 * broad)
    worn = (0.85 + 0.25 * noise).clamp(0.3, 1)
    side = side_cover(scene, surface, lateral)
    for line in road.lines:
        share = stripe(lateral - line.offset, 0.075, wide)
        if side:
            share = share * (1 - side.mouth)
        if line.dashed:
            share = share * pulses(z / road.dash[0], road.dash[1], long / road.dash[0])
        street = mix(street, (0.85, 0.68, 0.2) if line.yellow else (0.88, 0.88, 0.88), share * worn)
    walk = walk * (1 - 0.35 * stripe(away - road.half_width - 0.25, 0.12, wide))  # the kerb
    if side:
        street = mix(street, (0.88, 0.88, 0.88), side.line * worn)
        on_road, on_walk = torch.maximum(on_road, side.road), torch.maximum(on_walk, side.walkway)
    return mix(mix(verge, walk, on_walk), street, on_road)


def solid(scene: Scene, kind: int, points: Points, face: Face, surface: Surface) -> Tensor:
    """The colours of boxes of one kind; windows reflect the scene's sky."""
    columns, up, colour = points.solid, points.up, points.colour
    seed = columns[SEED] + 0.19 * face.top + 0.38 * face.end
    if kind == BUILDING:
        return house(points, face, surface, seed)
    if kind == WALL:
        return wall(points, surface, seed)
    noise = fractal(surface, seed, 4)
    if kind not in (VEHICLE, CABIN):
        return colour * (1 + 0.3 * noise)
    reflection = (0.15 + 0.25 * (up - columns[BOTTOM])).clamp(0, 0.5)
    glass = mix(torch.full_like(colour, 0.1), scene.sky[0], reflection) * (1 + 0.5 * noise)
    paint = colour * (1 + 0.10 * noise)
    if kind == VEHICLE:
        return vehicle_body(points, face, paint, glass)
    along = torch.where(face.side, points.z, points.x)
    frame = (up > columns[TOP] - 0.08) | ((along.abs() - 0.1).abs() < 0.05) & face.side
    return mix(glass, paint, (frame | face.top).to(paint.dtype))


def box_surface(tile: Tensor, points: Points, face: Face, long: Tensor, wide: Tensor) -> Surface:
    """Surface coordinates on faces of boxes; `long` and `wide` are the footprints along and across them."""
    along = torch.where(face.side, points.z, points.x)
    place = torch.where(face.top, points.z, along), torch.where(face.top, points.x, points.up)
    return Surface(tile, *place, long, wide)


def weathered(colour: Tensor, surface: Surface, seed: Tensor) -> tuple[Tensor, Tensor]:
    """A wall of one colour with stains of all sizes, and the noise (n,) of the stains."""
    noise = grain(surface, seed, 4.0)
    broad = blotches(surface, seed, 1.2) + blotches(surface, seed + 0.5, 5.0)
    return colour * (1 + 0.11 * noise + 0.14 * broad), noise


def wall(points: Points, surface: Surface, seed: Tensor) -> Tensor:
    """Panels with joints; each panel has its own brightness."""
    period, storey = points.solid[PERIOD], points.solid[STOREY]
    column, row = surface.along / period, points.up / storey
    long, wide = surface.footprint_along / period, surface.footprint_across / storey
    plain, _ = weathered(points.colour, surface, seed)
    panel = pulses(column, 0.95, long) * pulses(row, 0.93, wide)
    own = lookup(surface.tile, column.floor() + 0.5 + 31 * seed, row.floor() + 17 * seed)
    return plain * (0.6 + 0.4 * panel) * (1 + 0.25 * own * (1.5 - long).clamp(0, 1))


def house(points: Points, face: Face, surface: Surface, seed: Tensor) -> Tensor:
    """Plaster with ledges and rows of windows; each window has its own brightness."""
    period, storey, duty = points.solid[PERIOD], points.solid[STOREY], points.solid[DUTY]
    column, floor = surface.along / period, points.up / storey
    long, wide = surface.footprint_along / period, surface.footprint_across / storey
    plain, noise = weathered(points.colour, surface, seed)
    plain = plain * (1 - 0.35 * pulses(floor + 0.12, 0.07, wide))
    upright = (~face.top).to(plain.dtype) * (points.solid[TOP] - points.up > 0.4).to(plain.dtype)
    high = 0.45 + 0.2 * (duty - 0.5)
    window = pulses(column, duty, long) * pulses(floor - 0.3, high, wide) * upright
    pane = pulses(column + 0.02, duty * 0.46, long) + pulses(column - duty * 0.52, duty * 0.46, long)
    pane = pane.clamp(0, 1) * pulses(floor - 0.33, high - 0.06, wide)
    own = lookup(surface.tile, column.floor() + 0.5 + 31 * seed, (floor - 0.3).floor() + 17 * seed)
    own = own * (1.5 - long).clamp(0, 1)
    glass = (0.22 + 0.22 * own + 0.05 * noise).clamp(0.03, 0.7)
    trim = mix(plain, (0.85, 0.85, 0.82), window * 0.7)
    return mix(trim, torch.stack([0.85 * glass, 0.95 * glass, glass]), window * pane)


def vehicle_body(points: Points, face: Face, paint: Tensor, glass: Tensor) -> Tensor:
    """Paint with wheels, skirt, lamps and licence plate; tall bodies also have windows."""
    solid, x, up, z = points
    side, top, end = face
    low = up - solid[BOTTOM]
    reach = z.abs() - 0.62 * solid[HALF_Z]
    hub = reach.square() + (up - 0.36).square()
    tall = solid[TOP] > 1.5
    band = tall & (solid[TOP] - up > 0.3) & (solid[TOP] - up < 1.1) & ~top
    pillar = ((z / 1.3).frac().abs() > 0.08) & side & (solid[DUTY] > 0.5) & (reach < 0.2 * solid[HALF_Z])
    screen = end & (z > 0) & (x.abs() < solid[HALF_X] - 0.1)
    lamp = end & (x.abs() > 0.6 * solid[HALF_X]) & (low > 0.38) & (low < 0.58)
    plate = end & (x.abs() < 0.26) & (low > 0.25) & (low < 0.38)
    dark = (low < 0.12) & ~top | side & (hub < 0.13)
    stripe = tall & (((up - 1.05).abs() < 0.12) | ((z / 1.1 + solid[SEED]).frac().abs() < 0.04) & side)
    colour = mix(paint, paint.flip(0) * 0.5 + 0.1, stripe.to(paint.dtype))
    colour = mix(colour, glass, (band & (pillar | screen)).to(paint.dtype))
    colour = mix(colour, (0.75, 0.1, 0.08), (lamp & (z < 0)).to(paint.dtype))
    colour = mix(colour, (0.95, 0.93, 0.85), ((lamp & (z > 0)) | plate).to(paint.dtype))
    colour = mix(colour, (0.06, 0.06, 0.06), dark.to(paint.dtype))
    return mix(colour, (0.55, 0.55, 0.55), (side & (hub < 0.035)).to(paint.dtype))


def crown(tile: Tensor, points: Points, footprint: Tensor) -> Tensor:
    """Foliage, blotchy at every scale."""
    x, up, z = points.x, points.up, points.z
    surface = Surface(tile, 0.8 * x + 0.6 * z, up + 0.5 * (0.6 * x - 0.8 * z), footprint, footprint)
    noise = fractal(surface, points.solid[SEED], 5) + blotches(surface, 0.2, 0.5)
    return points.colour * (1 + 0.55 * noise).clamp(min=0.15)


def sky(scene: Scene, tile: Tensor, direction: Tensor) -> Tensor:
    """The sky in world directions (3, n) of any length: brighter near the horizon, with faint clouds."""
    unit = direction / direction.norm(dim=0)
    height = -unit[1]
    base = mix(torch.tensor(scene.sky[0]).to(unit)[:, None].expand_as(unit), scene.sky[1], (height * 3).clamp(0, 1))
    a, b = unit[0] * 6, height * 18
    cloud = lookup(tile, a, b) + 0.5 * lookup(tile, 2 * a + 50, 2 * b) + 0.25 * lookup(tile, 4 * a + 90, 4 * b)
    return mix(base, (0.95, 0.95, 0.97), (cloud * 0.6).clamp(0, 0.6))
