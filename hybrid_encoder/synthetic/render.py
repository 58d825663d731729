"""Casts one ray a pixel into a synthetic street and returns what the camera sees: colour, exact depth, and what
moves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import shading as shading
from .scene import BOTTOM, COS, CROWN, HALF_X, HALF_Z, KIND, SIN, TOP, VEHICLE, Scene, X, Z

NEAR, FAR = 0.3, 200.0
"""Surfaces nearer than NEAR or farther than FAR metres are not seen; beyond lies the sky."""
SKY, GROUND = -2, -1
_EDGES = [(0, 1), (1, 3), (3, 2), (2, 0), (4, 5), (5, 7), (7, 6), (6, 4), (0, 4), (1, 5), (2, 6), (3, 7)]


def render_view(
    scene: Scene, frame: int, pose: Tensor, K: Tensor, height: int, width: int, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One picture of a scene at the time of a frame.

    Args:
        scene: the street.
        frame: the time, which places the moving vehicles.
        pose: (4, 4) float64, world from camera.
        K: (3, 3) float64 intrinsics in pixels.
        height, width: of the picture.
        noise: (3, H, W) normal deviates for the sensor's noise; its device is where the work is done.

    Returns:
        (3, H, W) uint8 RGB; (H, W) float32 depth in metres, 0 where no surface lies within FAR; (H, W) bool, true on
        vehicles that move.
    """
    device = noise.device
    solids, moves = scene.solids_at(frame)
    rects = image_rectangles(solids, pose, K, height, width)
    direction = rays(pose, K, height, width).to(device)
    origin = pose[:3, 3].tolist()
    depth, seen, shadow = cast(solids, rects, direction, origin)
    colour = shade(scene, solids, depth, seen, shadow, direction, origin, float(K[0, 0]))
    image = expose(scene, colour, noise)
    empty = seen == SKY
    moving = moves.to(device)[seen.clamp(min=0)] & (seen >= 0)
    return image, depth.masked_fill(empty, 0), moving


def rays(pose: Tensor, K: Tensor, height: int, width: int) -> Tensor:
    """(3, H, W) float32 world directions whose length along the camera's axis is 1, so that a ray's parameter is
    depth."""
    x = (torch.arange(width, dtype=torch.float64) - K[0, 2]) / K[0, 0]
    y = (torch.arange(height, dtype=torch.float64) - K[1, 2]) / K[1, 1]
    R = pose[:3, :3]
    across = (R[:, 0, None] * x).float()[:, None, :]
    down = (R[:, 1, None] * y + R[:, 2, None]).float()[:, :, None]
    return across + down


def image_rectangles(
    solids: Tensor, pose: Tensor, K: Tensor, height: int, width: int
) -> list[tuple[int, int, int, int]]:
    """For each solid the rows and columns (top, bottom, left, right; ends excluded) that hold all of its picture;
    empty: unseen."""
    signs = torch.tensor([[sx, sy, sz] for sx in (-1, 1) for sy in (0, 1) for sz in (-1, 1)], dtype=torch.float64)
    lx, lz = signs[:, 0] * solids[:, HALF_X, None], signs[:, 2] * solids[:, HALF_Z, None]
    cos, sin = solids[:, COS, None], solids[:, SIN, None]
    y = -torch.where(signs[:, 1] > 0, solids[:, TOP, None], solids[:, BOTTOM, None])
    corners = torch.stack([solids[:, X, None] + cos * lx + sin * lz, y, solids[:, Z, None] - sin * lx + cos * lz], -1)
    points = (corners - pose[:3, 3]) @ pose[:3, :3]
    ends = points[:, torch.tensor(_EDGES)]  # (N, 12, 2, 3), cut off at the near plane
    depth = ends[..., 2]
    share = ((NEAR - depth) / (depth.flip(2) - depth)).nan_to_num(0.0).clamp(0, 1)
    cut = torch.where((depth < NEAR)[..., None], ends + share[..., None] * (ends.flip(2) - ends), ends)
    visible = (depth.amax(2) > NEAR)[..., None].expand_as(depth)
    uv = cut[..., :2] / cut[..., 2:].clamp(min=NEAR) * torch.stack([K[0, 0], K[1, 1]]) + K[:2, 2]
    low = uv.masked_fill(~visible[..., None], float("inf")).amin((1, 2)).clamp(-1e6, 1e6)
    high = uv.masked_fill(~visible[..., None], float("-inf")).amax((1, 2)).clamp(-1e6, 1e6)
    size = torch.tensor([width, height])
    first = low.ceil().clamp(min=0)
    last = torch.minimum(high.floor() + 1, size)
    return [
        (int(t), max(int(t), int(b)), int(le), max(int(le), int(r)))
        for (le, t), (r, b) in zip(first.tolist(), last.tolist(), strict=True)
    ]


def cast(
    solids: Tensor, rects: list[tuple[int, int, int, int]], direction: Tensor, origin: list[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """(H, W) depth, (H, W) int32 what is seen (an index into solids, GROUND or SKY), (H, W) light left under
    vehicles."""
    dx, dy, dz = direction
    inverse_y = 1 / dy
    depth = -origin[1] * inverse_y
    below = (depth > 0) & (depth < FAR)
    depth = torch.where(below, depth, FAR)
    ground_depth = depth.clone()
    seen = torch.where(below, GROUND, SKY).to(torch.int32)
    shadow = torch.ones_like(depth)
    for i, (row, (top, bottom, left, right)) in enumerate(zip(solids.tolist(), rects, strict=True)):
        if bottom <= top or right <= left:
            continue
        part = (slice(top, bottom), slice(left, right))
        cos, sin, half_x, half_z = row[COS], row[SIN], row[HALF_X], row[HALF_Z]
        px, pz = origin[0] - row[X], origin[2] - row[Z]
        ox, oz = cos * px - sin * pz, sin * px + cos * pz
        x, z, inv = dx[part], dz[part], inverse_y[part]
        lx = cos * x - sin * z
        lz = sin * x + cos * z
        if row[KIND] == CROWN:
            near, inside = cast_ellipsoid(row, (ox, origin[1], oz), lx, dy[part], lz)
        else:
            middle, reach = lx.reciprocal(), lz.reciprocal()
            t1, t2 = middle * (-half_x - ox), middle * (half_x - ox)
            near, far = torch.minimum(t1, t2), torch.maximum(t1, t2)
            t1, t2 = reach * (-half_z - oz), reach * (half_z - oz)
            near, far = torch.maximum(near, torch.minimum(t1, t2)), torch.minimum(far, torch.maximum(t1, t2))
            t1, t2 = inv * (-row[BOTTOM] - origin[1]), inv * (-row[TOP] - origin[1])
            near, far = torch.maximum(near, torch.minimum(t1, t2)), torch.minimum(far, torch.maximum(t1, t2))
            inside = near < far
        inside = inside & (near > NEAR) & (near < depth[part])
        depth[part] = torch.where(inside, near, depth[part])
        seen[part].masked_fill_(inside, i)
        if row[KIND] == VEHICLE:
            # Ground under the vehicle: its rectangle in the picture, a little larger, always covers the dark part
            # next to it.
            grown = (slice(top, min(bottom + (bottom - top) // 2 + 2, depth.shape[0])), part[1])
            t = ground_depth[grown]
            gx = (ox + t * (cos * dx[grown] - sin * dz[grown])).abs()
            gz = (oz + t * (sin * dx[grown] + cos * dz[grown])).abs()
            dark = ((half_x + 0.25 - gx) / 0.4).clamp(0, 1) * ((half_z + 0.25 - gz) / 0.4).clamp(0, 1)
            shadow[grown] *= 1 - 0.7 * dark
    return depth, seen, shadow


def cast_ellipsoid(
    row: list[float], origin: tuple[float, float, float], lx: Tensor, ly: Tensor, lz: Tensor
) -> tuple[Tensor, Tensor]:
    """Depth at which rays enter the ellipsoid, and whether they do; origin and rays in the solid's axes, y down."""
    wide, deep, tall = 1 / row[HALF_X], 1 / row[HALF_Z], 2 / (row[TOP] - row[BOTTOM])
    ox, oy, oz = origin[0] * wide, (origin[1] + (row[TOP] + row[BOTTOM]) / 2) * tall, origin[2] * deep
    x, y, z = lx * wide, ly * tall, lz * deep
    square = x * x + y * y + z * z
    half = x * ox + y * oy + z * oz
    rest = half * half - square * (ox * ox + oy * oy + oz * oz - 1)
    return (-half - rest.clamp(min=0).sqrt()) / square, rest > 0


def shade(
    scene: Scene,
    solids: Tensor,
    depth: Tensor,
    seen: Tensor,
    shadow: Tensor,
    direction: Tensor,
    origin: list[float],
    focal: float,
) -> Tensor:
    """(3, H, W) colours before the camera: each kind of surface in one go over its pixels, lit by sun and sky,
    then haze."""
    device = depth.device
    tile = scene.texture.to(device)
    table = solids.float().t().contiguous().to(device)
    flat_seen, flat_depth, flat = seen.view(-1), depth.view(-1), direction.view(3, -1)
    kinds = torch.cat([table.new_tensor([-2.0, -1.0]), table[KIND]]).to(torch.int32)[flat_seen + 2]
    colour = torch.empty_like(flat)
    for kind in kinds.unique().tolist():
        at = (kinds == kind).nonzero().view(-1)
        ray = flat.index_select(1, at)
        if kind == SKY:
            colour.index_copy_(1, at, shading.sky(scene, tile, ray))
            continue
        t = flat_depth[at]
        point = ray * t + ray.new_tensor(origin)[:, None]
        far_square = ray.square().sum(0)
        pixel = t / focal
        if kind == GROUND:
            slant = (far_square / ray[1].abs()).clamp(max=60)
            rgb = shading.ground(scene, tile, point[0], point[2], pixel * slant.clamp(min=1), pixel)
            light = scene.ambient + (1 - scene.ambient) * -scene.light[1] * 1.2
            rgb = rgb * (shadow.view(-1)[at] * light)
        else:
            ids = flat_seen[at].long()
            row = [column[ids] for column in table]
            rgb = shade_solids(scene, tile, row, kind, ray, point, far_square, pixel)
        keep = torch.exp(-scene.haze * t)
        hazy = shading.mix(ray.new_tensor(scene.sky[0])[:, None].expand_as(rgb) * 0.95, rgb, keep)
        colour.index_copy_(1, at, hazy)
    return colour.view(3, *depth.shape)


def shade_solids(
    scene: Scene,
    tile: Tensor,
    row: list[Tensor],
    kind: int,
    ray: Tensor,
    point: Tensor,
    far_square: Tensor,
    pixel: Tensor,
) -> Tensor:
    """(3, n) lit colours of the pixels that see solids of one kind; `row` holds the columns of each pixel's solid."""
    cos, sin, half_x, half_z = row[COS], row[SIN], row[HALF_X], row[HALF_Z]
    px, pz = point[0] - row[X], point[2] - row[Z]
    lx, up, lz = cos * px - sin * pz, -point[1], sin * px + cos * pz
    sun_x = cos * scene.light[0] - sin * scene.light[2]
    sun_up = -scene.light[1]
    sun_z = sin * scene.light[0] + cos * scene.light[2]
    half_y = (row[TOP] - row[BOTTOM]) / 2
    nx, ny, nz = lx / half_x, (up - row[BOTTOM]) / half_y - 1, lz / half_z  # within -1 to 1
    if kind == CROWN:
        normal = torch.stack([nx / half_x, ny / half_y, nz / half_z])
        facing = (normal[0] * sun_x + normal[1] * sun_up + normal[2] * sun_z) / normal.norm(dim=0)
        light = scene.ambient * 0.8 + (1 - scene.ambient) * facing.clamp(min=0)
        return shading.crown(tile, row, lx, up, lz, pixel) * light
    across = nx.abs() >= torch.maximum(ny.abs(), nz.abs())
    level = ~across & (ny.abs() >= nz.abs())
    face = shading.Face(across, level, ~(across | level))

    def on_face(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return torch.where(across, x, torch.where(level, y, z))

    towards = on_face(sun_x * nx.sign(), sun_up * ny.sign(), sun_z * nz.sign())
    light = scene.ambient + (1 - scene.ambient) * towards.clamp(min=0)
    along = on_face(cos * ray[0] - sin * ray[2], ray[1], sin * ray[0] + cos * ray[2])
    slant = (far_square / along.abs()).clamp(1, 60)
    return shading.solid(scene, tile, row, kind, lx, up, lz, pixel * slant, pixel, face) * light


def expose(scene: Scene, colour: Tensor, noise: Tensor) -> Tensor:
    """(3, H, W) uint8: a lens that blurs by half a pixel, exposure, sensor noise."""
    tap = colour.new_tensor([0.15, 0.7, 0.15])
    padded = F.pad(colour[None], (1, 1, 1, 1), mode="replicate")[0]
    rows = padded[:, :-2] * tap[0] + padded[:, 1:-1] * tap[1] + padded[:, 2:] * tap[2]
    blurred = rows[:, :, :-2] * tap[0] + rows[:, :, 1:-1] * tap[1] + rows[:, :, 2:] * tap[2]
    image = blurred * scene.gain + noise * scene.noise
    return (image * 255).round_().clamp_(0, 255).to(torch.uint8)
