"""`hybrid-encoder predict bev`: pictures of rigs, their images beside the maps."""

from __future__ import annotations

from ..bev.checkpoint import load_bev
from ..bev.options import BevPredictOptions
from ..bev.predict import predict
from ..engine.inference import inference, prepare
from ..engine.processes import choose_device


def run(options: BevPredictOptions) -> None:
    """Writes the pictures, and prints their number."""
    device = choose_device(options.device)
    model = prepare(load_bev(options.weights).model, device)
    with inference(device, options.precision):
        written = predict(options, model, device)
    print(f"{len(written)} pictures in {options.out}")
