"""Images with depth in a second folder, for evaluation: without cameras and neighbours; only the names have to
match."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import UserError
from .calibration import view_scale
from .depth_files import KITTI_PNG_SCALE, read_depth
from .image_files import ImageFiles, image_files

DEPTH_SUFFIXES = (".png", ".npy")
"""Suffixes of depth files, in the order of search."""


class ImagePairs(ImageFiles):
    """The images of a folder and of all folders below it, each with the depth file of the same relative name.

    Args:
        images: folder of images.
        truths: folder of depth files: 16-bit PNG, or .npy of floats in metres; 0 and non-finite values are unknown.
        scale: the value of a PNG that means one metre.

    Raises:
        UserError: no such folder, no image, or images without depth; gives their number and the first of them.
    """

    def __init__(self, images: str | Path, truths: str | Path, scale: float = KITTI_PNG_SCALE) -> None:
        super().__init__(Path(images), image_files(Path(images)))
        self.truths, self.scale = Path(truths), scale
        if not self.truths.is_dir() or self.truths.resolve() == self.root.resolve():
            raise UserError(
                f"--truth {self.truths}: with --images it is the folder of depth files, one of the name of each image "
                "(.png of 16 bits or .npy), and another folder than the images'"
            )
        missing = [file for file in self.files if self._depth_path(file) is None]
        if missing:
            first = self.truths / missing[0].relative_to(self.root).with_suffix("")
            raise UserError(
                f"{len(missing)} of {len(self.files)} images of {self.root} have no depth in {self.truths}: the "
                f"first needs {first}.png or .npy; move images without depth away"
            )

    def depth(self, index: int) -> np.ndarray:
        """float32 (H, W), metres, 0 where unknown.

        Raises:
            UserError: a damaged file, one of another kind, or of other proportions than the image.
        """
        path = self._depth_path(self.files[index])
        assert path is not None
        depth = read_depth(path, self.scale)
        remedy = "give images and depth of the same view"
        view_scale(depth.shape[::-1], self.read(index).shape[1::-1], f"depth {path}", remedy)
        return depth

    def _depth_path(self, image: Path) -> Path | None:
        stem = self.truths / image.relative_to(self.root)
        return next((path for path in map(stem.with_suffix, DEPTH_SUFFIXES) if path.is_file()), None)
