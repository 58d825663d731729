"""Casts a ray through each pixel into a street: the solid that it hits, its depth, and shadows of vehicles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from .camera import Camera, Rays
from .scene import BOTTOM, COS, CROWN, HALF_X, HALF_Z, KIND, SIN, TOP, VEHICLE, X, Z

NEAR, FAR = 0.3, 200.0
"""Surfaces nearer than NEAR or farther than FAR metres are not rendered; beyond FAR is sky."""
SKY, GROUND = -2, -1
"""What a ray sees that hits no solid."""
_EDGES = [(0, 1), (1, 3), (3, 2), (2, 0), (4, 5), (5, 7), (7, 6), (6, 4), (0, 4), (1, 5), (2, 6), (3, 7)]

Rectangle = tuple[int, int, int, int]
"""Rows and columns of an image: top, bottom, left, right; ends excluded."""
T = TypeVar("T", float, Tensor)


class Hits(NamedTuple):
    """The first surface that each ray of an image hits."""

    depth: Tensor
    """(H, W) float32, metres; FAR where a ray hits nothing."""
    seen: Tensor
    """(H, W) int32: an index into the solids, GROUND or SKY."""
    shadow: Tensor
    """(H, W) float32: share of light on the ground that vehicles do not block."""


class LocalRays(NamedTuple):
    """Rays in the axes of one solid, y down, origin at the middle of its base."""

    origin: tuple[float, float, float]
    x: Tensor
    y: Tensor
    z: Tensor
    inverse_y: Tensor
    """1 / y."""


def into_axes(solid: Sequence[T], x: T | float, z: T | float) -> tuple[T, T]:
    """x and z of a world direction in the axes of a solid (a row of `Scene.solids_at`)."""
    cos, sin = solid[COS], solid[SIN]
    return cos * x - sin * z, sin * x + cos * z


def image_rectangles(solids: Tensor, camera: Camera, pose: Tensor) -> list[Rectangle]:
    """For each solid, a rectangle of the image that contains it; empty if the camera does not see it."""
    K = camera.K
    signs = torch.tensor([[sx, sy, sz] for sx in (-1, 1) for sy in (0, 1) for sz in (-1, 1)], dtype=torch.float64)
    lx, lz = signs[:, 0] * solids[:, HALF_X, None], signs[:, 2] * solids[:, HALF_Z, None]
    cos, sin = solids[:, COS, None], solids[:, SIN, None]
    y = -torch.where(signs[:, 1] > 0, solids[:, TOP, None], solids[:, BOTTOM, None])
    corners = torch.stack([solids[:, X, None] + cos * lx + sin * lz, y, solids[:, Z, None] - sin * lx + cos * lz], -1)
    points = (corners - pose[:3, 3]) @ pose[:3, :3]
    ends = points[:, torch.tensor(_EDGES)]  # (N, 12, 2, 3); clipped at the near plane below
    depth = ends[..., 2]
    share = ((NEAR - depth) / (depth.flip(2) - depth)).nan_to_num(0.0).clamp(0, 1)
    cut = torch.where((depth < NEAR)[..., None], ends + share[..., None] * (ends.flip(2) - ends), ends)
    visible = (depth.amax(2) > NEAR)[..., None].expand_as(depth)
    uv = cut[..., :2] / cut[..., 2:].clamp(min=NEAR) * torch.stack([K[0, 0], K[1, 1]]) + K[:2, 2]
    low = uv.masked_fill(~visible[..., None], float("inf")).amin((1, 2)).clamp(-1e6, 1e6)
    high = uv.masked_fill(~visible[..., None], float("-inf")).amax((1, 2)).clamp(-1e6, 1e6)
    size = torch.tensor([camera.width, camera.height])
    first = low.ceil().clamp(min=0)
    last = torch.minimum(high.floor() + 1, size)
    return [
        (int(t), max(int(t), int(b)), int(le), max(int(le), int(r)))
        for (le, t), (r, b) in zip(first.tolist(), last.tolist(), strict=True)
    ]


def cast(solids: Tensor, rectangles: list[Rectangle], rays: Rays) -> Hits:
    """The first hit of each ray; a solid is tested only within its rectangle of the image."""
    dx, dy, dz = rays.direction
    inverse_y = 1 / dy
    depth = -rays.origin[1] * inverse_y
    below = (depth > 0) & (depth < FAR)
    depth = torch.where(below, depth, FAR)
    ground_depth = depth.clone()
    seen = torch.where(below, GROUND, SKY).to(torch.int32)
    shadow = torch.ones_like(depth)
    for i, (solid, (top, bottom, left, right)) in enumerate(zip(solids.tolist(), rectangles, strict=True)):
        if bottom <= top or right <= left:
            continue
        part = (slice(top, bottom), slice(left, right))
        local = local_rays(solid, rays, inverse_y[part], part)
        near, inside = (cast_ellipsoid if solid[KIND] == CROWN else cast_box)(solid, local)
        inside = inside & (near > NEAR) & (near < depth[part])
        depth[part] = torch.where(inside, near, depth[part])
        seen[part].masked_fill_(inside, i)
        if solid[KIND] == VEHICLE:
            # The shadow lies on the ground under and beside the vehicle: a slightly larger rectangle covers it.
            grown = (slice(top, min(bottom + (bottom - top) // 2 + 2, depth.shape[0])), part[1])
            x, z = into_axes(solid, dx[grown], dz[grown])
            (ox, _, oz), t = local.origin, ground_depth[grown]
            shadow[grown] *= light_left(solid, ox + t * x, oz + t * z)
    return Hits(depth, seen, shadow)


def local_rays(solid: list[float], rays: Rays, inverse_y: Tensor, part: tuple[slice, slice]) -> LocalRays:
    """The rays of a part of the image in the axes of a solid; `inverse_y` is 1 / y of these rays."""
    dx, dy, dz = rays.direction
    ox, oz = into_axes(solid, rays.origin[0] - solid[X], rays.origin[2] - solid[Z])
    x, z = into_axes(solid, dx[part], dz[part])
    return LocalRays((ox, rays.origin[1], oz), x, dy[part], z, inverse_y)


def count_met(solid: list[float], rectangle: Rectangle, rays: Rays) -> int:
    """The number of rays that hit a box if nothing hides it."""
    top, bottom, left, right = rectangle
    if bottom <= top or right <= left:
        return 0
    part = (slice(top, bottom), slice(left, right))
    local = local_rays(solid, rays, 1 / rays.direction[1][part], part)
    near, inside = cast_box(solid, local)
    return int((inside & (near > NEAR) & (near < FAR)).sum())


def cast_box(solid: list[float], rays: LocalRays) -> tuple[Tensor, Tensor]:
    """The depth at which rays enter a box, and whether they hit it."""
    ox, oy, oz = rays.origin
    near_x, far_x = between(rays.x.reciprocal(), -solid[HALF_X] - ox, solid[HALF_X] - ox)
    near_z, far_z = between(rays.z.reciprocal(), -solid[HALF_Z] - oz, solid[HALF_Z] - oz)
    near_y, far_y = between(rays.inverse_y, -solid[BOTTOM] - oy, -solid[TOP] - oy)
    near = torch.maximum(torch.maximum(near_x, near_z), near_y)
    far = torch.minimum(torch.minimum(far_x, far_z), far_y)
    return near, near < far


def between(inverse: Tensor, first: float, second: float) -> tuple[Tensor, Tensor]:
    """The depths at which rays enter and leave the space between two planes that are normal to an axis.

    Args:
        inverse: 1 / the rays' component along the axis.
        first, second: distances of the planes from the rays' origin.
    """
    t1, t2 = inverse * first, inverse * second
    return torch.minimum(t1, t2), torch.maximum(t1, t2)


def cast_ellipsoid(solid: list[float], rays: LocalRays) -> tuple[Tensor, Tensor]:
    """The depth at which rays enter an ellipsoid, and whether they hit it."""
    wide, deep, tall = 1 / solid[HALF_X], 1 / solid[HALF_Z], 2 / (solid[TOP] - solid[BOTTOM])
    ox, oy, oz = rays.origin
    ox, oy, oz = ox * wide, (oy + (solid[TOP] + solid[BOTTOM]) / 2) * tall, oz * deep
    x, y, z = rays.x * wide, rays.y * tall, rays.z * deep
    square = x * x + y * y + z * z
    half = x * ox + y * oy + z * oz
    rest = half * half - square * (ox * ox + oy * oy + oz * oz - 1)
    return (-half - rest.clamp(min=0).sqrt()) / square, rest > 0


def light_left(vehicle: list[float], x: Tensor, z: Tensor) -> Tensor:
    """The share of light that a vehicle does not block, at points of the ground in the vehicle's axes."""
    dark_x = ((vehicle[HALF_X] + 0.25 - x.abs()) / 0.4).clamp(0, 1)
    dark_z = ((vehicle[HALF_Z] + 0.25 - z.abs()) / 0.4).clamp(0, 1)
    return 1 - 0.7 * (dark_x * dark_z)
