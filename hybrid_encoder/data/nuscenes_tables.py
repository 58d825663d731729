"""Reads the tables of nuScenes: JSON lists of flat records that name each other by tokens.

The schema is that of nuScenes v1.0 (arXiv 1903.11027). A table of v1.0-trainval has up to 2.6 million records, so what
is not needed is dropped while the file is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..errors import UserError
from .calibration import check_matrix
from .splits import stays_inside

REMEDY = "extract nuScenes' archive of metadata again"
MAX_METRES = 1e6
Record = dict[str, Any]
T = TypeVar("T")
Row = TypeVar("Row", bound=tuple)


class Pose(NamedTuple):
    """Where a sensor or the vehicle is."""

    translation: tuple[float, ...]
    """x, y, z, metres."""
    rotation: tuple[float, ...]
    """Unit quaternion w, x, y, z."""

    def matrix(self) -> np.ndarray:
        """(4, 4) float64, maps points of this frame to the frame that the pose is stated in.

        >>> Pose((1, 2, 3), (0, 0, 0, 1)).matrix()[:3].tolist()
        [[-1.0, 0.0, 0.0, 1.0], [0.0, -1.0, 0.0, 2.0], [0.0, 0.0, 1.0, 3.0]]
        """
        matrix = np.eye(4)
        matrix[:3, :3] = rotations(np.array(self.rotation))
        matrix[:3, 3] = self.translation
        return matrix


class Calibration(NamedTuple):
    """A record of calibrated_sensor."""

    token: str
    channel: str
    sensor_to_ego: Pose
    intrinsics: np.ndarray | None
    """(3, 3) float64, pixels; None: the record has none, as that of a scanner."""


class Shot(NamedTuple):
    """A record of sample_data: what one sensor saw at a sample's moment."""

    sample: str
    calibration: Calibration
    ego_pose: str
    file: str
    """Relative to the folder of the data."""
    size: tuple[int, int]
    """Width and height; 0 of a scanner."""


def read_table(folder: Path, name: str, make: Callable[[Record], Row | None]) -> list[Row]:
    """What `make` makes of the records of a table, without the None.

    Args:
        make: may raise KeyError, TypeError and ValueError about its record.

    Raises:
        UserError: the file is missing or no list of records, or a record has not the form that `make` expects; names
            the file and the record.
    """
    path = folder / f"{name}.json"

    def row(record: Record) -> Row | None:
        try:
            return make(record)
        except (KeyError, TypeError, ValueError) as error:
            wrong = f"it has no field {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{path}: record {str(record.get('token'))[:64]}: {wrong}; {REMEDY}") from error

    try:
        with path.open(encoding="utf-8") as file:
            rows = json.load(file, object_hook=row)
    except UserError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot read the table {path}: {reason}; {REMEDY}") from error
    if not isinstance(rows, list) or not all(row is None or isinstance(row, tuple) for row in rows):
        raise UserError(f"{path}: expected a list of records; {REMEDY}")
    return [row for row in rows if row is not None]


def read_calibrations(folder: Path) -> dict[str, Calibration]:
    """All calibrated sensors by their tokens.

    Raises:
        UserError: as `read_table`.
    """
    names = dict(read_table(folder, "sensor", lambda record: (text(record, "token"), text(record, "channel"))))

    def calibration(record: Record) -> Calibration:
        token, channel = text(record, "token"), named(names, record, "sensor_token", "sensor")
        rows = record["camera_intrinsic"]
        if rows == []:
            return Calibration(token, channel, pose(record), None)
        if not (isinstance(rows, list) and len(rows) == 3):
            raise ValueError(f"camera_intrinsic is {str(rows)[:80]}, expected 3 rows of 3 numbers, or none")
        K = np.array([finite(row, "a row of camera_intrinsic", 3) for row in rows])
        return Calibration(token, channel, pose(record), check_matrix(K, channel))

    return {row.token: row for row in read_table(folder, "calibrated_sensor", calibration)}


def read_shots(folder: Path, samples: set[str], channels: set[str]) -> list[Shot]:
    """What the sensors of these channels saw at the samples' moments.

    Raises:
        UserError: as `read_table`.
    """
    calibrations = read_calibrations(folder)

    def shot(record: Record) -> Shot | None:
        if record["is_key_frame"] is not True or record["sample_token"] not in samples:
            return None
        calibration = named(calibrations, record, "calibrated_sensor_token", "calibrated_sensor")
        if calibration.channel not in channels:
            return None
        file, size = text(record, "filename"), (record["width"], record["height"])
        if not stays_inside(file):
            raise ValueError(f"filename {file[:100]!r} is no plain path within the data folder")
        if not all(type(side) is int and side >= 0 for side in size):
            raise ValueError(f"width and height are {size}, expected pixels")
        return Shot(text(record, "sample_token"), calibration, text(record, "ego_pose_token"), file, size)

    return read_table(folder, "sample_data", shot)


def read_ego_poses(folder: Path, tokens: set[str]) -> dict[str, Pose]:
    """The vehicle's poses in the global frame by their tokens.

    Raises:
        UserError: as `read_table`, or a token has no pose.
    """

    def ego_pose(record: Record) -> tuple[str, Pose] | None:
        return (text(record, "token"), pose(record)) if record["token"] in tokens else None

    poses = dict(read_table(folder, "ego_pose", ego_pose))
    lacking = tokens - poses.keys()
    if lacking:
        raise UserError(f"{folder / 'ego_pose.json'} lacks {len(lacking)} records, {min(lacking)[:64]} first; {REMEDY}")
    return poses


def text(record: Record, key: str) -> str:
    """A field that holds text, such as a token."""
    value = record[key]
    if not isinstance(value, str):
        raise ValueError(f"{key} is {str(value)[:80]}, expected text")
    return value


def finite(value: Any, what: str, count: int) -> tuple[float, ...]:
    """A list of so many finite numbers."""
    is_list = isinstance(value, list) and len(value) == count
    if not is_list or not all(type(item) in (int, float) and abs(item) <= MAX_METRES for item in value):
        raise ValueError(f"{what} is {str(value)[:80]}, expected {count} finite numbers")
    return tuple(map(float, value))


def pose(record: Record) -> Pose:
    """The fields translation and rotation."""
    rotation = finite(record["rotation"], "rotation", 4)
    length = sum(value * value for value in rotation) ** 0.5
    if abs(length - 1) > 1e-2:
        raise ValueError(f"rotation {list(rotation)} has length {length:g}, expected a unit quaternion w, x, y, z")
    translation = finite(record["translation"], "translation", 3)
    return Pose(translation, tuple(value / length for value in rotation))


def named(table: dict[str, T], record: Record, key: str, name: str) -> T:
    """What a record's token names in another table."""
    token = text(record, key)
    if token not in table:
        raise ValueError(f"{key} is {token[:64]}, which the table {name} lacks")
    return table[token]


def rotations(quaternions: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4), w, x, y, z, as matrices (..., 3, 3).

    >>> rotations(np.array([0.0, 0, 0, 1])).tolist()
    [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    w, x, y, z = np.moveaxis(quaternions, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)
