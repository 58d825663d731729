"""Writes rendered drives in the layout of KITTI raw, with calibration, scans and split files.

Drives for validation and test also get exact depth, in the place of KITTI's improved ground truth.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .camera import Camera, kitti_camera
from .sequence import BASELINE, SEED_STRIDE, SyntheticFrame, iterate_frames
from .settings import SynthSettings
from .writers import write_bytes, write_depth, write_jpeg, write_lines

DAY = "2000_01_01"
SPLIT = "synthetic"
SCAN_LINES = np.radians(np.linspace(2.0, -24.8, 64))
"""Elevations of the scanner's beams (KITTI's HDL-64E)."""
SCAN_STEP = math.radians(0.18)
"""Azimuth between two points of a beam."""
SCAN_RANGE = 80.0
"""Metres."""
VELO_R = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
VELO_T = np.array([0.0, -0.08, -0.27])
"""Rotation and translation, camera from velodyne: the scanner is 8 cm above the camera and 27 cm behind it, about as in
KITTI."""


def write_kitti(root: Path, settings: SynthSettings, bar: tqdm) -> None:
    """Writes all drives and their split files; the bar counts frames."""
    camera = kitti_camera(settings.height, settings.width)
    write_calibration(root / DAY, camera)
    held_out = max(1, round(settings.sequences / 6))
    parts = ["train"] * (settings.sequences - 2 * held_out) + ["val"] * held_out + ["test"] * held_out
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number, part in enumerate(parts):
        folder = f"{DAY}/{DAY}_drive_{number + 1:04d}_sync"
        street = settings.seed * SEED_STRIDE + number
        for frame, view in enumerate(iterate_frames(street, settings.frames, camera, settings.device, settings.stereo)):
            write_frame(root / folder, frame, view, camera, with_depth=part != "train")
            if 0 < frame < settings.frames - 1:
                lines[part] += [f"{folder} {frame} {side}" for side in ("lr" if settings.stereo else "l")]
            bar.update()
    for part, listed in lines.items():
        write_lines(root / "splits" / SPLIT / f"{part}_files.txt", listed)


def write_frame(drive: Path, frame: int, view: SyntheticFrame, camera: Camera, with_depth: bool) -> None:
    """Writes one frame's images, its scan and, if wanted, its exact depth."""
    sides = [("image_02", view.image, view.depth)]
    if view.image_right is not None and view.depth_right is not None:
        sides.append(("image_03", view.image_right, view.depth_right))
    for side, image, depth in sides:
        write_jpeg(drive / side / "data" / f"{frame:010d}.jpg", image)
        if with_depth:
            write_depth(drive / "proj_depth" / "groundtruth" / side / f"{frame:010d}.png", depth)
    scan = sample_scan(view.depth[0].numpy(), view.image.float().mean(0).numpy() / 255, camera.K.numpy())
    write_bytes(drive / "velodyne_points" / "data" / f"{frame:010d}.bin", scan.astype("<f4").tobytes())


def write_calibration(folder: Path, camera: Camera) -> None:
    """Writes the day's two calibration files, with the keys that depth readers use.

    KITTI counts pixels from 1: its readers round projected coordinates and subtract 1. So P_rect is K with 1 added to
    the principal point, and readers project a point to the pixel that it came from.
    """
    K = camera.K.numpy()
    P2 = np.concatenate([K, np.zeros((3, 1))], axis=1)
    P2[:2, 2] += 1
    P3 = P2.copy()
    P3[0, 3] = -BASELINE * K[0, 0]
    entries: dict[str, np.ndarray] = {}
    for number, projection in (("00", P2), ("02", P2), ("03", P3)):
        entries |= {
            f"S_rect_{number}": np.array([camera.width, camera.height]),
            f"R_rect_{number}": np.eye(3),
            f"P_rect_{number}": projection,
        }
    write_entries(folder / "calib_cam_to_cam.txt", entries)
    write_entries(folder / "calib_velo_to_cam.txt", {"R": VELO_R, "T": VELO_T})


def write_entries(path: Path, entries: dict[str, np.ndarray]) -> None:
    lines = ["calib_time: 01-Jan-2000 00:00:00"]
    lines += [f"{key}: " + " ".join(f"{value:.9e}" for value in array.ravel()) for key, array in entries.items()]
    write_lines(path, lines)


def sample_scan(depth: np.ndarray, grey: np.ndarray, K: np.ndarray) -> np.ndarray:
    """The points of a scanner with 64 beams within the camera's view.

    Args:
        depth: (H, W), metres, 0 where there is none.
        grey: (H, W) in [0, 1], used as reflectance.
        K: (3, 3), pixels.

    Returns:
        (N, 4): x forward, y left, z up in the scanner's axes, and reflectance. The points lie at the centres of the
        pixels that the beams hit, and parallax between scanner and camera is ignored. So projection of the points
        gives exactly the values of the depth map.
    """
    height, width = depth.shape
    side = math.atan(width / K[0, 0])
    azimuth = np.arange(-side, side, SCAN_STEP)
    elevation = SCAN_LINES[:, None]
    u = K[0, 0] * np.tan(azimuth) + K[0, 2] + 0 * elevation
    v = K[1, 2] - K[1, 1] * np.tan(elevation) / np.cos(azimuth)
    column, row = u.round().astype(int), v.round().astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    row, column = np.divmod(np.unique(row[inside] * width + column[inside]), width)
    z = depth[row, column].astype(np.float64)
    hit = (z > 0) & (z < SCAN_RANGE)
    row, column, z = row[hit], column[hit], z[hit]
    camera = np.stack([(column - K[0, 2]) / K[0, 0] * z, (row - K[1, 2]) / K[1, 1] * z, z], axis=1)
    velodyne = (camera - VELO_T) @ VELO_R
    return np.concatenate([velodyne, grey[row, column, None]], axis=1)
