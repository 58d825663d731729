"""`hybrid-encoder evaluate`: depth metrics of single-frame or two-frame weights, or the error of their trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..engine.inference import inference, prepare
from ..engine.processes import choose_device
from ..evaluation import EvaluationResult, format_table, save_csv
from ..metric.source import read_scale_source
from ..stage2.evaluate import evaluation_protocol, judge, keep, predict, prior_errors
from ..stage2.evaluate_options import BENCHMARK
from ..stage2.evaluation_data import EvaluationData, has_frames, open_data
from ..stage2.metric_scale import estimate_scale, metric_result
from ..stage2.odometry import evaluate_poses
from ..stage2.poses import load_pose_model
from ..stage2.prediction_files import stored_disparities, write_only
from ..stage2.stereo_training import check_learnt_from_stereo
from ..two_frame.checkpoint import is_two_frame, load_two_frame_model
from ..two_frame.evaluate import open_and_predict
from ..two_frame.options import TwoFrameEvaluateOptions
from .convert import open_depth_model, refuse_normalization
from .named_weights import local_weights


def run(options: TwoFrameEvaluateOptions) -> None:
    """Evaluates, prints the tables, and writes the files that the options ask for."""
    options = replace(options, weights=local_weights(options.weights, options.yes))
    options.check_files(options.weights, options.split)
    options.check(bool(options.weights) and is_two_frame(options.weights))
    if options.pose:
        device = choose_device(options.device)
        poses = prepare(load_pose_model(options.weights, options.normalization), device)
        with inference(device, options.precision):
            print(evaluate_poses(options, poses))
        return
    prior = prior_errors(options) if options.prior else None
    data, predictions = _predictions(options)
    with inference(choose_device(options.device), options.precision):
        if options.no_eval or options.split == BENCHMARK:
            print(write_only(options, data, keep(options, data, predictions), evaluation_protocol(options)))
            return
        result, told = _judge(options, data, predictions)
    print(format_table(result) + told)
    if prior is not None:
        print(f"mean depth of the training scenes, which looks at no image:\n{format_table(prior)}")
    if options.csv is not None:
        save_csv(result, options.csv)


def _judge(
    options: TwoFrameEvaluateOptions, data: EvaluationData, predictions: Iterator[np.ndarray]
) -> tuple[EvaluationResult, str]:
    """The metrics, and the text of `--scale_from`: its second table, or nothing."""
    if options.scale_from is None:
        return judge(options, data, predictions), ""
    source = read_scale_source(options.scale_from)
    if source.kind == "baseline":
        check_learnt_from_stereo(options.weights)
    kept = list(predictions)
    result = judge(options, data, kept)
    estimate = estimate_scale(options, source, data, kept)
    scaled = metric_result(options, data, kept, estimate.factor)
    return result, f"\n{estimate}, in place of median scaling:\n{format_table(scaled)}"


def _predictions(options: TwoFrameEvaluateOptions) -> tuple[EvaluationData, Iterator[np.ndarray]]:
    """The images, and 1 / depth of each: from a file, a single-frame model or a two-frame model."""
    if options.ext_disp_to_eval is not None:
        data = open_data(options)
        return data, stored_disparities(options.ext_disp_to_eval, len(data.names))
    device, two_frame = choose_device(options.device), is_two_frame(options.weights)
    if two_frame:
        refuse_normalization(options.weights, options.normalization)
    if two_frame and not options.eval_teacher:
        memory = None if options.matching_memory is None else options.matching_memory << 20
        matching = prepare(load_two_frame_model(options.weights, memory), device, options.compile)
        return open_and_predict(options, matching)
    opened = open_depth_model(options.weights, two_frame, normalization=options.normalization)
    model = prepare(opened, device, options.compile)
    if options.dataset == "cityscapes" or (two_frame and has_frames(options)):
        return open_and_predict(options, model)  # the same frames as for two-frame weights
    data = open_data(options)
    return data, predict(options, data, model)
