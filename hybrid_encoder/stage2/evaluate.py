"""Evaluates a depth model on the test part of a data set (docs/METHOD.md, section 6: the field's seven metrics)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..data.dataset import FrameSource
from ..data.ground_truth import GroundTruth
from ..data.kitti import KittiRawSource
from ..data.velodyne import improved_depth_path, read_depth_png
from ..errors import UserError
from ..evaluation import (
    STEREO_SCALE_FACTOR,
    Crop,
    EvaluationProtocol,
    EvaluationResult,
    evaluate_depths,
    evaluate_model,
    mean_depth_prior,
)
from ..model.predictor import DepthPredictor
from .frames import check_same_view, ground_truth, open_source
from .options import EvaluateOptions

MEASURED = ("velodyne", "improved")
"""What --truth says of depth that lies beside the images; else it names a file."""


def evaluate(options: EvaluateOptions, model: DepthPredictor) -> EvaluationResult:
    """Predicts the part's frames and compares them with the truth.

    Raises:
        UserError: no such data, or no ground truth for it.
    """
    source = open_source(options, options.part, (0,), options.seed)
    names = [source.name(index) for index in range(len(source))]
    images = (source.read(index, 0) for index in range(len(source)))
    truths = measured_depths(options, source, names)
    return evaluate_model(model, images, truths, evaluation_protocol(options), names, options.batch_size)


def evaluation_protocol(options: EvaluateOptions) -> EvaluationProtocol:
    """The protocol that the options of `hybrid-encoder evaluate` describe.

    Raises:
        UserError: limits that are none.
    """
    return EvaluationProtocol(
        options.min_eval_depth,
        options.max_eval_depth,
        median_scaling=not (options.eval_stereo or options.disable_median_scaling),
        crop=chosen_crop(options),
        scale_factor=options.pred_depth_scale_factor * (STEREO_SCALE_FACTOR if options.eval_stereo else 1.0),
        crop_bottom=options.crop_bottom,
        post_process=options.post_process,
        edges=options.edges or options.dataset == "synthetic",
    )


def chosen_crop(options: EvaluateOptions) -> Crop | None:
    """The crop of `--crop`; "auto" is the field's: Garg's of raw LiDAR, none of denser depth."""
    if options.crop != "auto":
        return None if options.crop == "none" else options.crop
    if options.dataset == "kitti" and options.truth not in MEASURED:
        return usual_crop("kitti", GroundTruth(options.truth).source)
    return usual_crop(options.dataset, options.truth)


def usual_crop(dataset: str, truth: str = "velodyne") -> Crop | None:
    """The field's crop: Garg's where depth is KITTI's raw LiDAR."""
    return "garg" if dataset == "kitti" and truth == "velodyne" else None


def prior_errors(options: EvaluateOptions) -> EvaluationResult:
    """Errors of the best image-independent guess: the training scenes' mean depth, or mean inverse depth if that is
    better. For rendered scenes, whose truths have one size.

    Raises:
        UserError: another data set.
    """
    if options.dataset != "synthetic":
        raise UserError(f"--prior averages rendered depth maps of one size: --dataset {options.dataset} has others")
    training = open_source(options, "train", (0,), options.seed)
    depths = [ground_truth(options, training, index) for index in range(len(training))]
    known = [depth for depth in depths if depth is not None]
    mean_depth = mean_depth_prior(known)
    mean_inverse = 1 / mean_depth_prior([np.where(depth > 0, 1 / np.maximum(depth, 1e-3), 0) for depth in known])
    test = open_source(options, "test", (0,), options.seed)
    truths = [depth for index in range(len(test)) if (depth := ground_truth(options, test, index)) is not None]
    whole = EvaluationProtocol(crop=None, edges=True)
    candidates = [evaluate_depths([1 / prior] * len(truths), truths, whole) for prior in (mean_depth, mean_inverse)]
    return min(candidates, key=lambda result: result.mean.abs_rel)


def measured_depths(options: EvaluateOptions, source: FrameSource, names: list[str]) -> Iterator[np.ndarray]:
    """Depth maps (H, W) of all frames, metres, 0 where unknown.

    Raises:
        UserError: there are none, a file of them is of other frames, or images were cropped.
    """
    if options.truth not in MEASURED:
        stored = GroundTruth(options.truth)
        if len(stored) != len(names):
            raise UserError(
                f"{options.truth} holds {len(stored)} depth maps, the {options.part} part {len(names)} frames"
            )
        for theirs, ours in zip(stored.names or names, names, strict=True):
            if theirs != ours:
                raise UserError(
                    f"{options.truth} holds depth of {theirs!r}, where the {options.part} part has {ours!r}"
                )
        yield from (check_same_view(source, index, depth) for index, depth in enumerate(stored))
        return
    if options.truth == "improved" and not isinstance(source, KittiRawSource):
        raise UserError(f"--truth improved is KITTI's: --dataset {options.dataset} has none")
    for index, name in enumerate(names):
        if options.truth == "improved":
            assert isinstance(source, KittiRawSource)
            entry = source.entries[index]
            path = improved_depth_path(options.data_path or "", entry.folder, entry.frame, entry.side)
            yield check_same_view(source, index, read_depth_png(path))
            continue
        truth = ground_truth(options, source, index)
        if truth is None:
            raise UserError(
                f"{name}: no ground truth: evaluation needs KITTI's velodyne scans, --truth, or rendered scenes"
            )
        yield truth
