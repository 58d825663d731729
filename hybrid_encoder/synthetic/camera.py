"""The camera of a rendered view: image size, intrinsics, pose, and the rays through its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.calibration import KITTI_NORMALISED_K
from .settings import check_image_size


class Rays(NamedTuple):
    """One ray for each pixel."""

    origin: list[float]
    """x, y, z of the camera in the world."""
    direction: Tensor
    """(3, H, W) float32 in the world; its component along the camera's axis is 1: a ray's parameter is depth."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera on a car.

    Args:
        height, width: of its images, pixels.
        K: (3, 3) float64 intrinsics, pixels.
        pitch: upwards, radians; added to the pitch that a scene draws.

    Raises:
        UserError: an image size that cannot be rendered.
    """

    height: int
    width: int
    K: Tensor
    pitch: float = 0.0

    def __post_init__(self) -> None:
        check_image_size(self.height, self.width)

    def rays(self, pose: Tensor, device: torch.device) -> Rays:
        """The rays of this camera at a pose, (4, 4) float64, world from camera."""
        x = (torch.arange(self.width, dtype=torch.float64) - self.K[0, 2]) / self.K[0, 0]
        y = (torch.arange(self.height, dtype=torch.float64) - self.K[1, 2]) / self.K[1, 1]
        R = pose[:3, :3]
        across = (R[:, 0, None] * x).float()[:, None, :]
        down = (R[:, 1, None] * y + R[:, 2, None]).float()[:, :, None]
        return Rays(pose[:3, 3].tolist(), (across + down).to(device))


def kitti_camera(height: int, width: int) -> Camera:
    """KITTI's average camera at this image size."""
    return Camera(height, width, torch.from_numpy(default_intrinsics(height, width)))


def default_intrinsics(height: int, width: int) -> np.ndarray:
    """(3, 3) float64, pixels: those of KITTI's average camera at this image size.

    >>> default_intrinsics(100, 200).round(3).tolist()
    [[116.0, 0.0, 100.0], [0.0, 192.0, 50.0], [0.0, 0.0, 1.0]]
    """
    return KITTI_NORMALISED_K * np.array([[width], [height], [1.0]])


def camera_to_world(x: float, z: float, height: float, yaw: float, pitch: float, roll: float) -> Tensor:
    """(4, 4) float64, world from camera. Yaw turns to the right, pitch upwards, roll clockwise; radians and metres."""
    c, s = math.cos(yaw), math.sin(yaw)
    turn = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)
    c, s = math.cos(pitch), math.sin(pitch)
    tilt = torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float64)
    c, s = math.cos(roll), math.sin(roll)
    lean = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = turn @ tilt @ lean
    pose[:3, 3] = torch.tensor([x, -height, z], dtype=torch.float64)
    return pose
