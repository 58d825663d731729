"""`hybrid-encoder bench`: speed and memory of a preset on this machine.

The slower alternatives that are compared with are in the repository's benchmarks/.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import HybridEncoderConfig, preset
from ..data.dataset import SelfSupervisedDataset
from ..data.loader import LoaderOptions, make_loader
from ..engine.inference import inference, prepare
from ..engine.processes import Processes, choose_device
from ..errors import UserError
from ..model.decoder import DPTDecoder
from ..model.encoder import HybridEncoder
from ..stage1.dataset import Stage1Batch
from ..stage1.model import Stage1Model, stage1_config
from ..stage1.options import PretrainOptions
from ..stage2.frames import open_source
from ..stage2.model import MonoDepth
from ..stage2.options import DataOptions, Monodepth2Options
from ..stage2.training import build_optimizer
from ..two_frame.cost_volume import Lookup, depth_bins, match
from .measuring import Measures, frames_in_memory, machine, median_seconds, peak_memory, training_step
from .options import BenchOptions

LANES = 4
"""Number of sequences of seven patches per image of stage 1."""


def run(options: BenchOptions) -> None:
    """Measures one part, prints machine, versions and measures, and writes them to `--json`.

    Raises:
        UserError: the part does not fit in memory.
    """
    device = choose_device(options.device)
    try:
        measures = PARTS[options.part](options, device)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        size = f"--batch_size {options.batch_size} --height {options.height} --width {options.width}"
        raise UserError(f"{size} does not fit in the memory of {device}: lower them") from error
    report(options, device, measures)


def report(options: BenchOptions, device: torch.device, measures: Measures) -> None:
    """Prints the measures of a part, and writes them to `--json`."""
    given = {name: value for name, value in vars(options).items() if value != getattr(BenchOptions(), name)}
    given.pop("part", None)
    lines = {"benchmark": options.part, "machine": machine(device), "options": given, **measures}
    for key, value in lines.items():
        print(f"{key:>36}: {f'{value:.4g}' if isinstance(value, float) else value}")
    if options.json is not None:
        options.json.write_text(json.dumps(lines, indent=1, default=str) + "\n")


def build_config(options: BenchOptions) -> HybridEncoderConfig:
    """The preset with random weights and `--num_tokens`."""
    config = preset(options.preset).without_downloads()
    return config if options.num_tokens is None else config.replace(num_tokens=options.num_tokens)


def time_inference(
    encoder: HybridEncoder, decoder: DPTDecoder, options: BenchOptions, device: torch.device
) -> tuple[float, float, Tensor]:
    """Seconds of the encoder, seconds of encoder and decoder, and the disparity of random images."""
    torch.manual_seed(0)
    image = torch.rand(options.batch_size, 3, options.height, options.width, device=device)
    see = torch.compile(encoder.forward_features, dynamic=False) if options.compile else encoder.forward_features

    def encode() -> Tensor:
        with inference(device, options.precision):
            return see(image).aligned[0]

    def predict() -> Tensor:
        with inference(device, options.precision):
            disparity: Tensor = decoder(see(image))["disp", 0]
            return disparity

    alone, whole = (median_seconds(call, options.repeats, device) for call in (encode, predict))
    return alone, whole, predict()


def bench_encoder(options: BenchOptions, device: torch.device) -> Measures:
    """Inference with cached text features."""
    torch.manual_seed(0)
    encoder = HybridEncoder(build_config(options).replace(pyramid=False))
    decoder = prepare(DPTDecoder(encoder), device)
    alone, whole, _ = time_inference(prepare(encoder, device), decoder, options, device)
    return {
        "encoder_seconds": alone,
        "encoder_decoder_seconds": whole,
        "images_per_second": options.batch_size / whole,
        **peak_memory(device),
    }


def bench_train(options: BenchOptions, device: torch.device) -> Measures:
    """A training step of the Monodepth2 trainer on frames in memory, and the text tower's share of its time."""
    torch.manual_seed(0)
    trainer = Monodepth2Options(
        preset=options.preset,
        weights_init="scratch",
        encoder=options.encoder,
        num_layers=options.num_layers,
        height=options.height,
        width=options.width,
        batch_size=options.batch_size,
    )
    model = MonoDepth(trainer, build_config(options), "random").train()
    batch = frames_in_memory(options.batch_size, options.height, options.width, device)
    measures = _time_step(model, lambda: build_optimizer(model, trainer), batch, options, device)
    language = getattr(model.encoder, "language", None)
    if language is not None:
        measures["text_seconds"] = median_seconds(
            lambda: language.text_features().square().sum().backward(), options.repeats, device
        )
        measures["text_share"] = measures["text_seconds"] / measures["step_seconds"]
    return measures


def bench_stage1(options: BenchOptions, device: torch.device) -> Measures:
    """A training step of stage 1 on images in memory."""
    torch.manual_seed(0)
    pretrain = PretrainOptions(height=options.height, width=options.width)
    model = Stage1Model(HybridEncoder(stage1_config(build_config(options))), pretrain).train()
    size = torch.tensor([options.width, options.height], device=device)
    points = torch.rand(LANES * options.batch_size, 7, 2, device=device) * (size - 1)
    owner = torch.arange(options.batch_size, device=device).repeat_interleave(LANES)
    images = torch.rand(options.batch_size, 3, options.height, options.width, device=device)
    batch = Stage1Batch(images, points, owner, ["sample"] * options.batch_size)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return _time_step(model, lambda: torch.optim.AdamW(trained, pretrain.lr, fused=True), batch, options, device)


def _time_step(
    model: nn.Module, build: Callable[[], Optimizer], batch: Any, options: BenchOptions, device: torch.device
) -> Measures:
    """Seconds, samples per second and memory of a training step.

    Args:
        build: makes the optimiser; it is called after the model is on its device.
    """
    processes = Processes(device)
    processes.place(model)
    called = torch.compile(model, dynamic=False) if options.compile else None
    step = training_step(model, build(), [batch], processes, options.precision, called)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = median_seconds(step, options.repeats, device)
    return {"step_seconds": seconds, "samples_per_second": options.batch_size / seconds, **peak_memory(device)}


def bench_loader(options: BenchOptions, device: torch.device) -> Measures:
    """Samples of three frames per second of the loader on KITTI raw, by wall time and by CPU time."""
    data = DataOptions(data_path=options.data_path, split=options.split)
    frame_ids = (0, -1, 1)
    source = open_source(data, "train", frame_ids)
    dataset = SelfSupervisedDataset(source, options.height, options.width, frame_ids, train=True)
    loader = make_loader(dataset, options.batch_size, train=True, options=LoaderOptions(options.num_workers))
    walls, cpus = [], []
    for _ in range(options.repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        count = sum(len(batch["name"]) for batch in loader)
        walls.append(count / (time.perf_counter() - wall))
        cpus.append(count / max(time.process_time() - cpu, 1e-9))
    measures = {"samples_per_second": float(np.median(walls[1:]))}
    if options.num_workers == 0:
        measures["samples_per_cpu_second"] = float(np.median(cpus[1:]))
    return measures


def bench_cost_volume(options: BenchOptions, device: torch.device) -> Measures:
    """ManyDepth's cost volume with 96 bins, on features of stride 4."""
    height, width, channels = options.height // 4, options.width // 4, 256 if options.encoder == "hybrid" else 64
    current = torch.rand(options.batch_size, channels, height, width, device=device)
    lookup = torch.rand(options.batch_size, 1, channels, height, width, device=device)
    K = torch.tensor([[0.58 * width, 0, width / 2], [0, 1.92 * height, height / 2], [0, 0, 1]], device=device)
    K = K.expand(options.batch_size, 3, 3)
    poses = torch.eye(4, device=device).repeat(options.batch_size, 1, 1, 1)
    poses[..., 2, 3] = 0.5
    bins = depth_bins(0.1, 20.0, 96).to(device)
    frames = Lookup(lookup, poses, K, torch.linalg.inv(K))
    seconds = median_seconds(lambda: match(current, frames, bins), options.repeats, device)
    return {"cost_volume_seconds": seconds, **peak_memory(device)}


PARTS: dict[str, Callable[[BenchOptions, torch.device], Measures]] = {
    "encoder": bench_encoder,
    "train": bench_train,
    "stage1": bench_stage1,
    "loader": bench_loader,
    "cost-volume": bench_cost_volume,
}
