"""`hybrid-encoder bench`: how fast the parts are, each against the straightforward way, in one run on one machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import preset
from ..data.dataset import SelfSupervisedDataset
from ..data.loader import LoaderOptions, make_loader
from ..data.sample import FrameId
from ..engine.inference import inference, prepare
from ..engine.processes import Processes, choose_device
from ..engine.step import Stepper
from ..model.backbones import build_clip
from ..model.decoder import DPTDecoder
from ..model.encoder import HybridEncoder
from ..model.language import Language
from ..options import check_at_least, option
from ..stage1.losses import ordinal_contrastive_loss, ranking_loss
from ..stage1.patch_features import patch_features, patch_logits
from ..stage2.frames import open_source
from ..stage2.model import DepthBatch, MonoDepth
from ..stage2.options import DataOptions, Monodepth2Options
from ..stage2.training import build_optimizer
from ..two_frame.cost_volume import depth_bins, match

Figures = dict[str, float]


@dataclass(frozen=True)
class BenchOptions:
    """Options of all benchmarks."""

    preset: str = option("paper", "architecture, with random weights")
    num_tokens: int | None = option(None, "K, where it differs from the preset's")
    height: int = option(224, "image height")
    width: int = option(672, "image width")
    batch_size: int = option(1, "images of a call or step")
    repeats: int = option(5, "counted runs after one warm-up; the median is printed")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    precision: Literal["float32", "bf16"] = option("float32", "bf16: autocast")
    compile: bool = option(False, "torch.compile the model (encoder, train)")
    encoder: Literal["hybrid", "resnet"] = option("hybrid", "depth encoder (train)")
    num_layers: Literal[18, 34, 50, 101, 152] = option(18, "layers of the ResNets (train)")
    data_path: Path | None = option(None, "KITTI raw (loader)")
    split: str = option("eigen_zhou", "name or folder of a split (loader)")
    num_workers: int = option(0, "processes that load (loader)")
    json: Path | None = option(None, "also write the figures to this file")


def run_bench(name: str, options: BenchOptions) -> dict[str, Any]:
    """Runs one benchmark, prints machine, versions and figures, and returns them."""
    check_at_least(options, {"repeats": 1, "batch_size": 1, "num_workers": 0})
    device = choose_device(options.device)
    torch.manual_seed(0)
    figures = BENCHMARKS[name](options, device)
    report: dict[str, Any] = {"benchmark": name, "machine": machine(device), "options": _given(options), **figures}
    for key, value in report.items():
        print(f"{key:>36}: {f'{value:.4g}' if isinstance(value, float) else value}")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1, default=str) + "\n")
    return report


def machine(device: torch.device) -> str:
    """Processor or GPU, threads and versions."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        info = Path("/proc/cpuinfo")
        models = (
            [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
        )
        name = models[0].split(":")[1].strip() if models else platform.processor() or platform.machine()
        name = f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"
    return f"{name}; {versions}, open_clip {open_clip.__version__}"


def median_seconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median duration of a call after one warm-up: by the wall clock, on a GPU by its own events."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return statistics.median([_gpu_seconds(call) for _ in range(repeats + 1)][1:])
    return statistics.median([_wall_seconds(call) for _ in range(repeats + 1)][1:])


def _wall_seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _gpu_seconds(call: Callable[[], object]) -> float:
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    started.record()
    call()
    ended.record()
    ended.synchronize()
    return float(started.elapsed_time(ended)) / 1000


def frames_in_memory(batch: int, height: int, width: int, device: torch.device | None = None) -> DepthBatch:
    """A smooth random scene that moves sideways, with KITTI's intrinsics: what the trainers' loader would give."""
    torch.manual_seed(0)
    K = torch.tensor([[0.58 * width, 0, 0.5 * width], [0, 1.92 * height, 0.5 * height], [0, 0, 1]], device=device)
    coarse = torch.rand(batch, 3, height // 8, width // 8).to(device)
    wide = F.interpolate(coarse, (height, width + 16), mode="bilinear")
    frames: dict[FrameId, Tensor] = {i: wide[..., 8 + 2 * i : 8 + 2 * i + width].contiguous() for i in (0, -1, 1)}
    unmoved = torch.eye(4, device=device).repeat(batch, 1, 1)
    return DepthBatch(frames, frames, K.repeat(batch, 1, 1), unmoved, ["sample"] * batch)


def training_step(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Sequence[DepthBatch],
    processes: Processes,
    precision: str = "float32",
    called: Any = None,
) -> Callable[[], float]:
    """A trainer's step on batches in memory, as its loop takes it, as a function that returns the last loss.

    Args:
        called: the compiled model, where there is one.
    """
    stepper = Stepper(model, called or model, processes, precision, None)

    def step() -> float:
        for position, batch in enumerate(batches):
            scalars = stepper.run(optimizer, batch, batch.sample_names, position, len(batches))
        stepper.finish(optimizer)
        return float(scalars["loss"])

    return step


def bench_encoder(options: BenchOptions, device: torch.device) -> Figures:
    """Inference with cached text features, and with the text tower over all 77 positions for every image, as the
    authors' implementation does it."""
    config = preset(options.preset).without_downloads().replace(pyramid=False)
    if options.num_tokens is not None:
        config = config.replace(num_tokens=options.num_tokens)
    clip = build_clip(config.clip, "random")
    encoder = HybridEncoder(config)
    encoder.language = Language(clip, config)
    decoder = DPTDecoder(encoder)
    slow_text = PerImageText(clip, encoder.language)
    for module in (encoder, decoder, slow_text):
        prepare(module, device)
    image = torch.rand(options.batch_size, 3, options.height, options.width, device=device)
    see = torch.compile(encoder.forward_features, dynamic=False) if options.compile else encoder.forward_features

    def run(decode: bool) -> Tensor:
        with inference(device, options.precision):
            features = see(image)
            return decoder(features)["disp", 0] if decode else features.aligned[0]

    ours, ours_decoder = (median_seconds(lambda d=d: run(d), options.repeats, device) for d in (False, True))  # type: ignore[misc]
    fast = run(True)
    # A plain function: a module would be registered as a child and leave the method in place.
    encoder.language.text_features = lambda: slow_text()  # type: ignore[method-assign]
    slow, slow_decoder = (median_seconds(lambda d=d: run(d), options.repeats, device) for d in (False, True))  # type: ignore[misc]
    return {
        "encoder_seconds": ours,
        "encoder_decoder_seconds": ours_decoder,
        "images_per_second": options.batch_size / ours_decoder,
        "per_image_text_encoder_seconds": slow,
        "per_image_text_encoder_decoder_seconds": slow_decoder,
        "ratio_encoder": slow / ours,
        "ratio_encoder_decoder": slow_decoder / ours_decoder,
        "largest_difference": float((run(True).float() - fast.float()).abs().max()),
    }


class PerImageText(nn.Module):
    """Text features over all positions of every prompt, anew at every call: the yardstick, and only that."""

    ids: Tensor

    def __init__(self, clip: Any, language: Language, context_length: int = 77) -> None:
        super().__init__()
        self.clip, self.slot = clip, language.slot
        tokenize = open_clip.SimpleTokenizer(context_length=context_length)
        self.register_buffer("ids", tokenize(["This patch appears to be x"]))
        self.tokens = language.tokens

    def forward(self) -> Tensor:
        """(K, D)."""
        clip = self.clip
        prompts = clip.token_embedding(self.ids).repeat(len(self.tokens), 1, 1)
        prompts[:, self.slot] = self.tokens
        length = prompts.shape[1]
        mask = clip.attn_mask[:length, :length]
        x = clip.transformer(prompts + clip.positional_embedding[:length], attn_mask=mask)
        ends = self.ids.argmax(-1).expand(len(x))
        x = clip.ln_final(x)[torch.arange(len(x), device=x.device), ends] @ clip.text_projection
        return F.normalize(x, dim=-1)


def bench_train(options: BenchOptions, device: torch.device) -> Figures:
    """A training step of the Monodepth2 trainer on frames in memory, and the share that the text tower takes."""
    trainer = Monodepth2Options(
        preset=options.preset,
        weights_init="scratch",
        encoder=options.encoder,
        num_layers=options.num_layers,
        height=options.height,
        width=options.width,
        batch_size=options.batch_size,
    )
    config = trainer.config()
    if options.num_tokens is not None:
        config = config.replace(num_tokens=options.num_tokens)
    model = MonoDepth(trainer, config, "random").train()
    processes = Processes(device)
    processes.place(model)
    batch = frames_in_memory(options.batch_size, options.height, options.width, device)
    optimizer = build_optimizer(model, trainer)
    called = torch.compile(model, dynamic=False) if options.compile else None
    step = training_step(model, optimizer, [batch], processes, options.precision, called)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = median_seconds(step, options.repeats, device)
    figures = {"step_seconds": seconds, "samples_per_second": options.batch_size / seconds}
    if device.type == "cuda":
        figures["peak_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    if isinstance(model.encoder, HybridEncoder):
        language = model.encoder.language

        def text_alone() -> None:
            language.text_features().square().sum().backward()

        figures["text_seconds"] = median_seconds(text_alone, options.repeats, device)
        figures["text_share"] = figures["text_seconds"] / seconds
    return figures


def bench_stage1(options: BenchOptions, device: torch.device) -> Figures:
    """Sampling and losses of 6 images with 4 lanes each, forward and backward, against a loop over lanes and points."""
    levels = [torch.randn(6, 1024, 16, 16, device=device).requires_grad_() for _ in range(4)]
    points = torch.rand(24, 7, 2, device=device) * 223
    owner = torch.arange(6, device=device).repeat_interleave(4)
    text = F.normalize(torch.randn(7, 1024, device=device), dim=-1)

    def vectorised() -> Tensor:
        features = patch_features(levels, points, owner, (224, 224), 1024)
        return ranking_loss(patch_logits(features, text)) + ordinal_contrastive_loss(features)

    def loops() -> Tensor:
        total = torch.zeros((), device=device)
        for lane in range(24):
            patches = []
            for point in range(7):
                x, y = (int(v) for v in points[lane, point] / 224 * 16)
                patch = torch.cat([level[owner[lane], :, y, x] for level in levels])
                patch = F.interpolate(patch[None, None], size=1024, mode="nearest")[0, 0]
                patches.append(F.normalize(patch, dim=0))
            logits = [[100 * (patch * prompt).sum() for prompt in text] for patch in patches]
            for j in range(7):
                for i in range(j):
                    total = total + F.relu(logits[i][j] - logits[j][j]) / 24
            for i in range(7):
                for j in range(7):
                    total = total + abs(i - j) / 6 * (patches[i] * patches[j]).sum() / 49 / 24
        return total

    def timed(loss: Callable[[], Tensor]) -> float:
        return median_seconds(lambda: loss().backward(), options.repeats, device)

    fast, slow = timed(vectorised), timed(loops)
    ours, theirs = float(vectorised().detach()), float(loops().detach())
    difference = abs(ours - theirs) / abs(theirs)
    return {"vectorised_seconds": fast, "loop_seconds": slow, "ratio": slow / fast, "relative_difference": difference}


def bench_loader(options: BenchOptions, device: torch.device) -> Figures:
    """Samples a second of the loader on KITTI raw, three frames each, by the wall clock and by the processor's."""
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
    figures = {"samples_per_second": float(np.median(walls[1:]))}
    if options.num_workers == 0:
        figures["samples_per_cpu_second"] = float(np.median(cpus[1:]))
    return figures


def bench_cost_volume(options: BenchOptions, device: torch.device) -> Figures:
    """ManyDepth's cost volume on features of stride 4, 96 bins."""
    height, width, channels = options.height // 4, options.width // 4, 256 if options.encoder == "hybrid" else 64
    current = torch.rand(options.batch_size, channels, height, width, device=device)
    lookup = torch.rand(options.batch_size, 1, channels, height, width, device=device)
    K = torch.tensor([[0.58 * width, 0, width / 2], [0, 1.92 * height, height / 2], [0, 0, 1]], device=device)
    K = K.expand(options.batch_size, 3, 3)
    poses = torch.eye(4, device=device).repeat(options.batch_size, 1, 1, 1)
    poses[..., 2, 3] = 0.5
    bins = depth_bins(0.1, 20.0, 96).to(device)
    inverse = torch.linalg.inv(K)
    seconds = median_seconds(lambda: match(current, lookup, poses, K, inverse, bins), options.repeats, device)
    return {"cost_volume_seconds": seconds}


BENCHMARKS: dict[str, Callable[[BenchOptions, torch.device], Figures]] = {
    "encoder": bench_encoder,
    "train": bench_train,
    "stage1": bench_stage1,
    "loader": bench_loader,
    "cost-volume": bench_cost_volume,
}


def _given(options: BenchOptions) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if value != getattr(BenchOptions(), name)}
