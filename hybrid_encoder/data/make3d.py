"""Make3D's test images (Saxena et al. 2009), as models of driving are evaluated on them: the middle of each image,
twice as wide as high, and laser depth up to 70 m."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import UserError
from ..images import IMAGE_SUFFIXES, natural_order
from .image_files import ImageFiles
from .mat import read_mat

IMAGES, DEPTHS = "Test134", ("Gridlaserdata", "Test134Depth", "Test134Depth/Gridlaserdata")
"""Folders of the published archives."""
GRID = (55, 305)
"""Rows and columns of the laser's grid of depths."""
GRID_ROWS = slice(17, 38)
"""The rows of the grid in the middle of the image."""


class Make3D(ImageFiles):
    """`DATA/Test134/img-NAME.jpg` and `DATA/Gridlaserdata/depth_sph_corr-NAME.mat`.

    Raises:
        UserError: no such folders, no image, or an image without depth.
    """

    def __init__(self, data_path: str | Path) -> None:
        root = Path(data_path)
        found = (path for path in (root / IMAGES).glob("img-*") if path.suffix.lower() in IMAGE_SUFFIXES)
        super().__init__(root / IMAGES, sorted(found, key=natural_order))
        folder = next((root / name for name in DEPTHS if any((root / name).glob("depth_sph_corr-*.mat"))), None)
        if not self.files or folder is None:
            raise UserError(
                f"--data_path {root}: expected {IMAGES}/img-*.jpg and {DEPTHS[0]}/depth_sph_corr-*.mat, as Make3D's "
                "archives Test134 and Test134Depth hold them"
            )
        self.depth_files = [folder / f"depth_sph_corr-{path.stem.removeprefix('img-')}.mat" for path in self.files]
        missing = next((path for path in self.depth_files if not path.is_file()), None)
        if missing is not None:
            raise UserError(f"no depth at {missing}: extract Make3D's Test134Depth again")

    def read(self, index: int) -> np.ndarray:
        """uint8 RGB (w / 2, w, 3): the middle rows."""
        image = super().read(index)
        kept = image.shape[1] // 2
        if image.shape[0] < kept:
            raise UserError(f"{self.files[index]} is {image.shape[1]}x{image.shape[0]}: expected portrait format")
        top = (image.shape[0] - kept) // 2
        return image[top : top + kept]

    def depth(self, index: int) -> np.ndarray:
        """float32 (21, 305), metres: the grid's rows in the middle; each is about 41 rows of the image high.

        Raises:
            UserError: a damaged file, or one of another shape.
        """
        path = self.depth_files[index]
        grid = read_mat(path, "Position3DGrid")
        if grid.shape != (*GRID, 4):
            raise UserError(f"{path}: Position3DGrid is {grid.shape}, expected {(*GRID, 4)}; extract it again")
        depth = grid[GRID_ROWS, :, 3].astype(np.float32)
        return np.where(np.isfinite(depth) & (depth > 0), depth, 0)
