"""The sensors of a rendered rig: six cameras, placed as on nuScenes' vehicles (arXiv 1903.11027, fig. 4), and a LiDAR
scanner.

The ego axes are those of nuScenes: x forward, y left, z up. The origin is on the ground below the rear axle.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .camera import Camera
from .scene import Dice

EGO_AXES = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
"""(4, 4), ego axes to the axes of a camera that looks ahead."""
HORIZON = 0.2555
"""Number of rows below the horizon, as a share of the width; as in nuScenes' images, cropped at the top as in
Lift-Splat-Shoot."""
LIDAR_PLACE = (0.94, 0.0, 1.84)
"""x, y, z of the scanner in ego axes, metres."""


class Mount(NamedTuple):
    """A camera's place in ego axes (metres), yaw (degrees to the left), and focal length as a share of the width."""

    x: float
    y: float
    z: float
    yaw: float
    focal: float = 0.79


MOUNTS = {
    "CAM_FRONT_LEFT": Mount(1.52, 0.49, 1.51, 55),
    "CAM_FRONT": Mount(1.70, 0.0, 1.51, 0),
    "CAM_FRONT_RIGHT": Mount(1.55, -0.49, 1.50, -55),
    "CAM_BACK_LEFT": Mount(1.04, 0.48, 1.56, 110),
    "CAM_BACK": Mount(0.03, 0.0, 1.57, 180, 0.506),
    "CAM_BACK_RIGHT": Mount(1.01, -0.48, 1.56, -110),
}


class RigView(NamedTuple):
    """A camera on the vehicle."""

    name: str
    camera: Camera
    camera_to_ego: Tensor
    """(4, 4) float64."""


def draw_cameras(dice: Dice, height: int, width: int) -> list[RigView]:
    """The six cameras of a vehicle; place, direction and focal length differ a little between vehicles.

    Raises:
        UserError: an image size that cannot be rendered.
    """
    views = []
    for name, mount in MOUNTS.items():
        x, y, z = (place + dice.uniform(-0.03, 0.03) for place in mount[:3])
        yaw, pitch, roll = (math.radians(dice.uniform(-1.0, 1.0)) for _ in range(3))
        focal = mount.focal * width * dice.uniform(0.99, 1.01)
        rows = max(height - HORIZON * width, 0.25 * height)
        K = torch.tensor([[focal, 0, 0.5 * width], [0, focal, rows], [0, 0, 1]], dtype=torch.float64)
        pose = ego_from_camera((x, y, z), math.radians(mount.yaw) + yaw, pitch, roll)
        views.append(RigView(name, Camera(height, width, K), pose))
    return views


def ego_from_camera(place: tuple[float, float, float], yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Tensor:
    """(4, 4) float64, ego from camera: a camera at `place` (metres). Yaw 0 looks ahead, yaw pi / 2 to the left.

    >>> look_left = ego_from_camera((1.0, 2.0, 3.0), math.pi / 2)
    >>> (look_left @ torch.tensor([0.0, 0, 5, 1], dtype=torch.float64)).round().tolist()  # 5 m in front of it
    [1.0, 7.0, 3.0, 1.0]
    """
    turns = []
    for angle, (first, second) in ((-yaw, (0, 2)), (pitch, (2, 1)), (roll, (0, 1))):
        turn = torch.eye(4, dtype=torch.float64)
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = math.sin(angle), -math.sin(angle)
        turns.append(turn)
    pose = EGO_AXES.T @ turns[0] @ turns[1] @ turns[2]
    pose[:3, 3] = torch.tensor(place, dtype=torch.float64)
    return pose


def ego_from_lidar() -> Tensor:
    """(4, 4) float64, ego from LiDAR; the scanner's x axis points to the right, its y axis ahead, as in nuScenes."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[:2, :2] = torch.tensor([[0.0, 1], [-1, 0]])
    pose[:3, 3] = torch.tensor(LIDAR_PLACE, dtype=torch.float64)
    return pose
