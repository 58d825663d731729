"""Images with depth in a second folder, for evaluation: without cameras and neighbours; only the names have to
match."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..config import MAX_PIXELS, MAX_SIDE
from ..errors import UserError
from ..images import IMAGE_SUFFIXES, natural_order, read_image, read_pixels
from .calibration import view_scale
from .safe_npy import NpyFile

DEPTH_SUFFIXES = (".png", ".npy")
"""Suffixes of depth files, in the order of search."""


class ImagePairs:
    """The images of a folder and of all folders below it, each with the depth file of the same relative name.

    Args:
        images: folder of images.
        truths: folder of depth files: 16-bit PNG, or .npy of floats in metres; 0 and non-finite values are unknown.
        scale: the value of a PNG that means one metre.

    Raises:
        UserError: no such folder, no image, or images without depth; gives their number and the first of them.
    """

    def __init__(self, images: str | Path, truths: str | Path, scale: float = 256.0) -> None:
        self.images, self.truths, self.scale = Path(images), Path(truths), scale
        self.files = image_files(self.images)
        if not self.truths.is_dir() or self.truths.resolve() == self.images.resolve():
            raise UserError(
                f"--truth {self.truths}: with --images it is the folder of depth files, one of the name of each image "
                "(.png of 16 bits or .npy), and another folder than the images'"
            )
        missing = [file for file in self.files if self._depth_path(file) is None]
        if missing:
            first = self.truths / missing[0].relative_to(self.images).with_suffix("")
            raise UserError(
                f"{len(missing)} of {len(self.files)} images of {self.images} have no depth in {self.truths}: the "
                f"first needs {first}.png or .npy; move images without depth away"
            )

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """The image's path below the folder of images."""
        return self.files[index].relative_to(self.images).as_posix()

    def read(self, index: int) -> np.ndarray:
        """uint8 RGB (h, w, 3)."""
        return read_image(self.files[index])

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
        stem = self.truths / image.relative_to(self.images)
        return next((path for path in map(stem.with_suffix, DEPTH_SUFFIXES) if path.is_file()), None)


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


def read_depth(path: Path, scale: float) -> np.ndarray:
    """A depth file: float32 (H, W), metres, 0 where unknown.

    Args:
        path: 16-bit grey PNG, or .npy of numbers in metres; non-finite numbers are unknown depth.
        scale: the value of a PNG that means one metre.

    Raises:
        UserError: missing or damaged file, or one of another kind.
    """
    if path.suffix.lower() == ".npy":
        return _read_npy(path)
    raw = read_pixels(path, cv2.IMREAD_UNCHANGED)
    if raw.dtype != np.uint16 or raw.ndim != 2:
        raise UserError(f"{path} is no depth image: found {raw.dtype} {raw.shape}, expected 16-bit grey")
    return (raw / np.float32(scale)).astype(np.float32)


def _read_npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as stream:
            file = NpyFile(stream, path.stat().st_size)
            size = [side for side in file.shape if side != 1]
            if len(size) != 2 or file.dtype.kind not in "fiu" or max(size) > MAX_SIDE or np.prod(size) > MAX_PIXELS:
                raise ValueError(f"it holds {file.dtype} {file.shape}")
            values = file.read()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; expected one depth map, (H, W), in metres") from error
    assert isinstance(values, np.ndarray)
    depth = values.reshape(size).astype(np.float32)
    depth[~np.isfinite(depth)] = 0
    if (depth < 0).any():
        raise UserError(f"{path} holds negative values, which are no depth: expected metres, 0 where unknown")
    return depth
