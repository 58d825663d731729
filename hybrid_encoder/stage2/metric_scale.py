"""The scale of an evaluation's predictions, from what `--scale_from` names, in place of the truth's median."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..data.dataset import STEREO_BASELINE
from ..data.video import VideoFrame
from ..errors import UserError
from ..evaluation import EvaluationResult, evaluate_depths
from ..images import cut_bottom, kept_rows
from ..metric.camera import resize_intrinsics
from ..metric.ground import ground_scale
from ..metric.measured import measured_scale
from ..metric.motion import motion_scales, steps_of
from ..metric.scale import FrameScale, ScaleEstimate, combine
from ..metric.source import ScaleSource
from ..model.predictor import resize_map
from ..prediction.scaling import known_steps
from ..prediction.trajectory import PosePredictor, predict_motions, predict_path
from .evaluate import evaluation_protocol
from .evaluation_data import EvaluationData
from .odometry import open_drives
from .options import EvaluateOptions


def estimate_scale(
    options: EvaluateOptions,
    source: ScaleSource,
    data: EvaluationData,
    predictions: Sequence[np.ndarray],
    poses: PosePredictor | None,
) -> ScaleEstimate:
    """One scale of all predictions.

    Args:
        source: what `--scale_from` names.
        predictions: inverse depth (h, w) of all images.
        poses: the pose nets, where the source is compared with predicted motions.

    Raises:
        UserError: the scale cannot be told, with the reason.
    """
    if source.kind == "baseline":
        return ScaleEstimate(str(source), source.metres / STEREO_BASELINE, 0.0, len(predictions), len(predictions))
    if source.needs_motion:
        assert poses is not None
        return combine(str(source), list(_motion_scales(options, source, data, poses)))
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
        depth = 1 / np.maximum(disparity, 1e-9)
        if found is None:
            yield FrameScale(0.0, f"{data.names[index]} has no scan")
        elif source.kind == "lidar":
            measured = cut_bottom(found, options.crop_bottom)
            yield measured_scale(1 / np.maximum(resize_map(disparity, *measured.shape), 1e-9), measured)
        else:
            height, width = data.read(index).shape[:2]
            K = resize_intrinsics(found, (width, kept_rows(height, options.crop_bottom)), depth.shape[::-1])
            yield ground_scale(source.metres, depth, K)


def _motion_scales(
    options: EvaluateOptions, source: ScaleSource, data: EvaluationData, poses: PosePredictor
) -> Iterator[FrameScale]:
    """What each step of the camera tells: through a folder of images, or through drives whose poses are known."""
    if source.has_file:
        if options.images is None:
            raise UserError(
                f"--scale_from {source.kind}={source.file} is of one drive: give its frames with --images. Poses of "
                "--dataset synthetic and kitti_odom are known: --scale_from poses"
            )
        frames = (VideoFrame(cut_bottom(image, options.crop_bottom), 0.0) for image in data.images())
        path = predict_path(poses, frames, options.batch_size)
        yield from motion_scales(path.motions, known_steps(source, None, len(path.seconds)))
        return
    for drive in open_drives(options):
        motions = predict_motions(poses, drive.frames(options.crop_bottom), options.batch_size)
        yield from motion_scales(motions, steps_of(drive.poses))
