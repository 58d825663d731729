"""A depth model or an encoder as a program that runs without this package: an ONNX file, or one of `torch.export`.

Both take images of any batch size, height and width (multiples of 32), and both are compared with the model before the
file appears.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError as TorchExportError
from torch.export import Dim, ExportedProgram

from ..config import SIZE_MULTIPLE
from ..errors import UserError
from ..writing import atomic_path, not_written
from .contract import DepthEncoder
from .depth_model import DepthModel
from .exported_resizing import resizing_decompositions
from .onnx_depth import INPUT, OUTPUTS, OnnxProgram, need

OPSET = 18
TOLERANCE, MAP_TOLERANCE = 2e-5, 2e-4
"""Largest differences that an exported program's inverse depth and its feature maps may have, as a share of the largest
value. Maps are less certain: those of the preset paper at 192 x 640 differ between float32 and float64 by 3.4e-5."""
MAX_BYTES = 2_000_000_000
"""Weights that one ONNX file holds: a message of protobuf ends at 2 GiB."""
_EXAMPLE = (2, 3, 3 * SIZE_MULTIPLE, 5 * SIZE_MULTIPLE)
"""Shape of the image that is traced. torch.export would take a batch of 1 for the only one, and multiples of the patch
size for the only sides."""
_OTHER_SIZES = ((3, 64, 96), (2, 224, 128))
"""Batch, height and width at which a program is compared with the model, besides a single image of its own size."""
_INPUT_IN_WORDS = f"image: (B, 3, H, W) float32, RGB in [0, 1], H and W multiples of {SIZE_MULTIPLE}"
_ENCODER_SIZE = (192, 640)
"""Of an encoder, which has no size of its own."""

Program = Callable[[Tensor], Sequence[Tensor]]


def export_onnx(model: DepthModel | DepthEncoder, path: str | Path) -> float:
    """Writes a depth model or an encoder as an ONNX file.

    Input `image`: (B, 3, H, W), float32, RGB in [0, 1], H and W multiples of 32. Outputs of a depth model: `disparity`
    (1 / depth) and `depth`, (B, 1, H, W), depth within the model's limits and in its unit. Outputs of an encoder: its
    drop-in maps, `stride2` to `stride32`, (B, C, H / stride, W / stride), neither padded nor nested; or, where it was
    built without them (pyramid=False), the fused levels, `level1` to `level4`, (B, C, h, w). Metadata: the origin of
    the weights; of a depth model also height and width of the images that it was trained on, min_depth, max_depth. The
    model does not change: a copy in float32 on the CPU is exported.

    Then onnxruntime runs the program on images of three sizes; the file appears only if it agrees with the model.

    Args:
        path: the file to write.

    Returns:
        The largest difference of inverse depth or of a map, as a share of the largest value.

    Raises:
        UserError: the extra `[export]` is not installed, the model cannot be exported or is too large for one file, the
            result differs from the model, or the file cannot be written.
    """
    need("onnx", "onnxscript", "onnxruntime")
    size = sum(value.numel() for value in model.state_dict().values()) * 4
    if size > MAX_BYTES:
        raise UserError(f"the weights take {size / 1e9:.1f} GB, and one ONNX file holds 2: use --format torch")
    prepared = _prepared(model)
    with _problems_told("ONNX"), _written(Path(path)) as partial:
        onnx = _to_onnx(_program(prepared), prepared.outputs)
        onnx.model.metadata_props.update(prepared.metadata())
        onnx.save(partial)
        return _compare(prepared, OnnxProgram(partial), path)


def export_torch(model: DepthModel | DepthEncoder, path: str | Path) -> float:
    """Writes a depth model or an encoder as a program of `torch.export`; `torch.export.load(path).module()` opens it.

    H and W are at least 64. PyTorch does not promise that its other versions open the file. The rest is as for
    `export_onnx`; the metadata are in the extra file metadata.json.
    """
    prepared = _prepared(model)
    with _problems_told("torch.export"), _written(Path(path)) as partial:
        extra_files = {"metadata.json": json.dumps(prepared.metadata())}
        torch.export.save(_program(prepared), partial, extra_files=extra_files)
        return _compare(prepared, torch.export.load(partial).module(), path)


class _Depths(nn.Module):
    """A depth model that returns inverse depth and depth.

    Attributes:
        outputs: names of what is returned.
        size: height and width of an image.
        tolerance: the largest difference that an exported program may have.
    """

    outputs = OUTPUTS
    tolerance = TOLERANCE

    def __init__(self, model: DepthModel) -> None:
        super().__init__()
        self.model, self.size = model, (model.height, model.width)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) in [0, 1] -> 1 / depth and depth, each (B, 1, H, W)."""
        disparity = self.model.disparity(image)
        return disparity, 1 / disparity.clamp(1 / self.model.max_depth, 1 / self.model.min_depth)

    @staticmethod
    def compared(returned: Sequence[Tensor]) -> list[Tensor]:
        """The values in which program and model have to agree: inverse depth, also of the depth."""
        disparity, depth = returned
        return [disparity, 1 / depth]

    def metadata(self) -> dict[str, str]:
        """Of the file."""
        return {
            "height": str(self.model.height),
            "width": str(self.model.width),
            "min_depth": str(self.model.min_depth),
            "max_depth": str(self.model.max_depth),
            "resize": self.model.resize,
            "input": _INPUT_IN_WORDS,
            "output": "disparity: 1 / depth, (B, 1, H, W); depth: (B, 1, H, W), from min_depth to max_depth",
            "about": json.dumps(self.model.about),
        }


class _Maps(nn.Module):
    """An encoder that returns its drop-in maps, or its fused levels where it has none; attributes as of `_Depths`."""

    size = _ENCODER_SIZE
    tolerance = MAP_TOLERANCE

    def __init__(self, encoder: DepthEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        levels = [f"level{number}" for number in range(1, len(encoder.fused_channels) + 1)]
        maps = [f"stride{stride}" for stride in encoder.strides]
        self.outputs = tuple(maps if encoder.has_drop_in_maps else levels)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) in [0, 1] -> maps."""
        features = self.encoder.forward_features(image)
        return tuple(self.encoder.drop_in_maps(features) if self.encoder.has_drop_in_maps else features.fused)

    @staticmethod
    def compared(returned: Sequence[Tensor]) -> list[Tensor]:
        """The maps themselves."""
        return list(returned)

    def metadata(self) -> dict[str, str]:
        """Of the file."""
        return {
            "input": _INPUT_IN_WORDS,
            "output": f"feature maps (B, C, h, w): {', '.join(self.outputs)}",
            "about": json.dumps(getattr(self.encoder, "about", {})),
        }


def _prepared(model: DepthModel | DepthEncoder) -> _Depths | _Maps:
    """A float32 copy on the CPU, in eval mode, that returns the program's outputs."""
    own = copy.deepcopy(model).to("cpu", torch.float32)
    prepared = _Depths(own) if isinstance(own, DepthModel) else _Maps(own)
    return prepared.eval().requires_grad_(False)  # so that the program runs without `torch.no_grad`, too


def _program(prepared: _Depths | _Maps) -> ExportedProgram:
    """The model as a graph of any batch size, height and width."""
    image = torch.rand(_EXAMPLE, generator=torch.Generator().manual_seed(0))
    sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad():
        prepared(image)  # the text that is computed here becomes a constant of the program
        return torch.export.export(prepared, (image,), dynamic_shapes={INPUT: sizes}, strict=False)


def _to_onnx(program: ExportedProgram, outputs: Sequence[str]) -> torch.onnx.ONNXProgram:
    """The graph in ONNX."""
    with _quiet_onnx_ir():
        onnx = torch.onnx.export(
            program.run_decompositions(resizing_decompositions()),
            dynamo=True,
            opset_version=OPSET,
            output_names=list(outputs),
            verbose=False,
        )
    assert onnx is not None
    return onnx


@torch.no_grad()
def _compare(prepared: _Depths | _Maps, program: Program, path: str | Path) -> float:
    """The largest difference between program and model, as a share of the largest value.

    Raises:
        UserError: it is more than the tolerance, or not finite.
    """
    generator, worst = torch.Generator().manual_seed(1), 0.0
    for batch, height, width in ((1, *prepared.size), *_OTHER_SIZES):
        image = torch.rand(batch, 3, height, width, generator=generator)
        try:
            made = program(image)
        except UserError as error:  # it names the partial file
            raise UserError(
                f"{path} is not written: onnxruntime cannot run it on images of {height} x {width}"
            ) from error
        both = (prepared.compared(returned) for returned in (made, prepared(image)))
        for name, found, wanted in zip(prepared.outputs, *both, strict=True):
            difference = float((found - wanted).abs().max() / wanted.abs().max())
            if not difference <= prepared.tolerance:
                raise UserError(
                    f"{path} is not written: at {batch} x {height} x {width} {name} of the exported program differs "
                    f"from the model's by {difference:.2g} of the largest value (at most {prepared.tolerance:.0e} is "
                    "accepted)"
                )
            worst = max(worst, difference)
    return worst


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """`atomic_path`, whose system errors become a `UserError`."""
    try:
        with atomic_path(path) as partial:
            yield partial
    except OSError as error:
        raise not_written(path, error) from error


@contextmanager
def _problems_told(kind: str) -> Iterator[None]:
    """Turns what PyTorch and onnxruntime raise about unknown operations into a `UserError` of one sentence."""
    try:
        yield
    except (RuntimeError, AssertionError, TorchExportError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise UserError(f"this model cannot be exported to {kind}: {reason}") from error


@contextmanager
def _quiet_onnx_ir() -> Iterator[None]:
    """Silences the warnings that the library onnx_ir gives at every export."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
