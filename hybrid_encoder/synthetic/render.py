"""Renders a view of a synthetic street: colour, exact depth, and a mask of moving vehicles."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import shading
from .camera import Camera, Rays
from .casting import GROUND, SKY, Hits, cast, image_rectangles, into_axes
from .scene import BOTTOM, CROWN, HALF_X, HALF_Z, KIND, TOP, Scene, X, Z
from .texture import Surface, mix


def render_view(scene: Scene, frame: int, camera: Camera, pose: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Renders a scene at the time of a frame.

    Args:
        scene: the street.
        frame: number of the frame; moving vehicles are placed by it.
        camera: intrinsics and image size.
        pose: (4, 4) float64, world from camera.
        noise: (3, H, W), standard normal numbers for sensor noise; rendering runs on its device.

    Returns:
        The image, uint8 RGB (3, H, W). Its depth, float32 (H, W), metres, 0 without a surface within FAR. A mask of
        moving vehicles, bool (H, W).
    """
    solids, moves = scene.solids_at(frame)
    rays = camera.rays(pose, noise.device)
    hits = cast(solids, image_rectangles(solids, camera, pose), rays)
    image = expose(scene, shade(scene, solids, rays, hits, float(camera.K[0, 0])), noise)
    moving = moves.to(noise.device)[hits.seen.clamp(min=0)] & (hits.seen >= 0)
    return image, hits.depth.masked_fill(hits.seen == SKY, 0), moving


class Sight(NamedTuple):
    """The points that n pixels see."""

    ray: Tensor
    """(3, n) in the world."""
    point: Tensor
    """(3, n) in the world."""
    pixel: Tensor
    """(n,) width of a pixel at the point, metres."""

    def slant(self, across: Tensor) -> Tensor:
        """The factor (n,) by which a slanted surface lengthens a pixel's footprint.

        Args:
            across: the ray's component along the surface's normal.
        """
        return (self.ray.square().sum(0) / across.abs()).clamp(1, 60)


def shade(scene: Scene, solids: Tensor, rays: Rays, hits: Hits, focal: float) -> Tensor:
    """The colours of an image before exposure, (3, H, W): surfaces lit by sun and sky, then haze.

    All pixels of one kind of surface are shaded together. `focal`: focal length in pixels.
    """
    device = hits.depth.device
    tile = scene.texture.to(device)
    table = solids.float().t().contiguous().to(device)
    depth, seen, shadow = (values.view(-1) for values in hits)
    flat = rays.direction.view(3, -1)
    kinds = torch.cat([table.new_tensor([SKY, GROUND]), table[KIND]]).to(torch.int32)[seen + 2]
    colour = torch.empty_like(flat)
    for kind in kinds.unique().tolist():
        at = (kinds == kind).nonzero().view(-1)
        ray = flat.index_select(1, at)
        if kind == SKY:
            colour.index_copy_(1, at, shading.sky(scene, tile, ray))
            continue
        t = depth[at]
        sight = Sight(ray, ray * t + ray.new_tensor(rays.origin)[:, None], t / focal)
        if kind == GROUND:
            lit = lit_ground(scene, tile, sight, shadow[at])
        else:
            solid = seen[at].long()
            lit = lit_solids(scene, tile, kind, [column[solid] for column in table], sight)
        keep = torch.exp(-scene.haze * t)
        haze = ray.new_tensor(scene.sky[0])[:, None].expand_as(lit) * 0.95
        colour.index_copy_(1, at, mix(haze, lit, keep))
    return colour.view_as(rays.direction)


def lit_ground(scene: Scene, tile: Tensor, sight: Sight, shadow: Tensor) -> Tensor:
    """The lit colours of the ground, (3, n)."""
    x, _, z = sight.point
    surface = Surface(tile, z, x, *ground_footprint(sight, scene.all_round))
    light = scene.ambient + (1 - scene.ambient) * -scene.light[1] * 1.2
    return shading.ground(scene, surface) * (shadow * light)


def ground_footprint(sight: Sight, all_round: bool) -> tuple[Tensor, Tensor]:
    """A pixel's footprint along z and along x, (n,) each, metres. It is longer along the viewing direction, which is z
    unless `all_round`."""
    slant = sight.slant(sight.ray[1])
    if not all_round:
        return sight.pixel * slant, sight.pixel
    x, _, z = sight.ray.abs()
    level = torch.hypot(x, z)
    return sight.pixel * (1 + (slant - 1) * z / level), sight.pixel * (1 + (slant - 1) * x / level)


def lit_solids(scene: Scene, tile: Tensor, kind: int, solid: list[Tensor], sight: Sight) -> Tensor:
    """The lit colours of solids of one kind, (3, n); `solid`: columns of the solid that each pixel sees."""
    x, z = into_axes(solid, sight.point[0] - solid[X], sight.point[2] - solid[Z])
    points = shading.Points(solid, x, -sight.point[1], z)
    sun_x, sun_z = into_axes(solid, scene.light[0], scene.light[2])
    sun_up = -scene.light[1]
    half_x, half_y, half_z = solid[HALF_X], (solid[TOP] - solid[BOTTOM]) / 2, solid[HALF_Z]
    nx, ny, nz = x / half_x, (points.up - solid[BOTTOM]) / half_y - 1, z / half_z  # within -1 to 1
    if kind == CROWN:
        normal = torch.stack([nx / half_x, ny / half_y, nz / half_z])
        facing = (normal[0] * sun_x + normal[1] * sun_up + normal[2] * sun_z) / normal.norm(dim=0)
        light = scene.ambient * 0.8 + (1 - scene.ambient) * facing.clamp(min=0)
        return shading.crown(tile, points, sight.pixel) * light
    side = nx.abs() >= torch.maximum(ny.abs(), nz.abs())
    top = ~side & (ny.abs() >= nz.abs())
    face = shading.Face(side, top, ~(side | top))
    towards = face.choose(sun_x * nx.sign(), sun_up * ny.sign(), sun_z * nz.sign())
    light = scene.ambient + (1 - scene.ambient) * towards.clamp(min=0)
    ray_x, ray_z = into_axes(solid, sight.ray[0], sight.ray[2])
    across = face.choose(ray_x, sight.ray[1], ray_z)
    surface = shading.box_surface(tile, points, face, sight.pixel * sight.slant(across), sight.pixel)
    return shading.solid(scene, kind, points, face, surface) * light


def expose(scene: Scene, colour: Tensor, noise: Tensor) -> Tensor:
    """The image, uint8 (3, H, W): a lens blur of about half a pixel, exposure and sensor noise."""
    tap = colour.new_tensor([0.15, 0.7, 0.15])
    padded = F.pad(colour[None], (1, 1, 1, 1), mode="replicate")[0]
    rows = padded[:, :-2] * tap[0] + padded[:, 1:-1] * tap[1] + padded[:, 2:] * tap[2]
    blurred = rows[:, :, :-2] * tap[0] + rows[:, :, 1:-1] * tap[1] + rows[:, :, 2:] * tap[2]
    image = blurred * scene.gain + noise * scene.noise
    return (image * 255).round_().clamp_(0, 255).to(torch.uint8)
