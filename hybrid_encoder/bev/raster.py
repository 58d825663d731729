"""The true maps of a sample on a grid: the vehicle map and the road map."""

from __future__ import annotations

import numpy as np

from ..data.map_mask import is_road
from ..data.rig import RigBox, RigSample
from ..errors import UserError
from .grid import BevGrid

VEHICLE = "vehicle."
"""Categories whose names start so are vehicles, two-wheelers among them (arXiv 2008.05711, section 5.1)."""


def vehicle_map(sample: RigSample, grid: BevGrid, least_visibility: int = 1) -> np.ndarray:
    """The cells whose centre lies within a vehicle's box: bool, of the grid's shape.

    Args:
        least_visibility: leave out boxes whose visibility bin is known and lower; 2 leaves out boxes of which all
            cameras together see less than 40%.
    """
    vehicles = np.zeros(grid.shape, dtype=bool)
    for box in sample.boxes:
        if box.category.startswith(VEHICLE) and (box.visibility is None or box.visibility >= least_visibility):
            fill_box(vehicles, box, grid)
    return vehicles


def fill_box(cells: np.ndarray, box: RigBox, grid: BevGrid) -> None:
    """Sets, in place, the cells (X, Y) of a map whose centres lie within a box as seen from above."""
    reach = float(np.hypot(box.size[0], box.size[1])) / 2
    parts, offsets = [], []
    for centres, centre in zip(grid.centres(), box.centre[:2], strict=True):
        near = slice(*np.searchsorted(centres, (centre - reach, centre + reach)).tolist())
        parts.append(near)
        offsets.append(centres[near] - centre)
    x, y = offsets[0][:, None], offsets[1][None]
    cos, sin = np.cos(box.yaw), np.sin(box.yaw)
    along, across = cos * x + sin * y, cos * y - sin * x
    cells[parts[0], parts[1]] |= (np.abs(along) <= box.size[0] / 2) & (np.abs(across) <= box.size[1] / 2)


def road_map(sample: RigSample, grid: BevGrid) -> np.ndarray:
    """The cells whose centres the sample's map mask marks as road: bool, of the grid's shape.

    nuScenes' masks mark roads and pavements together. Masks of `hybrid-encoder synth` mark only roads.

    Raises:
        UserError: the sample has no map, or its mask cannot be read.
    """
    if sample.map_mask is None:
        raise UserError(f"sample {sample.token} of {sample.scene} has no map: its road is unknown")
    x, y = np.meshgrid(*grid.centres(), indexing="ij")
    points = np.stack([x, y, np.zeros_like(x), np.ones_like(x)])
    east, north, _, _ = np.tensordot(sample.ego_to_global, points, axes=1)
    return is_road(sample.map_mask, east, north)
