"""NYU Depth v2's 654 test images: from the published .mat file, or from folders of images that are commonly made of
it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..images import natural_order
from .depth_files import read_depth
from .image_files import ImageFiles
from .mat import read_mat

LABELED, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
SIZE = (480, 640)
PNG_SCALE = 1000.0
"""The value of the folders' PNG files that means one metre."""


class NyuFile:
    """`DATA/nyu_depth_v2_labeled.mat` (MATLAB 7.3, which is HDF5 and needs h5py) and `DATA/splits.mat`, which lists
    its test images.

    Raises:
        UserError: h5py is not installed, or a file is missing, damaged or of another kind.
    """

    def __init__(self, data_path: str | Path) -> None:
        self.path = Path(data_path) / LABELED
        self.numbers = read_mat(Path(data_path) / SPLITS, "testNdxs").ravel().astype(int) - 1
        self._file = _open_hdf5(self.path)
        images, depths = (self._file.get(name) for name in ("images", "depths"))
        shapes = [getattr(array, "shape", None) for array in (images, depths)]
        count = len(depths) if shapes[1] else 0
        if shapes != [(count, 3, *SIZE[::-1]), (count, *SIZE[::-1])]:
            raise UserError(f"{self.path} holds images {shapes[0]} and depths {shapes[1]}: expected NYU's labeled set")
        if not len(self.numbers) or self.numbers.min() < 0 or self.numbers.max() >= count:
            raise UserError(f"{Path(data_path) / SPLITS} names other images than the {count} of {self.path}")

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, index: int) -> str:
        """The image's number in the .mat file, from 1."""
        return f"NYU image {self.numbers[index] + 1}"

    def read(self, index: int) -> np.ndarray:
        """uint8 RGB (480, 640, 3)."""
        return np.ascontiguousarray(np.asarray(self._file["images"][self.numbers[index]], np.uint8).transpose(2, 1, 0))

    def depth(self, index: int) -> np.ndarray:
        """float32 (480, 640), metres."""
        return np.ascontiguousarray(np.asarray(self._file["depths"][self.numbers[index]], np.float32).T)


class NyuFolders(ImageFiles):
    """`DATA/SCENE/rgb_NNNNN.jpg` and `DATA/SCENE/sync_depth_NNNNN.png` (16 bits, millimetres): the test folder that is
    commonly made of the .mat file.

    Raises:
        UserError: no image, or an image without depth.
    """

    def __init__(self, data_path: str | Path) -> None:
        root = Path(data_path)
        found = (path for kind in ("jpg", "png") for path in root.glob(f"**/rgb_*.{kind}"))
        super().__init__(root, sorted(found, key=natural_order))
        if not self.files:
            raise UserError(
                f"--data_path {root}: expected {LABELED} and {SPLITS}, or folders of rgb_NNNNN.jpg and "
                "sync_depth_NNNNN.png (16 bits, millimetres)"
            )
        missing = next((path for path in map(self._depth_path, self.files) if not path.is_file()), None)
        if missing is not None:
            raise UserError(f"no depth at {missing}: every rgb_NNNNN needs its sync_depth_NNNNN.png")

    def depth(self, index: int) -> np.ndarray:
        """float32 (h, w), metres, 0 where unknown."""
        return read_depth(self._depth_path(self.files[index]), PNG_SCALE)

    @staticmethod
    def _depth_path(image: Path) -> Path:
        return image.with_name(f"sync_depth_{image.stem.removeprefix('rgb_')}.png")


def open_nyu(data_path: str | Path) -> NyuFile | NyuFolders:
    """NYU's test images in either layout; errors as of the two classes."""
    return NyuFile(data_path) if (Path(data_path) / LABELED).is_file() else NyuFolders(data_path)


def _open_hdf5(path: Path) -> Any:
    try:
        h5py = import_module("h5py")
    except ImportError as error:
        raise UserError(f'{path} is an HDF5 file: pip install "hybrid-encoder[nyu]" to read it') from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} cannot be read as HDF5: {error}; download it again") from error
