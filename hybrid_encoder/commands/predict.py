"""`hybrid-encoder predict`: depth of images, folders and videos."""

from __future__ import annotations

from ..data.calibration import read_intrinsics
from ..engine.inference import inference, prepare
from ..engine.processes import choose_device
from ..errors import UserError
from ..prediction.paths import predict_paths
from ..prediction.settings import PredictionSettings
from ..two_frame.checkpoint import is_two_frame, load_two_frame_model
from ..two_frame.predict import predict_two_frame
from .convert import open_depth_model
from .options import PredictOptions


def run(options: PredictOptions) -> None:
    """Predicts, and says how many files were written."""
    device = choose_device(options.device)
    settings = PredictionSettings(
        save_npy=options.npy,
        scale_factor=options.scale_factor,
        batch_size=options.batch_size,
        crop_bottom=options.crop_bottom,
        camera=None if options.intrinsics is None else read_intrinsics(options.intrinsics),
        video_codec=options.video_codec,
    )
    inputs, out = list(options.inputs), options.out
    if is_two_frame(options.weights):
        matching = prepare(load_two_frame_model(options.weights), device, options.compile)
        with inference(device, options.precision):
            written = predict_two_frame(matching, inputs, out, settings, options.sequence)
    elif options.sequence:
        raise UserError(f"--sequence is for two-frame weights: those of {options.weights} look at one frame at a time")
    else:
        model = prepare(open_depth_model(options.weights), device, options.compile)
        with inference(device, options.precision):
            written = predict_paths(model, inputs, out, settings)
    print(f"{len(written)} files in {out}")
