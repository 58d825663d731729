"""`hybrid-encoder export`: a depth model or its encoder as a file that runs without this package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from ..model.contract import DepthEncoder
from ..model.depth_model import DepthModel
from ..model.encoder import HybridEncoder
from ..model.export import export_onnx, export_torch
from ..two_frame.checkpoint import is_two_frame
from ..weights.hub import CONFIG_FILE, Saved
from ..weights.in_package import shipped_folder
from .convert import open_depth_model
from .named_weights import local_weights
from .options import ExportModelOptions


def run(options: ExportModelOptions) -> None:
    """Writes the file, and prints how much its results differ from the model's.

    Raises:
        UserError: two-frame weights, or as `open_depth_model` and `export_onnx`.
    """
    options = replace(options, model=local_weights(options.model, options.yes))
    if is_two_frame(options.model):
        raise UserError(
            f"{options.model} holds two-frame weights, which need poses and a camera: export their single-frame "
            f"teacher, which `hybrid-encoder convert {options.model} --teacher --out FOLDER` writes"
        )
    export = {"onnx": export_onnx, "torch": export_torch}[options.format]
    difference = export(_opened(options), options.out)
    size = options.out.stat().st_size / 1e6
    what = "inverse depth" if options.part == "depth" else "value of each map"
    print(f"{options.out}: {size:.0f} MB, at three sizes within {difference:.1g} of the largest {what} of the model")


def _opened(options: ExportModelOptions) -> DepthModel | DepthEncoder:
    """The depth model, or its encoder; a folder or hub id may hold an encoder alone."""
    folder = Path(options.model)
    is_saved = (folder / CONFIG_FILE).is_file() or not (folder.exists() or shipped_folder(options.model))
    if options.part == "encoder" and is_saved and Saved(options.model).kind == HybridEncoder.hub_kind:
        return HybridEncoder.from_pretrained(options.model)
    model = open_depth_model(options.model)
    return model if options.part == "depth" else model.encoder
