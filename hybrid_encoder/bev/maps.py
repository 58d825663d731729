"""The maps that a BEV model learns to draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.rig import RigSample
from ..errors import UserError
from .grid import BevGrid
from .options import CLASSES, GridOptions, check_classes
from .raster import road_map, vehicle_map


@dataclass(frozen=True)
class MapSettings:
    """Which maps are drawn.

    Attributes:
        grid: their cells.
        classes: some of `CLASSES`.
        least_visibility: as for `vehicle_map`.

    Raises:
        UserError: classes that do not exist, or one that comes twice.
    """

    grid: BevGrid
    classes: tuple[str, ...] = CLASSES
    least_visibility: int = 1

    def __post_init__(self) -> None:
        check_classes(self.classes)

    @classmethod
    def of(cls, options: GridOptions) -> MapSettings:
        """Those of the options.

        Raises:
            UserError: an extent that is no whole number of cells.
        """
        reach = options.extent
        grid = BevGrid(-reach, reach, -reach, reach, options.cell)
        return cls(grid, options.classes, options.least_visibility)

    def draw(self, sample: RigSample) -> np.ndarray:
        """uint8 (K, X, Y), 1 where the class is, in the order of the classes.

        Raises:
            UserError: a road is to be drawn, and the sample has no map.
        """
        if "road" in self.classes and sample.map_mask is None:
            raise UserError(
                f"sample {sample.token} of {sample.scene} has no map: leave the road out (--classes vehicle)"
            )
        maps = [
            vehicle_map(sample, self.grid, self.least_visibility) if name == "vehicle" else road_map(sample, self.grid)
            for name in self.classes
        ]
        return np.stack(maps).astype(np.uint8)
