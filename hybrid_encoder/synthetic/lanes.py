"""The visible points of the painted lines in a rendered view."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .camera import Camera
from .scene import Scene

LANE_RANGE = 80.0
"""Largest depth of a lane point, metres."""


def visible_lanes(scene: Scene, camera: Camera, pose: Tensor, depth: Tensor) -> list[np.ndarray]:
    """The painted lines of a view: float32 (n, 2) each, x and y in pixels from near to far.

    Points outside the image and hidden points are left out. Points of a line are at least a row apart.

    Args:
        pose: (4, 4) float64, world from camera.
        depth: (H, W), metres, of the rendered view.
    """
    height, width = depth.shape
    road, depths, K = scene.road, depth.numpy(), camera.K
    to_camera = torch.linalg.inv(pose).numpy()
    to_world = (pose[:3, :3] @ torch.linalg.inv(K)).numpy()
    camera_height = -float(pose[1, 3])
    z = float(pose[2, 3]) + 1 / np.linspace(1 / 1.5, 1 / LANE_RANGE, 4 * height)
    centre = road.amplitude * (np.sin(road.frequency * z + road.phase) - np.sin(road.phase))
    lanes = []
    for line in road.lines:
        world = np.stack([centre + line.offset, np.zeros_like(z), z, np.ones_like(z)])
        points = (to_camera @ world)[:3]
        points = points[:, points[2] > 0.5]
        x, y, _ = (K.numpy() @ points) / points[2]
        inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        x, y = x[inside], y[inside]
        rows, columns = y.round().astype(int), x.round().astype(int)
        down = to_world[1] @ np.stack([columns, rows, np.ones_like(rows)])  # downward component of the pixel's ray
        seen = depths[rows, columns]
        shown = (seen > 0) & (np.abs(seen * down - camera_height) < 0.01)  # the pixel sees the ground
        x, y = x[shown], y[shown]
        kept, last = [], np.inf
        for i, at in enumerate(y):
            if at <= last - 1:
                kept.append(i)
                last = at
        if len(kept) >= 2:
            lanes.append(np.stack([x[kept], y[kept]], axis=1).astype(np.float32))
    return lanes
