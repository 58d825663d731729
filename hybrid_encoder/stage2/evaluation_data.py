"""The images of an evaluation, and what is known of their depth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from ..data.calibration import read_intrinsics
from ..data.dataset import FrameSource
from ..data.depth_files import read_depth
from ..data.ground_truth import GroundTruth
from ..data.image_files import ImageFiles, image_files
from ..data.image_pairs import ImagePairs
from ..data.kitti import KittiRawSource
from ..data.make3d import Make3D
from ..data.nyu import open_nyu
from ..data.velodyne import improved_depth_path
from ..errors import UserError
from ..metric.motion import steps_of
from ..synthetic.sequence import SyntheticSource
from .evaluate_options import BENCHMARK
from .frames import check_same_view, ground_truth, open_source
from .options import EvaluateOptions

MEASURED = ("velodyne", "improved")
"""What --truth says of depth that lies beside the images; else it names a file."""
BENCHMARK_FOLDER = "test_depth_prediction_anonymous"
"""KITTI's test images for depth prediction, within depth_selection.zip."""


class ImagesWithDepth(Protocol):
    """A data set for evaluation alone: no neighbours, no camera."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Names the image in messages and rows."""
        ...

    def read(self, index: int) -> np.ndarray:
        """uint8 RGB (h, w, 3)."""
        ...

    def depth(self, index: int) -> np.ndarray:
        """(H, W), metres, 0 where unknown."""
        ...


@dataclass(frozen=True)
class EvaluationData:
    """Images with their depth."""

    names: list[str]
    read: Callable[[int], np.ndarray]
    """uint8 RGB (h, w, 3) of an image, by number."""
    truths: Callable[[], Iterator[np.ndarray]]
    """Opens the depth maps of all images, (H, W) metres, 0 where unknown."""
    intrinsics: Callable[[int], np.ndarray] | None = None
    """(3, 3) of an image, by number, pixels; None where nobody knows them."""
    scans: Callable[[int], np.ndarray | None] | None = None
    """Depth of an image from its scan, (H, W) metres, 0 where unknown, by number; None where there are no scans."""
    steps: Callable[[], np.ndarray] | None = None
    """(N,), how far the camera went to each image from the one before, metres; nan where that is of another drive. None
    where nobody knows it."""

    def images(self) -> Iterator[np.ndarray]:
        """All images, in order."""
        return map(self.read, range(len(self.names)))


def has_frames(options: EvaluateOptions) -> bool:
    """Whether the images are frames of drives, which have neighbours."""
    return options.images is None and options.split != BENCHMARK and options.dataset not in ("nyu", "make3d")


def open_data(options: EvaluateOptions) -> EvaluationData:
    """The images that the options name.

    Raises:
        UserError: no such data.
    """
    if options.dataset == "kitti" and options.split == BENCHMARK:
        return _only_images(_benchmark_images(options))
    if options.images is not None:
        if options.no_eval:
            return _only_images(options.images)
        return _with_camera(options, _with_depth(ImagePairs(options.images, options.truth, options.depth_scale)))
    if options.dataset in ("nyu", "make3d"):
        if options.data_path is None:
            raise UserError(f"--dataset {options.dataset} needs --data_path")
        return _with_depth(open_nyu(options.data_path) if options.dataset == "nyu" else Make3D(options.data_path))
    return of_frames(options, open_source(options, options.part, (0,), options.seed))


def of_frames(options: EvaluateOptions, source: FrameSource) -> EvaluationData:
    """The frames of a data set."""
    names = [source.name(index) for index in range(len(source))]
    return EvaluationData(
        names,
        lambda index: source.read(index, 0),
        partial(measured_depths, options, source, names),
        source.intrinsics,
        partial(ground_truth, options, source, reference="camera") if isinstance(source, KittiRawSource) else None,
        partial(_rendered_steps, source) if isinstance(source, SyntheticSource) else None,
    )


def _rendered_steps(source: SyntheticSource) -> np.ndarray:
    """How far the camera went to each image from the one before, metres; nan for the first one of a drive."""
    poses = np.stack([source.pose(index) for index in range(len(source))])
    steps = np.concatenate([[np.nan], steps_of(poses)])
    steps[:: len(source) // source.sequences] = np.nan
    return steps


def measured_depths(options: EvaluateOptions, source: FrameSource, names: list[str]) -> Iterator[np.ndarray]:
    """Depth maps (H, W) of all frames, metres, 0 where unknown.

    Raises:
        UserError: there are none, a file of them is of other frames, or images were cropped.
    """
    kind = options.truth_kind
    if kind not in MEASURED:
        stored = GroundTruth(kind)
        if len(stored) != len(names):
            raise UserError(f"{kind} holds {len(stored)} depth maps, the {options.part} part {len(names)} frames")
        for theirs, ours in zip(stored.names or names, names, strict=True):
            if theirs != ours:
                raise UserError(f"{kind} holds depth of {theirs!r}, where the {options.part} part has {ours!r}")
        yield from (check_same_view(source, index, depth) for index, depth in enumerate(stored))
        return
    if kind == "improved" and not isinstance(source, KittiRawSource):
        raise UserError(f"--truth improved is KITTI's: --dataset {options.dataset} has none")
    for index, name in enumerate(names):
        if kind == "improved":
            assert isinstance(source, KittiRawSource)
            path = improved_depth_path(options.data_path or "", *source.entries[index])
            yield check_same_view(source, index, read_depth(path))
            continue
        truth = ground_truth(options, source, index)
        if truth is None:
            raise UserError(
                f"{name}: no ground truth: evaluation needs KITTI's velodyne scans, --truth, or rendered scenes"
            )
        yield truth


def _with_depth(pairs: ImagesWithDepth) -> EvaluationData:
    names = [pairs.name(index) for index in range(len(pairs))]
    return EvaluationData(names, pairs.read, lambda: map(pairs.depth, range(len(pairs))))


def _with_camera(options: EvaluateOptions, data: EvaluationData) -> EvaluationData:
    """The images with the intrinsics of `--intrinsics`, where they are given."""
    if options.intrinsics is None:
        return data
    camera = read_intrinsics(options.intrinsics)

    def intrinsics(index: int) -> np.ndarray:
        height, width = data.read(index).shape[:2]
        return camera.for_image(width, height).K

    return replace(data, intrinsics=intrinsics)


def _only_images(folder: Path) -> EvaluationData:
    """Images of a folder whose depth nobody knows."""
    found = ImageFiles(folder, image_files(folder))

    def no_truth() -> Iterator[np.ndarray]:
        raise UserError(f"the depth of {folder} is not known: add --no_eval, or give images with --truth")

    return EvaluationData([found.name(index) for index in range(len(found))], found.read, no_truth)


def _benchmark_images(options: EvaluateOptions) -> Path:
    """The folder of KITTI's test images for depth prediction."""
    if options.data_path is None:
        raise UserError(f"--split {BENCHMARK} needs --data_path, the folder of {BENCHMARK_FOLDER}")
    root = options.data_path
    places = [root, root / BENCHMARK_FOLDER, root / "depth_selection" / BENCHMARK_FOLDER]
    found = next((place / "image" for place in places if (place / "image").is_dir()), None)
    if found is None:
        raise UserError(
            f"--split {BENCHMARK}: no folder {BENCHMARK_FOLDER}/image in {root}: unpack KITTI's depth_selection.zip"
        )
    return found
