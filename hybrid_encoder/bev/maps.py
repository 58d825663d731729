"""The maps that a BEV model learns to predict."""

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
    """Which maps are made.

    Attributes:
        grid: their cells.
        classes: some of `CLASSES`.
        least_visibility: as for `vehicle_map`.

    Raises:
        UserError: as `check_classes`.
    """

    grid: BevGrid
    classes: tuple[str, ...] = CLASSES
    least_visibility: int = 1

    def __post_init__(self) -> None:
        check_classes(self.classes)

    @classmethod
    def of(cls, options: GridOptions) -> MapSettings:
        """The settings of options.

        Raises:
            UserError: as `BevGrid`.
        """
        reach = options.extent
        grid = BevGrid(-reach, reach, -reach, reach, options.cell)
        return cls(grid, options.classes, options.least_visibility)

    def draw(self, sample: RigSample) -> np.ndarray:
        """The maps of a sample: uint8 (K, X, Y), 1 where the class is, in the order of the classes.

        Raises:
            UserError: `classes` has "road", and the sample has no map.
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
