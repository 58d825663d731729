"""Evaluates a depth model on the test part of a data set (docs/METHOD.md, section 6: the field's seven metrics)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ..data.ground_truth import GroundTruth
from ..errors import UserError
from ..evaluation import (
    STEREO_SCALE_FACTOR,
    Crop,
    EvaluationProtocol,
    EvaluationResult,
    evaluate_depths,
    mean_depth_prior,
    predict_in_batches,
)
from ..images import cut_bottom
from ..model.predictor import DepthPredictor
from .evaluation_data import MEASURED, EvaluationData, open_data
from .frames import ground_truth, open_source
from .options import EvaluateOptions
from .prediction_files import Pictures, saved


def evaluate(options: EvaluateOptions, model: DepthPredictor) -> EvaluationResult:
    """Predicts the part's images and compares them with the truth.

    Raises:
        UserError: no such data, or no ground truth for it.
    """
    data = open_data(options)
    return judge(options, data, predict(options, data, model))


def predict(options: EvaluateOptions, data: EvaluationData, model: DepthPredictor) -> Iterator[np.ndarray]:
    """1 / depth, (model.height, model.width), of all images, each by itself."""
    images = (cut_bottom(image, options.crop_bottom) for image in data.images())
    return predict_in_batches(model, images, options.post_process, options.batch_size)


def judge(options: EvaluateOptions, data: EvaluationData, predictions: Iterable[np.ndarray]) -> EvaluationResult:
    """Compares predictions, 1 / depth, with the truth, and writes the files that the options ask for.

    Raises:
        UserError: no ground truth, or it is of other images.
    """
    pictures = None if options.vis_dir is None else Pictures(options.vis_dir, data, options.crop_bottom)
    kept = keep(options, data, predictions)
    return evaluate_depths(kept, data.truths(), evaluation_protocol(options), data.names, pictures)


def keep(options: EvaluateOptions, data: EvaluationData, predictions: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    """The predictions, which are also saved where `--save_pred_disps` asks for it."""
    if not options.save_pred_disps:
        return predictions
    name = "images" if options.images is not None else options.dataset
    split = options.split if name == "kitti" else name
    file = f"disps_{split.replace('/', '_')}_split.npy"
    return saved(predictions, len(data.names), options.out_dir(options.weights) / file)


def evaluation_protocol(options: EvaluateOptions) -> EvaluationProtocol:
    """The protocol that the options of `hybrid-encoder evaluate` describe.

    Raises:
        UserError: limits that are none.
    """
    return EvaluationProtocol(
        options.min_eval_depth,
        options.far_limit,
        far_truth_counts=_in_the_original_way(options),
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
    if options.images is not None or _in_the_original_way(options):
        return None
    if options.dataset == "nyu":
        return "nyu"
    if options.dataset == "kitti" and options.split == "eigen_improved":
        return "garg"
    kind = options.truth_kind
    if options.dataset == "kitti" and kind not in MEASURED:
        kind = GroundTruth(kind).source
    return usual_crop(options.dataset, kind)


def _in_the_original_way(options: EvaluateOptions) -> bool:
    """Whether depth is compared as by the original's `--eval_split eigen_benchmark`: no crop, all of the truth."""
    return options.dataset == "kitti" and options.split == "eigen_benchmark"


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
