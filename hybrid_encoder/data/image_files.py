"""Lists the images of a folder and reads them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..images import IMAGE_SUFFIXES, natural_order, read_image


class ImageFiles:
    """Single images, in order.

    Attributes:
        root: the folder that holds them at any depth.
        files: their paths.
    """

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root, self.files = root, files

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """The image's path below the root."""
        return self.files[index].relative_to(self.root).as_posix()

    def read(self, index: int) -> np.ndarray:
        """uint8 RGB (h, w, 3)."""
        return read_image(self.files[index])


def image_files(folder: Path) -> list[Path]:
    """The images of a folder and of all folders below it, frame_9 before frame_10; hidden ones are left out.

    Raises:
        UserError: no such folder, or no image.
    """
    if not folder.is_dir():
        raise UserError(f"--images {folder}: no such folder")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    visible = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not visible:
        raise UserError(f"--images {folder}: no image in it; known kinds are {' '.join(sorted(IMAGE_SUFFIXES))}")
    return sorted(visible, key=natural_order)
