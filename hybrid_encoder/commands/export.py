"""`hybrid-encoder export`: a depth model as a file that runs without this package."""

from __future__ import annotations

from dataclasses import replace

from ..errors import UserError
from ..model.export import export_onnx, export_torch
from ..two_frame.checkpoint import is_two_frame
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
    difference = export(open_depth_model(options.model), options.out)
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {size:.0f} MB, at three sizes within {difference:.1g} of the model's largest inverse depth")
