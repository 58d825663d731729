"""`hybrid-encoder evaluate`: the depth metrics of single-frame or two-frame weights on a data set."""

from __future__ import annotations

from dataclasses import replace

from ..engine.inference import inference, prepare
from ..engine.processes import choose_device
from ..evaluation import format_table, save_csv
from ..stage2.evaluate import evaluate, prior_errors
from ..two_frame.checkpoint import is_two_frame, load_two_frame_model
from ..two_frame.evaluate import evaluate_two_frame
from ..two_frame.options import TwoFrameEvaluateOptions
from .convert import open_depth_model
from .named_weights import local_weights


def run(options: TwoFrameEvaluateOptions) -> None:
    """Evaluates, prints the tables and writes the CSV file, if asked for."""
    options = replace(options, weights=local_weights(options.weights, options.yes))
    two_frame = is_two_frame(options.weights)
    options.check(two_frame)
    device = choose_device(options.device)
    prior = prior_errors(options) if options.prior else None
    if two_frame and not options.eval_teacher:
        memory = None if options.matching_memory is None else options.matching_memory << 20
        matching = prepare(load_two_frame_model(options.weights, memory), device, options.compile)
        with inference(device, options.precision):
            result = evaluate_two_frame(options, matching)
    else:
        model = prepare(open_depth_model(options.weights, teacher=two_frame), device, options.compile)
        same_frames = two_frame or options.dataset == "cityscapes"
        with inference(device, options.precision):
            result = evaluate_two_frame(options, model) if same_frames else evaluate(options, model)
    print(format_table(result))
    if prior is not None:
        print(f"mean depth of the training scenes, which looks at no image:\n{format_table(prior)}")
    if options.csv is not None:
        save_csv(result, options.csv)
