"""Coloured points from depth, and a voxel grid that fuses the points of many frames."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .camera import transform, unproject

EDGE = 0.08
"""Second difference of inverse depth over one or two pixels, relative to the largest of the three values, above which
a pixel lies on a depth edge."""
FAR = 4.0
"""Depth above this multiple of the median is left out: sky, and surfaces that are too far for exact depth."""
_MERGE_EVERY = 8
"""Number of frames after which the grid is sorted again."""


class Cloud(NamedTuple):
    """Coloured points."""

    points: np.ndarray
    """(N, 3) float32."""
    colours: np.ndarray
    """(N, 3) uint8, RGB."""


def on_surface(depth: np.ndarray) -> np.ndarray:
    """The pixels that lie on a surface: bool (H, W), False at depth edges, far away and where depth is unknown.

    The inverse depth of a plane is linear in the image, whatever its slope; at a depth edge it bends.

    >>> depth = np.where(np.arange(12) < 6, 4.0, 8.0)[None].repeat(3, 0)
    >>> on_surface(depth)[1].astype(int).tolist()
    [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]

    Args:
        depth: (H, W), above 0; 0 where unknown. Any unit.
    """
    known = depth > 0
    if not known.any():
        return known
    inverse = 1 / np.where(known, depth, np.inf)
    kept = known & (depth < FAR * np.median(depth[known]))
    for axis in (0, 1):
        for reach in (1, 2):
            before, after = _neighbours(inverse, axis, reach)
            nearest = np.maximum(np.maximum(before, after), inverse)
            kept &= np.abs(before - 2 * inverse + after) <= EDGE * nearest
    return kept


def _neighbours(values: np.ndarray, axis: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """The values `reach` pixels before and after each pixel, (H, W) each; outside, the map is extrapolated linearly."""
    size = values.shape[axis]
    margins = [(reach, reach) if number == axis else (0, 0) for number in (0, 1)]
    padded = np.pad(values, margins, mode="reflect", reflect_type="odd")
    return np.take(padded, range(size), axis), np.take(padded, range(2 * reach, size + 2 * reach), axis)


def cloud_of(image: np.ndarray, depth: np.ndarray, kept: np.ndarray, K: np.ndarray) -> Cloud:
    """The points of the kept pixels, in camera axes (x right, y down, z ahead) and in the unit of depth.

    Args:
        image: uint8 RGB (H, W, 3).
        depth: (H, W).
        kept: bool (H, W), for instance of `on_surface`.
        K: (3, 3), pixels of the depth map.
    """
    return Cloud(unproject(depth, K)[kept], image[kept])


class VoxelGrid:
    """Averages the points of many frames within cubes.

    A point has the weight 1 / depth^2, because the error of depth grows with the square of depth.

    Args:
        side: of a cube, in the unit of the points.
    """

    def __init__(self, side: float) -> None:
        self.side = side
        self._cells = np.empty((0, 3), np.int32)
        self._sums = np.empty((0, 8))
        """Columns: weight, weighted x, y, z, r, g, b, and number of frames."""
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, cloud: Cloud, pose: np.ndarray) -> None:
        """Adds the points of a frame, in its camera's axes; `pose`: (4, 4), world from camera, in the points' unit."""
        weight = 1 / np.maximum(cloud.points[:, 2:], 1e-6).astype(np.float64) ** 2
        world = transform(cloud.points, pose).astype(np.float64)
        cells, sums = _summed(
            np.floor(world / self.side).astype(np.int32), np.hstack([weight, weight * world, weight * cloud.colours])
        )
        self._waiting.append((cells, np.hstack([sums, np.ones((len(sums), 1))])))
        if len(self._waiting) >= _MERGE_EVERY:
            self._merge()

    def cloud(self, min_frames: int = 1) -> Cloud:
        """One point for each cube that at least `min_frames` frames saw, in world coordinates."""
        self._merge()
        kept = self._sums[self._sums[:, 7] >= min_frames]
        means = kept[:, 1:7] / kept[:, :1]
        return Cloud(means[:, :3].astype(np.float32), np.round(means[:, 3:]).clip(0, 255).astype(np.uint8))

    def _merge(self) -> None:
        cells = np.concatenate([self._cells, *(cells for cells, _ in self._waiting)])
        sums = np.concatenate([self._sums, *(sums for _, sums in self._waiting)])
        self._waiting.clear()
        self._cells, self._sums = _summed(cells, sums)


def _summed(cells: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct cells (n, 3) of cells (N, 3), and the sums (n, C) of their values (N, C)."""
    if not len(cells):
        return cells, values
    order = np.lexsort(cells.T)
    cells, values = cells[order], values[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(cells, axis=0) != 0).any(1)])
    return cells[starts], np.add.reduceat(values, starts, axis=0)
