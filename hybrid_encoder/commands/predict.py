"""`hybrid-encoder predict`: depth of images, folders and videos."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..data.calibration import read_intrinsics
from ..engine.inference import faster_precision, inference, is_cpu_with_bf16, prepare
from ..engine.processes import choose_device
from ..errors import UserError
from ..metric.source import read_scale_source
from ..model.depth_model import DepthModel
from ..model.onnx_depth import SUFFIX, OnnxDepthModel
from ..options import Precision
from ..prediction.batches import predict_batch
from ..prediction.inputs import find_inputs
from ..prediction.paths import predict_paths
from ..prediction.settings import PredictionSettings
from ..stage2.poses import PoseModel, load_pose_model
from ..stage2.stereo_training import check_learnt_from_stereo
from ..two_frame.checkpoint import is_two_frame, load_two_frame_model
from ..two_frame.predict import predict_two_frame
from .convert import open_depth_model, refuse_normalization
from .named_weights import local_weights
from .options import PredictOptions

_MANY_IMAGES = 24
"""From so many images on, measuring which precision is faster takes less than it may save."""


def run(options: PredictOptions) -> None:
    """Predicts, and prints the number of files written."""
    options = replace(options, weights=local_weights(options.weights, options.yes))
    settings = _settings(options)
    if settings.scale_from is not None and settings.scale_from.kind == "baseline":
        check_learnt_from_stereo(options.weights)
    if options.weights.lower().endswith(SUFFIX):
        written = predict_paths(_open_onnx(options), options.inputs, options.out, settings)
    else:
        written = _predict_with_torch(options, settings)
    print(f"{len(written)} files in {options.out}")


def _settings(options: PredictOptions) -> PredictionSettings:
    return PredictionSettings(
        save_npy=options.npy,
        scale_factor=options.scale_factor,
        batch_size=options.batch_size,
        crop_bottom=options.crop_bottom,
        camera=None if options.intrinsics is None else read_intrinsics(options.intrinsics),
        video_codec=options.video_codec,
        scale_from=None if options.scale_from is None else read_scale_source(options.scale_from),
        fov=options.fov,
        poses=options.poses,
        trajectory=options.trajectory,
        points=options.points,
        voxel=options.voxel,
        colormap=options.colormap,
        pairs=not options.no_pairs,
        keep_aspect=options.keep_aspect,
    )


def _predict_with_torch(options: PredictOptions, settings: PredictionSettings) -> list[Path]:
    """Predicts with a folder of single-frame or two-frame weights."""
    device, inputs, out = choose_device(options.device), list(options.inputs), options.out
    poses = _pose_model(options, settings)
    if poses is not None:
        poses = prepare(poses, device)
    if is_two_frame(options.weights):
        refuse_normalization(options.weights, options.normalization)
        if options.keep_aspect:
            raise UserError(
                "--keep_aspect is for single-frame weights: a cost volume has one size. Leave the option out"
            )
        matching = prepare(load_two_frame_model(options.weights), device, options.compile)
        with inference(device, "float32" if options.precision == "auto" else options.precision):
            return predict_two_frame(matching, inputs, out, settings, options.sequence, poses)
    if options.sequence:
        raise UserError(f"--sequence is for two-frame weights, but {options.weights} are single-frame: leave it out")
    model = prepare(open_depth_model(options.weights, normalization=options.normalization), device, options.compile)
    with inference(device, _precision(options, settings, model, device)):
        return predict_paths(model, inputs, out, settings, poses=poses)


def _precision(
    options: PredictOptions, settings: PredictionSettings, model: DepthModel, device: torch.device
) -> Precision:
    """The precision asked for; for "auto", bf16 where measuring pays and shows it to be faster, else float32."""
    if options.precision != "auto":
        return options.precision
    if options.compile or settings.trajectory or not is_cpu_with_bf16(device):
        return "float32"
    inputs = find_inputs(options.inputs)
    if len(inputs) < _MANY_IMAGES and not any(found.is_video for found in inputs):
        return "float32"
    image = np.zeros((model.height, model.width, 3), dtype=np.uint8)
    precision = faster_precision(partial(predict_batch, model, [image], settings))
    if precision == "bf16":
        print("computing in bf16, which is faster on this CPU; --precision float32 for all digits", file=sys.stderr)
    return precision


def _pose_model(options: PredictOptions, settings: PredictionSettings) -> PoseModel | None:
    """The pose nets of the weights; None if no option needs them."""
    along_a_path = settings.points and settings.poses is None and any(f.is_video for f in find_inputs(options.inputs))
    if settings.trajectory or along_a_path:
        return load_pose_model(options.weights, options.normalization)
    return None


def _open_onnx(options: PredictOptions) -> OnnxDepthModel:
    """The model of a .onnx file.

    Raises:
        UserError: an option that needs PyTorch, or a file that cannot be opened.
    """
    for flag, wrong in (
        ("--sequence", options.sequence),
        ("--trajectory", options.trajectory),
        ("--compile", options.compile),
        (f"--normalization {options.normalization}", options.normalization is not None),
        (f"--precision {options.precision}", options.precision == "bf16"),
        (f"--device {options.device}", options.device.startswith("cuda")),
    ):
        if wrong:
            raise UserError(
                f"{flag} is not possible: {options.weights} runs on the CPU, in float32, one frame at a time. Leave "
                "the option out, or give the folder of weights that the file was exported from"
            )
    return OnnxDepthModel(options.weights)
