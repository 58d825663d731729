"""Depth from KITTI's laser scanner: reads scans, and projects them to a camera as the Eigen split's evaluation does."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import UserError
from .calibration import CAMERAS, check_rotation, kitti_intrinsics, read_calibration

DepthReference = Literal["camera", "scanner"]
"""Where depth is measured from: along the camera's z axis, or along the scanner's forward axis, whose origin lies 0.27
m behind the camera. Published metrics on the Eigen split use the scanner's, and so does evaluation; everything else
uses the camera's."""

BYTES_PER_POINT = 16
MAX_POINTS = 10_000_000
"""Largest number of points in a scan; one turn of KITTI's scanner has 120 thousand."""
MAX_METRES = 1000.0
"""Largest coordinate that is accepted; KITTI's scanner reaches 120 m."""


def read_scan(path: str | Path) -> np.ndarray:
    """Points of a velodyne .bin file, float32 (N, 4): x forward, y left, z up in metres, and reflectance.

    Raises:
        UserError: a missing, empty or truncated file, or coordinates that are non-finite or larger than `MAX_METRES`.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_POINTS * BYTES_PER_POINT or size % BYTES_PER_POINT:
            raise UserError(
                f"{path} is no whole velodyne scan: {size} bytes, expected a positive multiple of {BYTES_PER_POINT} "
                f"(four float32 per point), of at most {MAX_POINTS} points; copy or extract it again"
            )
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the velodyne scan {path}: {error.strerror}") from error
    points = np.frombuffer(raw, dtype="<f4").reshape(-1, 4)
    if not (np.isfinite(points).all() and (np.abs(points[:, :3]) <= MAX_METRES).all()):
        raise UserError(
            f"{path} holds coordinates that are not finite or beyond {MAX_METRES:g} m: it is damaged, or no scan"
        )
    return points


def velodyne_projection(calibration_folder: str | Path, side: str = "l") -> tuple[np.ndarray, tuple[int, int]]:
    """The matrix that projects velodyne points to pixels of a rectified colour camera.

    Args:
        calibration_folder: the day's folder, with calib_cam_to_cam.txt and calib_velo_to_cam.txt.
        side: "l" (camera 2) or "r" (camera 3).

    Returns:
        P_rect R_rect_00 [R | T], float64 (3, 4), and the image size (height, width) from S_rect.

    Raises:
        UserError: a missing or damaged file or entry, or values that no cameras and scanner on a car have.
    """
    folder = Path(calibration_folder)
    if side not in CAMERAS:
        raise UserError(f"unknown camera side {side!r}: use l or r")
    camera = f"0{CAMERAS[side]}"
    cameras, scanner = folder / "calib_cam_to_cam.txt", folder / "calib_velo_to_cam.txt"
    cam_to_cam, velo_to_cam = read_calibration(cameras), read_calibration(scanner)
    rectify = np.eye(4)
    rectify[:3, :3] = _rotation(cam_to_cam, "R_rect_00", cameras)
    rigid = np.eye(4)
    rigid[:3, :3] = _rotation(velo_to_cam, "R", scanner)
    rigid[:3, 3] = _entry(velo_to_cam, "T", 3, scanner)
    intrinsics = kitti_intrinsics(cameras, f"P_rect_{camera}", f"S_rect_{camera}")
    projection = _entry(cam_to_cam, f"P_rect_{camera}", 12, cameras).reshape(3, 4)
    offset = np.linalg.solve(intrinsics.K, projection[:, 3])
    for what, metres in ((f"{scanner}: T", rigid[:3, 3]), (f"{cameras}: last column of P_rect_{camera}", offset)):
        if np.abs(metres).max() > MAX_METRES:
            raise UserError(f"{what}: {metres.tolist()} m apart is no place on a car; use KITTI's own calibration file")
    assert intrinsics.image_size is not None
    return projection @ rectify @ rigid, intrinsics.image_size[::-1]


def _rotation(calibration: dict[str, np.ndarray], key: str, path: Path) -> np.ndarray:
    return check_rotation(_entry(calibration, key, 9, path).reshape(3, 3), f"{path}: {key}")


def _entry(calibration: dict[str, np.ndarray], key: str, count: int, path: Path) -> np.ndarray:
    if key not in calibration:
        raise UserError(f"{path} has no entry {key}: depth from the scanner needs it; use KITTI's own calibration file")
    values = np.asarray(calibration[key], dtype=np.float64).ravel()
    if len(values) != count:
        raise UserError(f"{path}: {key} has {len(values)} numbers, expected {count}")
    return values


def project_scan(
    points: np.ndarray,
    projection: np.ndarray,
    size: tuple[int, int],
    reference: DepthReference = "camera",
) -> np.ndarray:
    """Depth map of a scan: float32 (H, W), metres, 0 in pixels without a point; a pixel takes its nearest point.

    As in the field's `generate_depth_map` (and KITTI's MATLAB kit), points behind the scanner are dropped and 1 is
    subtracted from the rounded pixel coordinates, so that metrics are comparable: points lie one pixel above and to the
    left of where `K` projects them.

    Args:
        points: (N, 3 or more), velodyne coordinates.
        projection: (3, 4), velodyne to pixels; its third row gives the camera's z.
        size: (height, width) of the map.
    """
    height, width = size
    xyz = points[points[:, 0] >= 0, :3].astype(np.float64)
    projected = xyz @ projection[:, :3].T + projection[:, 3]
    in_front = projected[:, 2] > 0
    xyz, projected = xyz[in_front], projected[in_front]
    columns, rows = (np.round(projected[:, :2] / projected[:, 2:]) - 1).T
    inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
    depth = (xyz[:, 0] if reference == "scanner" else projected[:, 2])[inside]
    flat = np.full(height * width, np.inf, dtype=np.float64)
    np.minimum.at(flat, (rows[inside] * width + columns[inside]).astype(np.int64), depth)
    return np.where(np.isinf(flat), 0.0, flat).astype(np.float32).reshape(height, width)


def scan_path(data_path: str | Path, folder: str, frame: int) -> Path:
    """The file of a frame's scan; `folder` as in split files, "day/drive"."""
    return Path(data_path) / folder / "velodyne_points" / "data" / f"{frame:010d}.bin"


def read_scan_depth(
    data_path: str | Path, folder: str, frame: int, side: str = "l", reference: DepthReference = "camera"
) -> np.ndarray:
    """Depth map (H, W) of one frame of KITTI raw, from its scan and the calibration of its day (see `project_scan`)."""
    points = read_scan(scan_path(data_path, folder, frame))
    projection, size = velodyne_projection((Path(data_path) / folder).parent, side)
    return project_scan(points, projection, size, reference)


def scan_depth_of_image(image: str | Path) -> np.ndarray:
    """Depth map (H, W), metres, of the scan for an image of KITTI raw, DAY/DRIVE/image_02/data/NNNNNNNNNN.jpg.

    Raises:
        UserError: the image is not in this layout; or as `read_scan_depth`.
    """
    path = Path(image).absolute()
    side = next((side for side, camera in CAMERAS.items() if path.parts[-3:-1] == (f"image_0{camera}", "data")), None)
    if side is None or not path.stem.isdecimal():
        raise UserError(
            f"{image} lies beside no scan: expected KITTI's layout, DAY/DRIVE/image_02/data/0000000000.jpg with "
            "DAY/DRIVE/velodyne_points/data/0000000000.bin"
        )
    drive = path.parents[2]
    return read_scan_depth(drive.parent, drive.name, int(path.stem), side)


def improved_depth_path(data_path: str | Path, folder: str, frame: int, side: str = "l") -> Path:
    """The file of a frame's improved ground truth (KITTI depth benchmark), unpacked into KITTI raw."""
    camera = f"image_0{CAMERAS[side]}"
    return Path(data_path) / folder / "proj_depth" / "groundtruth" / camera / f"{frame:010d}.png"
