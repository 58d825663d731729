"""Renders the images and LiDAR sweep of a rig in a street, and gives the boxes of the vehicles around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.rig import RigBox
from .casting import cast, count_met, image_rectangles
from .lidar import Sweep, scan
from .render import expose, shade
from .rig_cameras import EGO_AXES, RigView, draw_cameras, ego_from_lidar
from .rig_street import draw_rig_scene
from .scene import CABIN, COS, HALF_X, HALF_Z, SIN, TOP, VEHICLE, Dice, Scene, X, Z

MOST_BOX_METRES = 75.0
"""Largest distance of a vehicle with a box, metres."""
TRUCK_HALF_WIDTH = 1.1
"""Half the width in metres above which a vehicle is a lorry or bus."""
VISIBILITY_ENDS = (0.4, 0.6, 0.8)
"""Ends of nuScenes' bins of the visible share."""


@dataclass(frozen=True, eq=False)
class RigStreet:
    """A street, and the rig's vehicle in it."""

    seed: int
    scene: Scene
    views: list[RigView]
    vehicles: list[list[int]]
    """Indices of the solids of each other vehicle, its body first."""

    def ego_to_world(self, frame: int) -> Tensor:
        """The vehicle's pose in a frame, (4, 4) float64, world from ego, metres."""
        return self.scene.poses[frame] @ EGO_AXES


class SeenBox(NamedTuple):
    """A vehicle near the rig."""

    number: int
    """Number of the vehicle in its street, the same in all frames."""
    box: RigBox
    lidar_points: int


@dataclass(frozen=True, eq=False)
class RigMoment:
    """The rig's data of one frame."""

    images: dict[str, Tensor]
    """uint8 RGB (3, H, W), by the camera's name."""
    boxes: list[SeenBox]
    """Boxes of the vehicles that a camera or the scanner sees."""
    sweep: Sweep


def draw_rig_street(seed: int, frames: int, height: int, width: int) -> RigStreet:
    """A random street and vehicle, different for every seed; `height` and `width` are those of the images.

    Raises:
        UserError: an image size that cannot be rendered.
    """
    dice = Dice(seed)
    scene, views = draw_rig_scene(dice, frames), draw_cameras(dice, height, width)
    vehicles: list[list[int]] = []
    for number, solid in enumerate(scene.solids):
        if solid.kind == VEHICLE:
            vehicles.append([number])
        elif solid.kind == CABIN:
            vehicles[-1].append(number)
    return RigStreet(seed, scene, views, vehicles)


def render_moment(street: RigStreet, frame: int, device: str | torch.device = "cpu") -> RigMoment:
    """Renders the images of all cameras, the LiDAR sweep and the boxes of a frame."""
    solids, _ = street.scene.solids_at(frame)
    ego_to_world = street.ego_to_world(frame)
    deviates = torch.Generator().manual_seed((street.seed + 1) * 4096 + frame)
    images, seen, alone = {}, torch.zeros(len(solids), dtype=torch.int64), torch.zeros(len(solids), dtype=torch.int64)
    parts = [part for vehicle in street.vehicles for part in vehicle]
    for name, camera, camera_to_ego in street.views:
        pose = ego_to_world @ camera_to_ego
        noise = torch.randn((3, camera.height, camera.width), generator=deviates).to(device)
        rays, rectangles = camera.rays(pose, noise.device), image_rectangles(solids, camera, pose)
        hits = cast(solids, rectangles, rays)
        image = expose(street.scene, shade(street.scene, solids, rays, hits, float(camera.K[0, 0])), noise)
        images[name] = image.cpu()
        seen += torch.bincount(hits.seen[hits.seen >= 0].cpu(), minlength=len(solids))
        for part in parts:
            alone[part] += count_met(solids[part].tolist(), rectangles[part], rays)
    sweep = scan(solids, ego_to_world @ ego_from_lidar())
    returned = np.bincount(sweep.solids[sweep.solids >= 0], minlength=len(solids))
    boxes = seen_boxes(street, solids, np.stack([seen.numpy(), alone.numpy(), returned]), ego_to_world)
    return RigMoment(images, boxes, sweep)


def seen_boxes(street: RigStreet, solids: Tensor, counts: np.ndarray, ego_to_world: Tensor) -> list[SeenBox]:
    """The boxes of near vehicles that a sensor sees.

    Args:
        counts: (3, N), for each solid: pixels that show it, pixels that would show it if nothing hid it, and LiDAR
            points on it.
    """
    world_to_ego = torch.linalg.inv(ego_to_world).numpy()
    boxes = []
    for number, parts in enumerate(street.vehicles):
        pixels, most, points = counts[:, parts].sum(axis=1).tolist()
        box = box_of(solids[parts].numpy(), world_to_ego, share_bin(pixels / max(most, 1)))
        if pixels + points > 0 and np.hypot(*box.centre[:2]) < MOST_BOX_METRES:
            boxes.append(SeenBox(number, box, points))
    return boxes


def share_bin(share: float) -> int:
    """The number of nuScenes' bin of a visible share.

    >>> [share_bin(share) for share in (0.0, 0.5, 0.7, 1.0)]
    [1, 2, 3, 4]
    """
    return 1 + sum(share > end for end in VISIBILITY_ENDS)


def box_of(parts: np.ndarray, world_to_ego: np.ndarray, visibility: int) -> RigBox:
    """The box around a vehicle's solids (P, 16), the body first; it reaches from the ground to the roof."""
    body, top = parts[0], parts[:, TOP].max()
    centre = world_to_ego @ (body[X], -top / 2, body[Z], 1.0)
    ahead = world_to_ego[:3, :3] @ (body[SIN], 0.0, body[COS])
    size = np.array([2 * body[HALF_Z], 2 * body[HALF_X], top])
    category = "vehicle.truck" if body[HALF_X] > TRUCK_HALF_WIDTH else "vehicle.car"
    return RigBox(category, centre[:3], size, math.atan2(ahead[1], ahead[0]), visibility)
