"""A rig of cameras around a vehicle at one moment: images with their calibration, boxes, a road map, a LiDAR sweep.

The ego frame is the vehicle's at that moment, nuScenes' convention: x forward, y to the left, z up, metres, the origin
on the ground below the rear axle. A camera's frame is x to the right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class RigCamera:
    """One camera's image and calibration."""

    name: str
    """For instance CAM_FRONT."""
    image: Path
    intrinsics: np.ndarray
    """(3, 3) float64, pixels of the file."""
    camera_to_ego: np.ndarray
    """(4, 4) float64: maps points of the camera, at the moment of its exposure, to the sample's ego frame."""
    size: tuple[int, int]
    """Width and height of the file, pixels."""


@dataclass(frozen=True, eq=False)
class RigBox:
    """An object's box, upright in the ego frame."""

    category: str
    """nuScenes' name, for instance vehicle.car."""
    centre: np.ndarray
    """(3,) float64, metres in the ego frame."""
    size: np.ndarray
    """(3,) float64, metres: length (along the object's own x axis), width, height."""
    yaw: float
    """Radians about z, from the ego frame's x axis towards its y axis."""
    visibility: int | None
    """nuScenes' bins of the visible share: 1 up to 40%, 2 up to 60%, 3 up to 80%, 4 above; None: unknown."""


@dataclass(frozen=True)
class MapMask:
    """A picture of the ground from above in the global frame.

    Its pixels are non-zero on roads. Columns run along x from 0; the last row begins at y = 0, rows above it lie at
    larger y.
    """

    path: Path
    cell: float = 0.1
    """Metres of a pixel's side."""


@dataclass(frozen=True, eq=False)
class RigSample:
    """All that is known of one moment."""

    token: str
    """Names the sample; no two of a data set have the same."""
    scene: str
    cameras: tuple[RigCamera, ...]
    boxes: tuple[RigBox, ...]
    ego_to_global: np.ndarray
    """(4, 4) float64."""
    map_mask: MapMask | None
    """None: there is no map."""
    lidar: Path | None
    """float32, 5 values a point: x, y, z in the scanner's frame, intensity, ring; None: there is no sweep."""
    lidar_to_ego: np.ndarray | None
    """(4, 4) float64; None where `lidar` is."""


class RigSource(Protocol):
    """The samples of a split, in an order that does not change."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> RigSample:
        """A sample by its number, 0 to len - 1; its image files are there, but not yet read."""
        ...
