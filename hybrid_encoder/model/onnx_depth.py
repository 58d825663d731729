"""An ONNX file that `export.export_onnx` wrote, run by onnxruntime; of a depth model as a predictor of depth."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ..config import Resize, check_image_size
from ..errors import UserError, naming

SUFFIX = ".onnx"
INPUT, OUTPUTS = "image", ("disparity", "depth")
"""Names of the program's input and outputs."""
EXTRA = "pip install 'hybrid-encoder[export]'"


def need(*modules: str) -> None:
    """Raises `UserError` where a package of the extra `[export]` is not installed."""
    for name in modules:
        try:
            import_module(name)
        except ImportError as error:
            raise UserError(f"{name} is not installed ({error}): {EXTRA}") from error


class OnnxProgram:
    """A program in an ONNX file, on the CPU.

    Args:
        path: the .onnx file.

    Attributes:
        names: of its input and its outputs.
        metadata: of the file.

    Raises:
        UserError: onnxruntime is not installed, or the file is missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        need("onnxruntime")
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{path}: no such file: `hybrid-encoder export` writes one")
        self._session = _open(self.path)
        self.names = [value.name for value in (*self._session.get_inputs(), *self._session.get_outputs())]
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) in [0, 1], H and W multiples of 32 -> its outputs.

        Raises:
            UserError: onnxruntime cannot run the program on images of that size.
        """
        pixels = np.ascontiguousarray(image.float().cpu().numpy())
        try:
            found = self._session.run(None, {INPUT: pixels})
        except Exception as error:
            size = " x ".join(map(str, image.shape))
            raise UserError(f"{self.path} cannot be run on images of {size} ({_reason(error)})") from error
        return tuple(map(torch.from_numpy, found))


class OnnxDepthModel(OnnxProgram):
    """A depth model that `export_onnx` wrote, on the CPU. It is a `DepthPredictor`: `predict_paths` takes it.

    Args:
        path: the .onnx file.

    Attributes:
        height, width: the size at which the exported model saw images; the program takes any multiples of 32.
        min_depth, max_depth: limits of depth, in the model's unit.
        resize: how images are brought to that size.

    Raises:
        UserError: onnxruntime is not installed, or the file is missing, damaged, or not by this package.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        about = self.metadata
        try:
            self.height, self.width = int(about["height"]), int(about["width"])
            self.min_depth, self.max_depth = float(about["min_depth"]), float(about["max_depth"])
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{path} does not state its image size and depth limits ({error}): expected a depth "
                "model that `hybrid-encoder export` wrote, with `--part depth`"
            ) from error
        self.resize = about.get("resize", "area")  # older files lack it
        with naming(path):
            check_image_size(self.height, self.width)
        known = self.names == [INPUT, *OUTPUTS] and self.resize in get_args(Resize)
        if not known or not 0 < self.min_depth < self.max_depth < math.inf:
            raise UserError(f"{path} is no depth model: export it again with `hybrid-encoder export`")

    def disparity(self, image: Tensor) -> Tensor:
        """1 / depth, (B, 1, height, width), of images (B, 3, height, width) in [0, 1]."""
        return self(image)[0]


def _open(path: Path) -> Any:
    """The session of onnxruntime, with as many threads as PyTorch has."""
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only: it warns of every rearranged node
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(
            f"{path} cannot be opened as an ONNX file ({_reason(error)}): export or copy it again"
        ) from error


def _reason(error: Exception) -> str:
    """The first line of an error of onnxruntime, whose classes of errors are not public."""
    return str(error).strip().split("\n")[0][:200]
