"""An exported ONNX file against the model that it comes from: difference and speed at three sizes and two batches.

    python benchmarks/export.py [paper | WEIGHTS ...] [--part encoder]

A preset gets random weights. Seconds are the processor's, of one thread, and the second of two runs, so that they mean
something on a busy machine; where openvino is installed, it runs the same file. Differences are of inverse depth, or of
a feature map of the encoder alone, as a share of the largest value. Prints a table of docs/WEIGHTS.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from hybrid_encoder.commands.convert import open_depth_model
from hybrid_encoder.commands.measuring import machine
from hybrid_encoder.config import PRESETS, preset
from hybrid_encoder.model.contract import DepthEncoder
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.depth_model import DepthModel
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.model.export import export_onnx
from hybrid_encoder.model.onnx_depth import OnnxProgram

SIZES = ((96, 320), (192, 320), (192, 640))
BATCHES = (1, 2)

Net = Callable[[Tensor], Sequence[Tensor]]


def opened(name: str, part: str) -> tuple[DepthModel | DepthEncoder, Net]:
    """A preset's net with random weights, or weights as `hybrid-encoder export` takes them: what is exported, and what
    is compared with the file."""
    torch.manual_seed(0)
    if name in PRESETS:
        encoder = HybridEncoder(preset(name).without_downloads().replace(pyramid=part == "encoder")).eval()
        if part == "encoder":
            return encoder, encoder
        model = DepthModel(encoder, DPTDecoder(encoder), 192, 640).eval()
    else:
        model = open_depth_model(name).eval()
    if part == "encoder":
        encoder = model.encoder
        return encoder, encoder if encoder.has_drop_in_maps else lambda image: encoder.forward_features(image).fused
    return model, lambda image: [model.disparity(image)]


def openvino_net(file: Path) -> Net:
    """The file as OpenVINO runs it, in float32 on one thread."""
    openvino = import_module("openvino")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(file), "CPU", settings)
    return lambda image: [torch.from_numpy(found) for found in compiled(image.numpy()).values()]


def timed(net: Net, image: Tensor) -> tuple[Sequence[Tensor], float]:
    """What a net gives, and the processor's seconds of its second run."""
    net(image)
    started = time.process_time()
    found = net(image)
    return found, time.process_time() - started


@torch.inference_mode()
def compare(name: str, part: str, file: Path) -> None:
    """Exports a model and prints its rows."""
    model, net_in_torch = opened(name, part)
    export_onnx(model, file)
    nets: dict[str, Net] = {"onnxruntime": OnnxProgram(file)}
    if find_spec("openvino"):
        nets["openvino"] = openvino_net(file)
    for batch in BATCHES:
        for height, width in SIZES:
            image = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(batch))
            wanted, seconds = timed(net_in_torch, image)
            row = f"| {name} | {batch} x {height} x {width} | {seconds:.2f} |"
            for net in nets.values():
                found, seconds = timed(net, image)
                pairs = zip(found[: len(wanted)], wanted, strict=True)  # of a depth model's outputs, disparity
                differences = [(one - other).abs().max() / other.abs().max() for one, other in pairs]
                row += f" {seconds:.2f} | {float(max(differences)):.1e} |"
            print(row, flush=True)


def main() -> None:
    """Compares the models that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["tiny-rendered", "paper"])
    parser.add_argument("--part", choices=["depth", "encoder"], default="depth")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine(torch.device("cpu")))
    print("| model | images | torch (s) | onnxruntime (s) | difference | openvino (s) | difference |")
    for name in given.models:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, given.part, Path(folder) / "model.onnx")


if __name__ == "__main__":
    main()
