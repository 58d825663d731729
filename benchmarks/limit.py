"""How near each main path comes to what one core can do: its arithmetic and its memory at the core's measured rates.

    taskset -c 0 python benchmarks/limit.py [--rows tiny small paper step1 step2 two renderer loader video] [--rounds 3]

One thread, float32, random weights, batch 1 for inference. Every operator that PyTorch runs is counted: floating-point
operations of convolutions, matrix products and attention, and bytes of its inputs and outputs. At best it takes as long
as the slower of the two at the rates of a large matrix product and of a copy that does not fit into the core's own
cache. The limit is the sum over operators, the share is limit / time taken. Times are the processor's, not the clock's,
and the least of all rounds, so that a busy machine does as well. The last column names where most is lost: kind of
operator, time taken / its limit (ms). Prints a table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from gpu import kind
from prediction import drive_pictures, write_movie
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from hybrid_encoder.commands.measuring import frames_in_memory, machine, training_step
from hybrid_encoder.config import preset
from hybrid_encoder.data.dataset import SelfSupervisedDataset
from hybrid_encoder.data.sample import FrameId
from hybrid_encoder.engine.inference import inference, prepare
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.images import read_image
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.depth_model import DepthModel
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.prediction.paths import predict_paths
from hybrid_encoder.prediction.settings import PredictionSettings
from hybrid_encoder.stage1.dataset import Stage1Batch
from hybrid_encoder.stage1.model import Stage1Model, stage1_config
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage2.model import MonoDepth
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.stage2.training import build_optimizer
from hybrid_encoder.synthetic.camera import kitti_camera
from hybrid_encoder.synthetic.sequence import iterate_frames
from hybrid_encoder.synthetic.writers import write_jpeg
from hybrid_encoder.two_frame.model import TwoFrameDepth
from hybrid_encoder.two_frame.options import ManydepthOptions
from hybrid_encoder.two_frame.training import build_optimizer as two_frame_optimizer
from hybrid_encoder.weights.in_package import DEFAULT

CPU = torch.device("cpu")
PROCESSES = Processes(CPU)
KITTI_SIZE = (375, 1242)
Work = Callable[[], object]


class Operators(TorchDispatchMode):
    """Counts what operators compute and move, and how long each kind of them takes, while it is active."""

    def __init__(self, flops_a_second: float, bytes_a_second: float) -> None:
        super().__init__()
        self.rates = flops_a_second, bytes_a_second
        self.flops = self.bytes = self.limit = 0.0
        self.limits: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        started = time.thread_time()
        out = func(*args, **kwargs)
        took = time.thread_time() - started
        flops = _flops(func._overloadpacket, args, kwargs, out)
        moved = 0 if func.is_view else sum(_bytes(part) for part in tree_leaves((args, kwargs, out)))
        limit = max(flops / self.rates[0], moved / self.rates[1])
        label = kind(str(func._overloadpacket))
        self.flops, self.bytes, self.limit = self.flops + flops, self.bytes + moved, self.limit + limit
        self.limits[label] += limit  # type: ignore[assignment]
        self.seconds[label] += took  # type: ignore[assignment]
        return out

    def losses(self) -> str:
        """The three kinds that lose most, with their milliseconds and those of their limits."""
        by_loss = sorted(self.seconds, key=lambda label: self.limits[label] - self.seconds[label])[:3]
        return ", ".join(
            f"{label} {1e3 * self.seconds[label]:.0f} / {1e3 * self.limits[label]:.0f}" for label in by_loss
        )


def _flops(operator: Any, args: Any, kwargs: Any, out: Any) -> float:
    """Of one operator; PyTorch does not count attention on a CPU."""
    aten = torch.ops.aten
    if operator is aten._scaled_dot_product_flash_attention_for_cpu:
        return float(sdpa_flop_count(*(part.shape for part in args[:3])))
    if operator is aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return float(sdpa_backward_flop_count(*(part.shape for part in args[:4])))
    counted = flop_registry.get(operator)
    return float(counted(*args, **kwargs, out_val=out)) if counted else 0.0


def _bytes(value: Any) -> int:
    """Of what a tensor occupies; what is expanded counts once."""
    if not isinstance(value, Tensor):
        return 0
    return min(value.numel() * value.element_size(), value.untyped_storage().nbytes())


def cpu_seconds(call: Work, rounds: int) -> float:
    """Least processor time of a call after a warm-up."""
    call()
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        call()
        best = min(best, time.process_time() - started)
    return best


def measure_rates() -> tuple[float, float]:
    """Operations a second of a product of 1024 rows; bytes a second of a copy of 16 MiB, read and written."""
    a, b = torch.rand(2, 1024, 1024)
    source = torch.rand(4 << 20)
    target = torch.empty_like(source)
    return 2 * 1024**3 / cpu_seconds(lambda: a @ b, 20), 2 * 16 * 2**20 / cpu_seconds(lambda: target.copy_(source), 20)


def see(name: str, height: int, width: int) -> Work:
    """Inference of one image."""
    encoder = HybridEncoder(preset(name).without_downloads().replace(pyramid=False))
    decoder, encoder = prepare(DPTDecoder(encoder), CPU), prepare(encoder, CPU)
    image = torch.rand(1, 3, height, width).to(memory_format=torch.channels_last)

    def call() -> None:
        with torch.no_grad():  # in inference mode, operators that consist of others would be counted as one
            decoder(encoder.forward_features(image))

    return call


def step1() -> Work:
    """A step of stage 1, `paper`, one image of four lanes."""
    options = PretrainOptions(data=("synthetic:0",), preset="paper", weights_init="scratch")
    model = Stage1Model(HybridEncoder(stage1_config(options.config())), options).train()
    PROCESSES.place(model)
    size = torch.tensor([options.width, options.height])
    images = torch.rand(1, 3, options.height, options.width)
    batch = Stage1Batch(images, torch.rand(4, 7, 2) * (size - 1), torch.zeros(4, dtype=torch.long), ["sample"])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return training_step(model, torch.optim.AdamW(trained, options.lr, fused=True), [batch], PROCESSES)


def step2(**settings: Any) -> Work:
    """A step of stage 2 at 192x640, one sample."""
    options = Monodepth2Options(weights_init="scratch", height=192, width=640, **settings)
    model = MonoDepth(options, options.config(), "random").train()
    PROCESSES.place(model)
    return training_step(model, build_optimizer(model, options), [frames_in_memory(1, 192, 640)], PROCESSES)


def two() -> Work:
    """A step of two frames with ResNet-18 at 192x640, one sample."""
    options = ManydepthOptions(
        weights_init="scratch", height=192, width=640, encoder="resnet", teacher_encoder="resnet"
    )
    model = TwoFrameDepth(options, options.config(), "random").train()
    PROCESSES.place(model)
    return training_step(model, two_frame_optimizer(model, options), [frames_in_memory(1, 192, 640)], PROCESSES)


def render() -> Work:
    """Three frames of a drive at KITTI's size."""
    return lambda: list(iterate_frames(0, 3, kitti_camera(*KITTI_SIZE)))


ROWS: dict[str, dict[str, Callable[[], Work]]] = {
    "tiny": {f"inference, `tiny`, {h}x{w}": partial(see, "tiny", h, w) for h, w in ((192, 640), (224, 672))},
    "small": {f"inference, `small`, {h}x{w}": partial(see, "small", h, w) for h, w in ((192, 640), (224, 672))},
    "paper": {f"inference, `paper`, {h}x{w}": partial(see, "paper", h, w) for h, w in ((192, 640), (224, 672))},
    "step1": {"step of stage 1, `paper`": step1},
    "step2": {
        "step of stage 2, `paper`": partial(step2, preset="paper"),
        "step of stage 2, ResNet-18": partial(step2, encoder="resnet", scales=(0, 1, 2, 3)),
    },
    "two": {"step of two frames, ResNet-18": two},
    "renderer": {"renderer, 3 frames of 375x1242": render},
}

OTHER_ROWS = ("loader", "video")
"""Rows whose limit is, in part, a library's time."""


def measure_row(title: str, build: Callable[[], Work], rounds: int, rates: tuple[float, float]) -> None:
    """Prints the row of one path."""
    torch.manual_seed(0)
    call = build()
    taken = cpu_seconds(call, rounds)
    with Operators(*rates) as found:
        call()
    print(f"| {title} | {found.flops / 1e9:.1f} | {found.bytes / 2**20:.0f} | {found.flops / rates[0]:.3f} ", end="")
    print(f"| {found.bytes / rates[1]:.3f} | {found.limit:.3f} | {taken:.3f} | {found.limit / taken:.0%} ", end="")
    print(f"| {found.losses()} |", flush=True)


class Drive:
    """Three rendered frames as JPEG files, as a `FrameSource` of one sample."""

    def __init__(self, folder: Path) -> None:
        camera = kitti_camera(*KITTI_SIZE)
        self.paths, self.K = [folder / f"{number}.jpg" for number in range(3)], camera.K.numpy()
        for path, frame in zip(self.paths, iterate_frames(0, 3, camera), strict=True):
            write_jpeg(path, frame.image)

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return f"drive {index}"

    def read(self, _: int, frame_id: FrameId) -> np.ndarray:
        return read_image(self.paths[1 + int(frame_id)])

    def intrinsics(self, _: int) -> np.ndarray:
        return self.K

    def stereo_sign(self, _: int) -> int:
        return -1


def measure_loader(rounds: int) -> None:
    """Prints the loader's row: its limit is the library's time for decoding the same frames."""
    with tempfile.TemporaryDirectory() as folder:
        source = Drive(Path(folder))
        data = [np.frombuffer(path.read_bytes(), np.uint8) for path in source.paths]
        dataset = SelfSupervisedDataset(source, 192, 640, (0, -1, 1), train=True)
        decode = cpu_seconds(lambda: [cv2.imdecode(part, cv2.IMREAD_COLOR) for part in data], rounds)
        read = cpu_seconds(lambda: [read_image(path) for path in source.paths], rounds)
        whole = cpu_seconds(lambda: dataset[0, 0], rounds)
    print(f"| loader, 3 frames | - | - | - | - | {decode:.4f} | {whole:.4f} | {decode / whole:.0%} ", end="")
    print(f"| the limit is OpenCV's decoding; read and checked {1e3 * read:.1f} ms |", flush=True)


def read_movie(path: Path) -> list[np.ndarray]:
    """The frames of a video, by OpenCV."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def measure_video(rounds: int, rates: tuple[float, float], frames: int = 24) -> None:
    """Prints the row of `predict` on a video with the weights in the package: its limit is that of the net, and the
    library's time for decoding the frames and for encoding the same pairs of pictures."""
    settings = PredictionSettings(progress=False, video_codec="mpeg4")
    model = prepare(DepthModel.from_pretrained(DEFAULT), CPU)
    image = torch.rand(1, 3, model.height, model.width).to(memory_format=torch.channels_last)
    with torch.no_grad(), Operators(*rates) as net:
        model.disparity(image)
    with tempfile.TemporaryDirectory() as folder, inference(CPU):
        drive = Path(folder) / "drive.mp4"
        write_movie(drive, drive_pictures(frames, *KITTI_SIZE))
        predict = partial(predict_paths, model, [drive], Path(folder) / "depth", settings)
        (movie,) = predict()
        shown = read_movie(movie)
        decode = cpu_seconds(lambda: read_movie(drive), rounds)
        encode = cpu_seconds(lambda: write_movie(Path(folder) / "again.mp4", shown), rounds)
        seen = cpu_seconds(lambda: model.disparity(image), 10 * rounds)
        whole = cpu_seconds(predict, rounds)
    limit = frames * net.limit + decode + encode
    print(f"| `predict`, video of {frames} frames | {frames * net.flops / 1e9:.1f} | - | - | - | {limit:.3f} ", end="")
    print(f"| {whole:.3f} | {limit / whole:.0%} | decoding {1e3 * decode:.0f}, net {1e3 * frames * seen:.0f} ", end="")
    print(f"/ {1e3 * frames * net.limit:.0f}, encoding {1e3 * encode:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, *OTHER_ROWS], default=[*ROWS, *OTHER_ROWS])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rates = measure_rates()
    print(f"{machine(CPU)}; least of {given.rounds}")
    print(f"matrix product {rates[0] / 1e9:.0f} GFLOP/s, copy {rates[1] / 2**30:.1f} GiB/s, read and written\n")
    print("| path | GFLOP | MiB moved | arithmetic (s) | memory (s) | limit (s) | taken (s) | share ", end="")
    print("| taken / limit (ms), by kind |\n|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in given.rows:
        for title, build in ROWS.get(name, {}).items():
            measure_row(title, build, given.rounds, rates)
    if "loader" in given.rows:
        measure_loader(10 * given.rounds)
    if "video" in given.rows:
        measure_video(given.rounds, rates)


if __name__ == "__main__":
    main()
