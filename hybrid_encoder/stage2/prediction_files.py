"""What `evaluate` writes of its predictions: one file of all, pictures, and PNGs for KITTI's server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from ..colormap import color_range, colorize_depth, colorize_disparity, tile_grid, write_picture
from ..data.safe_npy import NpyFile
from ..errors import UserError
from ..evaluation import EvaluationProtocol
from ..images import cut_bottom
from ..model.predictor import resize_map
from ..prediction.pictures import write_depth_png
from ..writing import atomic_path, not_written
from .evaluate_options import BENCHMARK
from .evaluation_data import EvaluationData
from .options import EvaluateOptions

BENCHMARK_OUT = "benchmark_predictions"
_SPARSE = 0.5
"""Where less of the truth is known, it consists of single points."""
_WIDE = 2
"""Pictures that are so much wider than high are stacked."""


def saved(predictions: Iterable[np.ndarray], count: int, path: Path) -> Iterator[np.ndarray]:
    """Passes predictions on, (h, w) each, and writes them as one float32 array (count, h, w) when all have passed.

    Raises:
        UserError: the file cannot be written, or there are other than `count` predictions.
    """
    try:
        with atomic_path(path) as partial:
            stored: np.memmap | None = None
            written = 0
            for disparity in predictions:
                if stored is None:
                    shape = (count, *disparity.shape)
                    stored = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
                stored[written] = disparity
                written += 1
                yield disparity
            if stored is None or written != count:
                raise UserError(f"{path} is not written: {written} of {count} images were predicted")
            stored.flush()
    except OSError as error:
        raise not_written(path, error) from error


def stored_disparities(path: Path, count: int) -> Iterator[np.ndarray]:
    """Inverse depths of a .npy file (N, H, W), one in memory at a time.

    Raises:
        UserError: missing or damaged file, or one of another shape or number of maps.
    """
    try:
        with path.open("rb") as stream:
            file = NpyFile(stream, path.stat().st_size)
            if len(file.shape) != 3 or file.dtype.kind != "f" or file.is_fortran:
                raise ValueError(f"it holds {file.dtype} {file.shape}")
            if file.shape[0] != count:
                raise ValueError(f"it holds {file.shape[0]} maps of {count} images")
            yield from file.read_each()
    except (OSError, ValueError) as error:
        raise UserError(
            f"--ext_disp_to_eval {path}: {error}; expected the inverse depths of all images, (N, H, W), as "
            "--save_pred_disps writes them"
        ) from error


class Pictures:
    """Writes a picture of each image: itself, its predicted depth, and the truth on the same scale.

    Args:
        data: the images.
        crop_bottom: share of their rows that the model did not see.
    """

    def __init__(self, folder: Path, data: EvaluationData, crop_bottom: float) -> None:
        self.folder, self.data, self.crop_bottom = folder, data, crop_bottom

    def __call__(self, index: int, disparity: np.ndarray, truth: np.ndarray | None = None) -> None:
        """Writes `NNNNNN.png`, the image's number counted from 0."""
        image = cut_bottom(self.data.read(index), self.crop_bottom)
        height, width = image.shape[:2]
        limits = color_range(disparity)
        tiles = [("image", image), ("predicted", colorize_disparity(resize_map(disparity, height, width), limits))]
        if truth is not None:
            tiles.append(("truth", _truth_picture(cut_bottom(truth, self.crop_bottom), disparity, limits)))
        write_picture(self.folder / f"{index:06d}.png", tile_grid(tiles, 1 if width > _WIDE * height else len(tiles)))


def _truth_picture(truth: np.ndarray, disparity: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """The truth's colours on the prediction's scale, median for median; unknown is black. Single points of a scan are
    drawn larger, the nearest on top."""
    known = truth > 0
    if not known.any():
        return colorize_depth(truth)
    predicted = resize_map(disparity, *truth.shape)[known]
    ratio = float(np.median(1 / truth[known]) / max(np.median(predicted), 1e-9))
    if known.mean() < _SPARSE:
        inverse = cv2.dilate(np.where(known, 1 / np.where(known, truth, 1), 0), np.ones((5, 5), np.uint8))
        truth = np.where(inverse > 0, 1 / np.where(inverse > 0, inverse, 1), 0)
    return colorize_depth(truth, (limits[0] * ratio, limits[1] * ratio))


def write_only(
    options: EvaluateOptions, data: EvaluationData, predictions: Iterable[np.ndarray], protocol: EvaluationProtocol
) -> str:
    """Writes predictions without a truth, as the options ask; says what, in one line.

    PNGs for KITTI's server hold depth x 256 in 16 bits at the image's own size, up to the protocol's farthest depth,
    and are named as the images.
    """
    pictures = None if options.vis_dir is None else Pictures(options.vis_dir, data, options.crop_bottom)
    server = options.out_dir(options.weights) / BENCHMARK_OUT if options.split == BENCHMARK else None
    for index, disparity in enumerate(predictions):
        if server is not None:
            size = data.read(index).shape[:2]
            depth = protocol.scale_factor / np.maximum(resize_map(disparity, *size), 1e-9)
            write_depth_png(server / Path(data.names[index]).with_suffix(".png"), np.minimum(depth, protocol.max_depth))
        if pictures is not None:
            pictures(index, disparity)
    places = [server, options.vis_dir, options.out_dir(options.weights) if options.save_pred_disps else None]
    return f"{len(data.names)} images predicted, written to {', '.join(str(place) for place in places if place)}"
