"""The grid of cells on the ground that a bird's-eye-view map covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError

MAX_CELLS = 2048
"""Largest number of cells along a side."""


@dataclass(frozen=True)
class BevGrid:
    """Square cells in the ego frame (x forward, y left), in metres; defaults as in arXiv 2008.05711, section 5.1.

    A map of the grid has the shape (cells along x, cells along y): index [i, j] is the cell whose centre lies at
    (x_min + (i + 0.5) cell, y_min + (j + 0.5) cell). Flip both axes to show it with forward up and left to the left.

    >>> BevGrid().shape
    (200, 200)

    Raises:
        UserError: an extent that is not a whole number of cells from 1 to `MAX_CELLS`.
    """

    x_min: float = -50.0
    x_max: float = 50.0
    y_min: float = -50.0
    y_max: float = 50.0
    cell: float = 0.5
    """Side of a cell, metres."""

    def __post_init__(self) -> None:
        for axis, low, high in (("x", self.x_min, self.x_max), ("y", self.y_min, self.y_max)):
            cells = (high - low) / self.cell if self.cell > 0 else 0.0
            if not (0.5 < cells < MAX_CELLS + 0.5 and abs(cells - round(cells)) < 1e-6):
                raise UserError(
                    f"a BEV grid from {low:g} to {high:g} m along {axis} in cells of {self.cell:g} m: expected a whole "
                    f"number of cells, 1 to {MAX_CELLS}"
                )

    @property
    def shape(self) -> tuple[int, int]:
        """Cells along x and along y."""
        return round((self.x_max - self.x_min) / self.cell), round((self.y_max - self.y_min) / self.cell)

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """x (X,) and y (Y,) of the cells' centres, float64 metres.

        >>> [axis.tolist() for axis in BevGrid(0, 2, -1, 1, 1.0).centres()]
        [[0.5, 1.5], [-0.5, 0.5]]
        """
        along, across = self.shape
        return self.x_min + (np.arange(along) + 0.5) * self.cell, self.y_min + (np.arange(across) + 0.5) * self.cell
