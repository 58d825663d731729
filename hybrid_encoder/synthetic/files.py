"""Writes rendered scenes in the layouts of KITTI raw and TuSimple, so that any reader of these can use them.

- `OUT/kitti`: 2000_01_01/2000_01_01_drive_NNNN_sync/{image_02,image_03,velodyne_points}/data, calibration, and
  splits/synthetic;
- `OUT/tusimple`: clips/synthetic/NNNNNN/20.jpg, label_data_train.json, label_data_val.json.

Frames of whole drives are held out for validation and test; these also have their exact depth as 16-bit PNG, where
KITTI's improved ground truth lies (proj_depth/groundtruth).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import UserError
from ..writing import new_folder
from .sequence import BASELINE, SEED_STRIDE, check_seed, default_intrinsics, iterate_frames

DAY = "2000_01_01"
SPLIT = "synthetic"
SCAN_LINES = np.radians(np.linspace(2.0, -24.8, 64))
"""Elevations of the scanner's beams (KITTI's HDL-64E)."""
SCAN_STEP = math.radians(0.18)
SCAN_RANGE = 80.0
VELO_R = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
VELO_T = np.array([0.0, -0.08, -0.27])
"""Camera from velodyne: the scanner sits 8 cm above the camera and 27 cm behind it, about as in KITTI."""
JPEG_QUALITY = 95
TUSIMPLE_SIZE = (720, 1280)
TUSIMPLE_PITCH = math.radians(-4)
FIRST_CLIP = 500_000
"""Streets of the clips come after this many of the drives', which never are so many."""
MAX_LANES = 5
MIN_LANE_POINTS = 7


def write_synthetic(
    out: str | Path,
    seed: int,
    sequences: int,
    frames: int,
    height: int = 375,
    width: int = 1242,
    *,
    stereo: bool = False,
    clips: int | None = None,
    clip_size: tuple[int, int] = TUSIMPLE_SIZE,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> None:
    """Write `out`/kitti and `out`/tusimple; `out` appears when all is written, or not at all.

    Args:
        out: a new or empty folder.
        seed: of all scenes.
        sequences: drives, at least 3; about a sixth each is held out for validation and test.
        frames: frames of a drive, at least 3. The first and the last of each are in no split: every listed frame has
            neighbours.
        height, width: of KITTI's images.
        stereo: write the right camera (image_03) too, and list both sides.
        clips: TuSimple images, each of a street of its own, every fifth for validation; None: four per drive.
        clip_size: their height and width.
        device: where to render.
        progress: show a bar.

    Raises:
        UserError: too few sequences, frames or clips, a size too small, or `out` is a file or a folder with something
            in it.
    """
    clips = 4 * sequences if clips is None else clips
    check_seed(seed)
    if sequences < 3 or frames < 3:
        raise UserError(
            f"{sequences} sequences of {frames} frames: expected at least 3 sequences (train, validation and test) "
            "of 3 frames"
        )
    if clips < 2:
        raise UserError(f"{clips} TuSimple images: expected at least 2, one to train and one to validate")
    if min(height, width) < 32 or clip_size[0] < 90 or clip_size[1] < 160:
        raise UserError(
            f"{height}x{width} with TuSimple images of {clip_size[0]}x{clip_size[1]}: use at least 32x32 and 90x160"
        )
    with (
        new_folder(out) as folder,
        tqdm(total=sequences * frames + clips, desc="rendering", unit="image", disable=not progress) as bar,
    ):
        write_kitti(folder / "kitti", seed, sequences, frames, height, width, stereo, device, bar)
        write_tusimple(folder / "tusimple", seed, clips, clip_size, device, bar)


def write_kitti(
    root: Path,
    seed: int,
    sequences: int,
    frames: int,
    height: int,
    width: int,
    stereo: bool,
    device: str | torch.device,
    bar: tqdm,
) -> None:
    """KITTI raw in the Monodepth2 folder layout, with calibration, scans and split files."""
    K = default_intrinsics(height, width)
    write_calibration(root / DAY, K, height, width)
    held_out = max(1, round(sequences / 6))
    parts = ["train"] * (sequences - 2 * held_out) + ["val"] * held_out + ["test"] * held_out
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number, part in enumerate(parts):
        folder = f"{DAY}/{DAY}_drive_{number + 1:04d}_sync"
        drive = root / folder
        for frame, view in enumerate(
            iterate_frames(seed * SEED_STRIDE + number, frames, height, width, device, stereo)
        ):
            write_jpeg(drive / "image_02" / "data" / f"{frame:010d}.jpg", view.image)
            if view.image_right is not None:
                write_jpeg(drive / "image_03" / "data" / f"{frame:010d}.jpg", view.image_right)
            depth = view.depth[0].numpy()
            scan = sample_scan(depth, view.image.float().mean(0).numpy() / 255, K)
            write_bytes(drive / "velodyne_points" / "data" / f"{frame:010d}.bin", scan.astype("<f4").tobytes())
            if part != "train":
                write_depth(drive / "proj_depth" / "groundtruth" / "image_02" / f"{frame:010d}.png", view.depth)
                if view.depth_right is not None:
                    write_depth(
                        drive / "proj_depth" / "groundtruth" / "image_03" / f"{frame:010d}.png", view.depth_right
                    )
            if 0 < frame < frames - 1:
                lines[part] += [f"{folder} {frame} {side}" for side in ("lr" if stereo else "l")]
            bar.update()
    for part, listed in lines.items():
        write_bytes(root / "splits" / SPLIT / f"{part}_files.txt", ("\n".join(listed) + "\n").encode())


def write_calibration(folder: Path, K: np.ndarray, height: int, width: int) -> None:
    """The day's two calibration files, with the keys that depth readers use.

    KITTI counts pixels from one: its readers round projected coordinates and subtract 1. So P_rect is K with 1 added
    to the principal point, and these readers recover the depth at the very pixels it was taken from.
    """
    P2 = np.concatenate([K, np.zeros((3, 1))], axis=1)
    P2[:2, 2] += 1
    P3 = P2.copy()
    P3[0, 3] = -BASELINE * K[0, 0]
    entries: dict[str, np.ndarray] = {}
    for camera, projection in (("00", P2), ("02", P2), ("03", P3)):
        entries |= {
            f"S_rect_{camera}": np.array([width, height]),
            f"R_rect_{camera}": np.eye(3),
            f"P_rect_{camera}": projection,
        }
    write_entries(folder / "calib_cam_to_cam.txt", entries)
    write_entries(folder / "calib_velo_to_cam.txt", {"R": VELO_R, "T": VELO_T})


def write_entries(path: Path, entries: dict[str, np.ndarray]) -> None:
    lines = ["calib_time: 01-Jan-2000 00:00:00"]
    lines += [f"{key}: " + " ".join(f"{value:.9e}" for value in array.ravel()) for key, array in entries.items()]
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def sample_scan(depth: np.ndarray, grey: np.ndarray, K: np.ndarray) -> np.ndarray:
    """What a scanner with 64 beams would return, within the camera's view.

    Args:
        depth: (H, W) metres, 0 where there is none.
        grey: (H, W) in [0, 1], taken for reflectance.
        K: (3, 3) pixels.

    Returns:
        (N, 4) velodyne x forward, y left, z up, reflectance: points at the centres of the pixels that the beams fall
        on (parallax between scanner and camera is left out), so that projection gives back the depth map's own
        values.
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


def write_tusimple(
    root: Path, seed: int, clips: int, size: tuple[int, int], device: str | torch.device, bar: tqdm
) -> None:
    """TuSimple's layout: one labelled image a clip, label files for training and validation."""
    height, width = size
    K = np.array([[0.75 * width, 0, 0.5 * width], [0, 0.75 * width, 0.5 * height], [0, 0, 1]])
    scale = height / 720
    rows = list(range(round(160 * scale), height, max(1, round(10 * scale))))
    labels: dict[str, list[str]] = {"train": [], "val": []}
    street = seed * SEED_STRIDE + FIRST_CLIP
    for number in range(clips):
        lanes: list[list[int]] = []
        while not lanes:  # a street whose lines are hidden is passed over
            view = next(iterate_frames(street, 1, height, width, device, K=K, pitch=TUSIMPLE_PITCH, dead_end=False))
            lanes = label_lanes(view.lanes, rows)
            street += 1
        name = f"clips/{SPLIT}/{number:06d}/20.jpg"
        write_jpeg(root / name, view.image)
        part = "val" if number % 5 == 4 or (number == clips - 1 and not labels["val"]) else "train"
        labels[part].append(json.dumps({"lanes": lanes, "h_samples": rows, "raw_file": name}))
        bar.update()
    for part, listed in labels.items():
        write_bytes(root / f"label_data_{part}.json", ("\n".join(listed) + "\n").encode())


def label_lanes(lanes: list[np.ndarray], rows: list[int]) -> list[list[int]]:
    """TuSimple's labels of lanes (n, 2) near to far: x at each of the ascending rows, -2 where the lane is not seen.

    Only lanes seen at `MIN_LANE_POINTS` rows or more, and of these the `MAX_LANES` seen at most rows, from left to
    right.
    """
    at = np.array(rows, dtype=np.float64)
    labels = []
    for lane in lanes:
        x, y = lane[::-1].astype(np.float64).T
        after = np.searchsorted(y, at).clip(1, len(y) - 1)
        seen = (at >= y[0]) & (at <= y[-1]) & (y[after] - y[after - 1] < 3)  # wider steps: something stands between
        if seen.sum() >= MIN_LANE_POINTS:
            labels.append(np.where(seen, np.interp(at, y, x).round().clip(0), -2).astype(int))
    labels = sorted(labels, key=lambda label: -int((label >= 0).sum()))[:MAX_LANES]
    return [label.tolist() for label in sorted(labels, key=lambda label: int(label[label >= 0][-1]))]


def write_jpeg(path: Path, image: Tensor) -> None:
    """image: uint8 (3, H, W), RGB."""
    bgr = image.flip(0).permute(1, 2, 0).contiguous().numpy()
    write_image(path, bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def write_depth(path: Path, depth: Tensor) -> None:
    """depth: float32 (1, H, W), metres, as KITTI's 16-bit PNG: 256 to the metre, 0 where there is none."""
    write_image(path, np.round(depth[0].numpy() * 256).clip(0, 65535).astype(np.uint16))


def write_image(path: Path, image: np.ndarray, options: list[int] | None = None) -> None:
    done, data = cv2.imencode(path.suffix, image, options or [])
    if not done:
        raise RuntimeError(f"OpenCV cannot encode {image.shape} as {path.suffix}")
    write_bytes(path, data.tobytes())


def write_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
