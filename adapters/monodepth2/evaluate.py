"""Evaluates a depth model on the test part of a data set (METHOD, section 6: the field's seven metrics)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hybrid_encoder.data.ground_truth import GroundTruth
from hybrid_encoder.data.images import cut_bottom
from hybrid_encoder.data.source import FrameSource
from hybrid_encoder.data.velodyne import improved_depth_path, read_depth_png
from hybrid_encoder.errors import UserError
from hybrid_encoder.evaluation import (
    STEREO_SCALE_FACTOR,
    EvaluationResult,
    evaluate_depths,
    evaluate_model,
    mean_depth_prior,
)
from hybrid_encoder.prediction import DepthPredictor

from .data import ground_truth, open_source
from .options import EvaluateOptions


def evaluate(options: EvaluateOptions, model: DepthPredictor) -> EvaluationResult:
    """Predicts the part's frames and compares them with the truth.

    Raises:
        UserError: no such data, or no ground truth for it.
    """
    source = open_source(options, options.part, (0,), options.seed)
    names = [source.name(index) for index in range(len(source))]
    images = (cut_bottom(source.read(index, 0), options.crop_bottom) for index in range(len(source)))
    truths = (cut_bottom(truth, options.crop_bottom) for truth in _truths(options, source, names))
    crop = options.crop
    if crop == "auto":
        crop = "garg" if options.dataset == "kitti" and options.truth != "improved" else "none"
    scale = options.pred_depth_scale_factor * (STEREO_SCALE_FACTOR if options.eval_stereo else 1.0)
    return evaluate_model(
        model,
        images,
        truths,
        options.post_process,
        options.batch_size,
        options.min_eval_depth,
        options.max_eval_depth,
        median_scaling=not (options.eval_stereo or options.disable_median_scaling),
        crop=None if crop == "none" else crop,
        scale_factor=scale,
        names=names,
    )


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
    candidates = [evaluate_depths([1 / prior] * len(truths), truths, crop=None) for prior in (mean_depth, mean_inverse)]
    return min(candidates, key=lambda result: result.mean.abs_rel)


def _truths(options: EvaluateOptions, source: FrameSource, names: list[str]) -> Iterator[np.ndarray]:
    if options.truth not in ("velodyne", "improved"):
        stored = GroundTruth(options.truth)
        if len(stored) != len(names):
            raise UserError(
                f"{options.truth} holds {len(stored)} depth maps, the {options.part} part {len(names)} frames"
            )
        yield from stored
        return
    for index, name in enumerate(names):
        if options.truth == "improved":
            entry = source.entries[index]  # type: ignore[attr-defined]
            yield read_depth_png(improved_depth_path(options.data_path or "", entry.folder, entry.frame, entry.side))
            continue
        truth = ground_truth(options, source, index)
        if truth is None:
            raise UserError(
                f"{name}: no ground truth: evaluation needs KITTI's velodyne scans, --truth, or rendered scenes"
            )
        yield truth
