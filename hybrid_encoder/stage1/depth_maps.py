"""Depth maps of any model beside images: pseudo depth that orders the points of stage 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from ..data.calibration import view_scale
from ..data.depth_files import read_numbers
from ..data.present import complete_samples
from ..errors import UserError
from ..images import IMAGE_SUFFIXES, natural_order, read_image
from .sequences import (
    MIN_DEPTH_RATIO,
    MIN_RANGE_SHARE,
    SEQUENCES_PER_DEPTH_MAP,
    held_out,
    log_depth,
    sequences_from_distance,
)

DepthKind = Literal["metric", "relative", "inverse"]
"""What the numbers of a depth map are. "metric": depth in any unit, 0 where unknown; "relative": depth up to a factor
and a shift; "inverse": disparity up to both, larger is nearer, as Depth Anything and MiDaS predict it."""
_ENDS = (".npy", ".png", "_depth.npy", "_depth.png")
"""Ends of a depth map's name, after the stem of its image's; the last two are those of `hybrid-encoder predict`."""
_RANGE = (1, 99)
"""Percentiles of a map that bound its range: a few pixels may be outliers."""


class DepthMapSource:
    """Images whose points are ordered by depth maps of the same names; every call of `read` draws new points.

    Args:
        images: folder of images, at any depth below it.
        depths: folder of depth maps under the same paths: .npy, or 16-bit .png. They may be smaller than the images.
        kind: what the maps hold.
        part: "train" or "val"; every tenth image is held out for "val".

    Attributes:
        entries: the images' paths.

    Raises:
        UserError: no image.
    """

    def __init__(self, images: Path, depths: Path, kind: DepthKind, part: str) -> None:
        self.images, self.depths, self.kind = images, depths, kind
        found = (path for path in images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        self.entries = held_out(sorted(found, key=natural_order), part)
        if not self.entries:
            raise UserError(f"{images} holds no image: expected {', '.join(sorted(IMAGE_SUFFIXES))}")

    def leave_out_missing(self, skip_bad: int) -> None:
        """Leaves out images without a depth map, at most `skip_bad` of them.

        Raises:
            UserError: more images have none, or all of them; names the first.
        """
        self.entries = complete_samples(
            self.entries,
            lambda image, folders: {self.depth_path(image, folders.has): f"depth of {image}"},
            f"depth maps are missing from {self.depths}",
            skip_bad,
            lambda path, _: f"expected one beside each image's path, named {path.stem} with {', '.join(_ENDS)}",
        )

    def depth_path(self, image: Path, exists: Callable[[Path], bool] = Path.is_file) -> Path:
        """The depth map of an image; where there is none, the first of the names that it may have."""
        place = self.depths / image.relative_to(self.images).parent
        names = [f"{image.stem}{end}" for end in _ENDS]
        return place / next((name for name in names if exists(place / name)), names[0])

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        return str(self.entries[index].relative_to(self.images))

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        image, path = read_image(self.entries[index]), self.depth_path(self.entries[index])
        distance, least = read_distance(path, self.kind)
        remedy = "use the depth maps of these images, whole ones"
        scale = view_scale(distance.shape[::-1], image.shape[1::-1], f"the depth map {path}", remedy)
        points = sequences_from_distance(distance, least, SEQUENCES_PER_DEPTH_MAP, rng)
        return image, points * np.array(scale, dtype=np.float32)


def read_distance(path: Path, kind: DepthKind) -> tuple[np.ndarray, float]:
    """A depth map as numbers that grow with distance, and the least difference between neighbours of a sequence.

    Returns:
        (H, W) float64, NaN where unknown: the logarithm of metric depth; for other kinds, numbers from 0 (the map's
        nearest) to 1 (its farthest).

    Raises:
        UserError: as `read_numbers`.
    """
    values = read_numbers(path)
    if kind == "metric":
        return log_depth(values), math.log(MIN_DEPTH_RATIO)
    values = values.astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    ascending = -values if kind == "inverse" else values
    if np.isnan(ascending).all():
        return ascending, MIN_RANGE_SHARE
    low, high = np.nanpercentile(ascending, _RANGE)
    if low == high:
        return np.full_like(ascending, np.nan), MIN_RANGE_SHARE
    return ((ascending - low) / (high - low)).clip(0, 1), MIN_RANGE_SHARE
