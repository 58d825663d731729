"""`hybrid-encoder evaluate bev`: IoU of a lift-splat model's maps, beside that of the best constant map."""

from __future__ import annotations

from ..bev.checkpoint import load_bev
from ..bev.evaluate import evaluate
from ..bev.options import BevEvaluateOptions
from ..engine.inference import inference, prepare
from ..engine.processes import choose_device


def run(options: BevEvaluateOptions) -> None:
    """Evaluates and prints the table."""
    options.check()
    device, saved = choose_device(options.device), load_bev(options.weights)
    prepare(saved.model, device)
    with inference(device, options.precision):
        print(evaluate(options, saved, device).table())
