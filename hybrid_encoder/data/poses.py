"""Files of camera poses: KITTI's (twelve numbers a line) and TUM's (time, position, quaternion)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..writing import write_text
from .calibration import NUMBER, check_rotation
from .text import read_text

MAX_METRES = 1e6
"""Positions farther away are no positions of a drive."""


def read_kitti_poses(path: str | Path) -> np.ndarray:
    """The poses of a drive, float64 (N, 4, 4), world from camera; a line holds the upper three rows of a matrix.

    Raises:
        UserError: a missing file, no pose in it, or a line of another form (the message gives its number).
    """
    poses = []
    for number, line in enumerate(read_text(path, "file of poses").split("\n"), start=1):
        if not line.strip():
            continue
        fields, where = line.split(), f"{path}, line {number}"
        if len(fields) != 12 or not all(NUMBER.fullmatch(field) for field in fields):
            raise UserError(f"{where}: expected 12 numbers, the upper rows of a camera's pose; use KITTI's own poses")
        pose = np.eye(4)
        pose[:3] = np.array(fields, dtype=np.float64).reshape(3, 4)
        check_rotation(pose[:3, :3], f"{where}: its left part")
        if np.abs(pose[:3, 3]).max() > MAX_METRES:
            raise UserError(f"{where}: a camera at {pose[:3, 3].tolist()} m is on no drive; use KITTI's own poses")
        poses.append(pose)
    if not poses:
        raise UserError(f"{path} holds no pose: expected 12 numbers a line")
    return np.stack(poses)


def read_poses(path: str | Path) -> np.ndarray:
    """The poses of a drive, float64 (N, 4, 4), world from camera, from a file in KITTI's form or in TUM's.

    Raises:
        UserError: as `read_kitti_poses`.
    """
    first = next((line for line in read_text(path, "file of poses").split("\n") if _holds_values(line)), "")
    return read_tum_poses(path) if len(first.split()) == 8 else read_kitti_poses(path)


def read_tum_poses(path: str | Path) -> np.ndarray:
    """The poses of a drive, float64 (N, 4, 4), world from camera; a line holds `time tx ty tz qx qy qz qw`, or a
    comment after #.

    Raises:
        UserError: a missing file, no pose in it, or a line of another form (the message gives its number).
    """
    poses = []
    for number, line in enumerate(read_text(path, "file of poses").split("\n"), start=1):
        if not _holds_values(line):
            continue
        fields, where = line.split(), f"{path}, line {number}"
        if len(fields) != 8 or not all(NUMBER.fullmatch(field) for field in fields):
            raise UserError(f"{where}: expected 8 numbers, time tx ty tz qx qy qz qw")
        values = np.array(fields, dtype=np.float64)
        length = np.linalg.norm(values[4:])
        if abs(length - 1) > 1e-2 or np.abs(values[1:4]).max() > MAX_METRES:
            raise UserError(f"{where}: no pose: a quaternion of length {length:.3g}, at {values[1:4].tolist()} m")
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation_of(values[4:] / length), values[1:4]
        poses.append(pose)
    if not poses:
        raise UserError(f"{path} holds no pose: expected 8 numbers a line")
    return np.stack(poses)


def _holds_values(line: str) -> bool:
    """Whether a line is neither blank nor a comment."""
    return bool(line.strip()) and not line.startswith("#")


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) of a quaternion x, y, z, w of length 1.

    >>> rotation_of(np.array([0.0, 0.0, 1.0, 0.0])).tolist()
    [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    x, y, z, w = quaternion
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross + 0.0


def write_kitti_poses(path: Path, poses: np.ndarray) -> None:
    """Writes poses (N, 4, 4), world from camera, in KITTI's form.

    Raises:
        UserError: the file cannot be written.
    """
    lines = (" ".join(f"{value:.9e}" for value in pose[:3].ravel()) for pose in poses)
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_tum_poses(path: Path, poses: np.ndarray, seconds: Sequence[float]) -> None:
    """Writes poses (N, 4, 4), world from camera, as TUM RGB-D's tools read them: `time tx ty tz qx qy qz qw`.

    Raises:
        UserError: the file cannot be written.
    """
    lines = ["# time tx ty tz qx qy qz qw"]
    for pose, time in zip(poses, seconds, strict=True):
        numbers = [*pose[:3, 3], *quaternion(pose[:3, :3])]
        lines.append(f"{time:.6f} " + " ".join(f"{value:.9f}" for value in numbers))
    write_text(path, "\n".join(lines) + "\n")


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """x, y, z, w of a rotation (3, 3), w at least 0: the eigenvector of Bar-Itzhack's matrix (2000), which also works
    for a matrix that is only nearly a rotation.

    >>> quaternion(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])).round(3).tolist()
    [0.0, 0.0, 0.707, 0.707]
    """
    (a, b, c), (d, e, f), (g, h, i) = rotation
    matrix = np.array(
        [
            [a - e - i, b + d, c + g, h - f],
            [b + d, e - a - i, f + h, c - g],
            [c + g, f + h, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    largest = np.linalg.eigh(matrix)[1][:, -1]
    return largest * (1.0 if largest[3] >= 0 else -1.0) + 0.0
