"""Rigs in the layout of nuScenes as simple as can be: a straight road, and boxes painted as coloured hulls."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hybrid_encoder.data.nuscenes import CAMERAS
from hybrid_encoder.data.rig import MapMask, RigBox, RigCamera, RigSample
from hybrid_encoder.synthetic.nuscenes_tables import TableWriter, Tracked

YAWS = dict(zip(CAMERAS, np.radians([55, 0, -55, 110, 180, -110]), strict=True))
ROAD, GRASS, SKY = (90, 90, 95), (70, 120, 60), (200, 180, 170)
"""BGR."""
SIDE = 120.0
"""Metres of the map."""


def write_rigs(root: Path, parts: dict[str, int], size: tuple[int, int], seed: int = 0) -> None:
    """One scene a part, with so many samples in it.

    Args:
        size: width and height of the images.
    """
    rng, writer = np.random.default_rng(seed), TableWriter(root)
    for part, count in parts.items():
        for number in range(count):
            pose, half = np.eye(4), rng.uniform(3, 6)
            turn = rng.uniform(-0.5, 0.5)
            cos, sin = np.cos(turn), np.sin(turn)
            pose[:2, :2], pose[:2, 3] = [[cos, -sin], [sin, cos]], SIDE / 2
            name = f"{part}-{number}"
            road = np.zeros((int(SIDE / 0.1), int(SIDE / 0.1)), np.uint8)
            middle = len(road) // 2
            road[middle - int(half / 0.1) : middle + int(half / 0.1)] = 1
            mask = root / "maps" / f"{name}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(mask), road)
            boxes = tuple(_box(rng, half, pose) for _ in range(rng.integers(3, 9)))
            cameras = tuple(_camera(root, camera, name, size) for camera in CAMERAS)
            for camera in cameras:
                camera.image.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(camera.image), paint(camera, boxes, pose, half))
            sample = RigSample(name, name, cameras, boxes, pose, MapMask(mask), None, None)
            writer.add(sample, number, [Tracked(i, 1) for i in range(len(boxes))])
    writer.write("v1.0-painted", {part: [f"{part}-{n}" for n in range(count)] for part, count in parts.items()})


def _box(rng: np.random.Generator, half: float, pose: np.ndarray) -> RigBox:
    """A car on the road, along it."""
    while True:
        along, across = rng.uniform(-22, 22), rng.uniform(-half + 1, half - 1)
        if np.hypot(along, across) > 5:
            break
    centre = np.linalg.inv(pose) @ [SIDE / 2 + along, SIDE / 2 + across, 0.8, 1]
    return RigBox("vehicle.car", centre[:3], np.array([4.4, 1.9, 1.6]), -np.arctan2(pose[1, 0], pose[0, 0]), 4)


def _camera(root: Path, name: str, sample: str, size: tuple[int, int]) -> RigCamera:
    width, height = size
    cos, sin = np.cos(YAWS[name]), np.sin(YAWS[name])
    pose = np.eye(4)
    pose[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    pose[:3, 3] = 1.0 + 0.5 * cos, 0.5 * sin, 1.6
    K = np.array([[0.75 * width, 0, (width - 1) / 2], [0, 0.75 * width, (height - 1) / 2], [0, 0, 1]])
    return RigCamera(name, root / "samples" / name / f"{sample}.png", K, pose, size)


def paint(camera: RigCamera, boxes: tuple[RigBox, ...], pose: np.ndarray, half: float) -> np.ndarray:
    """uint8 BGR (h, w, 3)."""
    width, height = camera.size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = camera.camera_to_ego[:3, :3] @ np.linalg.inv(camera.intrinsics) @ np.stack([u, v, np.ones_like(u)]).reshape(3, -1)
    reach = -camera.camera_to_ego[2, 3] / np.minimum(rays[2], -1e-6)
    ground = camera.camera_to_ego[:3, 3, None] + reach * rays
    across = pose[1, :2] @ ground[:2]
    image = np.where((np.abs(across) < half)[:, None], ROAD, GRASS)
    image[rays[2] > -1e-3] = SKY
    image = np.ascontiguousarray(image.reshape(height, width, 3).astype(np.uint8))
    to_camera = np.linalg.inv(camera.camera_to_ego)
    for box in sorted(boxes, key=lambda box: -np.linalg.norm(box.centre)):
        corners = np.array(np.meshgrid((-0.5, 0.5), (-0.5, 0.5), (-0.5, 0.5))).reshape(3, -1) * box.size[:, None]
        cos, sin = np.cos(box.yaw), np.sin(box.yaw)
        x, y, z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ corners + box.centre[:, None]
        seen = (to_camera @ [x, y, z, np.ones(8)])[:3]
        if seen[2].min() > 0.3:
            pixels = (camera.intrinsics @ (seen / seen[2]))[:2].T
            cv2.fillConvexPoly(image, cv2.convexHull(pixels.round().astype(np.int32)), (40, 60, 220), cv2.LINE_AA)
    return image
