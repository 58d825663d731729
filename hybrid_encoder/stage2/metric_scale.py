"""The scale of an evaluation's predictions, from what `--scale_from` names, in place of the truth's median."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ..data.dataset import STEREO_BASELINE
from ..errors import UserError
from ..evaluation import EvaluationResult, evaluate_depths
from ..images import cut_bottom, kept_rows
from ..metric.camera import resize_intrinsics
from ..metric.ground import ground_scale
from ..metric.measured import measured_scale
from ..metric.motion import motion_scale
from ..metric.scale import FrameScale, ScaleEstimate, combine
from ..metric.source import ScaleSource
from ..model.predictor import resize_map
from ..prediction.motion_scaling import align_frames, known_steps
from .evaluate import evaluation_protocol
from .evaluation_data import EvaluationData
from .options import EvaluateOptions


def estimate_scale(
    options: EvaluateOptions,
    source: ScaleSource,
    data: EvaluationData,
    predictions: Sequence[np.ndarray],
) -> ScaleEstimate:
    """One scale of all predictions.

    Args:
        source: what `--scale_from` names.
        predictions: inverse depth (h, w) of all images.

    Raises:
        UserError: the scale cannot be told, with the reason.
    """
    if source.kind == "baseline":
        return ScaleEstimate(str(source), source.metres / STEREO_BASELINE, 0.0, len(predictions), len(predictions))
    if source.needs_motion:
        return combine(str(source), list(_motion_scales(options, source, data, predictions)))
    known = data.intrinsics if source.kind == "camera_height" else data.scans
    if known is None:
        raise UserError(f"--scale_from {source.kind}: --dataset {options.dataset} has no {_MISSING[source.kind]}")
    return combine(str(source), list(_image_scales(options, source, known, data, predictions)))


_MISSING = {
    "camera_height": "known camera: with --images give --intrinsics",
    "lidar": "scans: it is for --dataset kitti",
}


def metric_result(
    options: EvaluateOptions, data: EvaluationData, predictions: Sequence[np.ndarray], factor: float
) -> EvaluationResult:
    """Compares predictions with the truth on a known scale.

    Args:
        factor: metres per unit of depth.
    """
    protocol = replace(evaluation_protocol(options), median_scaling=False, scale_factor=factor)
    return evaluate_depths(predictions, data.truths(), protocol, data.names)


def _image_scales(
    options: EvaluateOptions,
    source: ScaleSource,
    known: Callable[[int], np.ndarray | None],
    data: EvaluationData,
    predictions: Sequence[np.ndarray],
) -> Iterator[FrameScale]:
    """What each image tells, from its ground or its scan.

    Args:
        known: intrinsics (3, 3) or measured depth (H, W) of an image.
    """
    for index, disparity in enumerate(predictions):
        found = known(index)
        if found is None:
            yield FrameScale(0.0, f"{data.names[index]} has no scan")
        elif source.kind == "lidar":
            measured = cut_bottom(found, options.crop_bottom)
            yield measured_scale(_depth(resize_map(disparity, *measured.shape)), measured)
        else:
            depth = _depth(disparity)
            K = _intrinsics_of_map(options, found, data.read(index), depth)
            yield ground_scale(source.metres, depth, K)


def _motion_scales(
    options: EvaluateOptions, source: ScaleSource, data: EvaluationData, predictions: Sequence[np.ndarray]
) -> Iterator[FrameScale]:
    """What each step of the camera tells: through a folder of images, or through drives whose poses are known."""
    if data.intrinsics is None:
        raise UserError(f"--scale_from {source.kind} needs the camera: with --images give --intrinsics")
    steps = _known_steps(options, source, data)
    read = lru_cache(maxsize=2)(data.read)  # a frame is the later one, and then the earlier one
    for number in np.flatnonzero(np.isfinite(steps)).tolist():
        earlier, later, depth = read(number - 1), read(number), _depth(predictions[number])
        K = _intrinsics_of_map(options, data.intrinsics(number), later, depth)
        seen = [cut_bottom(image, options.crop_bottom) for image in (earlier, later)]
        yield motion_scale(align_frames(seen[0], seen[1], depth, K), float(steps[number]))


def _depth(disparity: np.ndarray) -> np.ndarray:
    """Depth from inverse depth of any shape, which may be 0."""
    return 1 / np.maximum(disparity, 1e-9)


def _known_steps(options: EvaluateOptions, source: ScaleSource, data: EvaluationData) -> np.ndarray:
    """(N,), how far the camera went to each image, metres; nan where nobody knows."""
    if not source.has_file and data.steps is not None:
        return data.steps()
    if source.has_file and options.images is not None:
        return np.concatenate([[np.nan], known_steps(source, None, len(data.names))])
    raise UserError(
        f"--scale_from {source.kind}: nobody knows how far the camera went to the images of --dataset "
        f"{options.dataset}. Give the frames of one drive with --images and their file with --scale_from "
        f"{source.kind}=FILE, or take --dataset synthetic with --scale_from poses"
    )


def _intrinsics_of_map(options: EvaluateOptions, K: np.ndarray, image: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(3, 3) intrinsics of a depth map, from those of the whole image."""
    height, width = image.shape[:2]
    return resize_intrinsics(K, (width, kept_rows(height, options.crop_bottom)), depth.shape[::-1])
