"""A training step with ResNet-18, ours against the original trainers' own classes, on the same frames and weights.

    python benchmarks/training_step.py [--threads 2] [--rounds 7] [--compile]

Downloads the originals' published wheels to a temporary folder; their data sets are replaced by frames in memory, and
`grid_sample` aligns corners as on the PyTorch they were written for. The two sides take turns; seconds are medians.
`--compile` is that of our trainers, on our side alone.
Prints a table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hybrid_encoder.adapters.manydepth.model import TwoFrameDepth  # noqa: E402
from hybrid_encoder.adapters.manydepth.options import ManydepthOptions  # noqa: E402
from hybrid_encoder.adapters.manydepth.trainer import build_optimizer as two_frame_optimizer  # noqa: E402
from hybrid_encoder.adapters.monodepth2.model import DepthBatch, MonoDepth  # noqa: E402
from hybrid_encoder.adapters.monodepth2.options import Monodepth2Options  # noqa: E402
from hybrid_encoder.adapters.monodepth2.trainer import build_optimizer  # noqa: E402
from hybrid_encoder.bench import machine  # noqa: E402
from hybrid_encoder.engine.processes import Processes  # noqa: E402
from hybrid_encoder.engine.step import Stepper  # noqa: E402
from hybrid_encoder.selfsup import objective  # noqa: E402
from hybrid_encoder.selfsup.objective import View, self_supervised_loss  # noqa: E402
from tests.oracle import Original, download  # noqa: E402

FRAMES = (0, -1, 1)
SCALES = (0, 1, 2, 3)


def frames_in_memory(batch: int, height: int, width: int) -> DepthBatch:
    """A smooth random scene that moves sideways, with KITTI's intrinsics."""
    torch.manual_seed(0)
    K = torch.tensor([[0.58 * width, 0, 0.5 * width], [0, 1.92 * height, 0.5 * height], [0, 0, 1]])
    wide = F.interpolate(torch.rand(batch, 3, height // 8, width // 8), (height, width + 16), mode="bilinear")
    frames: dict[Any, Tensor] = {i: wide[..., 8 + 2 * i : 8 + 2 * i + width].contiguous() for i in FRAMES}
    return DepthBatch(frames, frames, K.repeat(batch, 1, 1), torch.eye(4).repeat(batch, 1, 1), ["sample"] * batch)


def their_inputs(batch: DepthBatch) -> dict[Any, Tensor]:
    """The batch under the originals' keys, with image pyramids."""
    inputs: dict[Any, Tensor] = {}
    full = torch.eye(4).repeat(len(batch.K), 1, 1)
    full[:, :3, :3] = batch.K
    for scale in SCALES:
        K = full.clone()
        K[:, :2] /= 2**scale
        inputs["K", scale], inputs["inv_K", scale] = K, torch.linalg.inv(K)
        for i in FRAMES:
            image = F.avg_pool2d(batch.frames[i], 2**scale)
            inputs["color", i, scale] = inputs["color_aug", i, scale] = image
    return inputs


def their_trainer(original: Original, batch: int, height: int, width: int, extra: list[str], folder: str) -> Any:
    """The original's `Trainer` on the CPU, over a data set that is never read."""
    module = original.trainer
    nothing = lambda *_, **__: [0] * batch  # noqa: E731
    names = ("KITTIRAWDataset", "KITTIOdomDataset", "CityscapesPreprocessedDataset")
    module.datasets = SimpleNamespace(**dict.fromkeys(names, nothing))
    module.readlines = nothing
    given = ["--no_cuda", "--weights_init", "scratch", "--num_workers", "0", "--log_dir", folder, *extra]
    given += ["--batch_size", str(batch), "--height", str(height), "--width", str(width)]
    with redirect_stdout(StringIO()):
        trainer = module.Trainer(original.options.MonodepthOptions().parser.parse_args(given))
    trainer.set_train()
    return trainer


@contextmanager
def old_stack() -> Iterator[None]:
    """Today's PyTorch behaving as the originals' did, on a machine without GPU."""
    sample = F.grid_sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "grid_sample", lambda *a, **k: sample(*a, **{**k, "align_corners": True}))
        patch.setattr(Tensor, "cuda", lambda self: self)
        yield


@contextmanager
def ties_unbroken() -> Iterator[None]:
    """No noise on the original's identity loss, so that two sides can be compared; ours has none here, see `main`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", lambda *size, **_: torch.zeros(*size))
        yield


def kept_mib(forward: Callable[[], object]) -> float:
    """What a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(kept.values()) / 2**20


def compare(
    name: str, ours: tuple[Callable[[], Tensor], ...], theirs: tuple[Callable[[], Tensor], ...], n: int
) -> None:
    """Prints a row. Each side: its loss with the graph, and the whole step; the losses are compared first."""
    with ties_unbroken():
        their_loss = float(theirs[0]().detach())
    losses = (their_loss, float(ours[0]().detach()))
    memory = [kept_mib(side[0]) for side in (theirs, ours)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(n + 1):
        for side, found in zip((theirs, ours), seconds, strict=True):
            started = time.perf_counter()
            side[1]()
            found.append(time.perf_counter() - started)
    slow, fast = (statistics.median(found[1:]) for found in seconds)
    difference = abs(losses[0] - losses[1]) / losses[0]
    print(f"| {name} | {slow:.3f} | {fast:.3f} | {slow / fast:.2f} | {memory[0]:.0f} | {memory[1]:.0f} ", end="")
    print(f"| {losses[0]:.6f} | {losses[1]:.6f} | {difference:.0e} |", flush=True)


def whole_step(host: str, wheel: Path, size: tuple[int, int, int], rounds: int, compiled: bool) -> None:
    batch = frames_in_memory(*size)
    settings: dict[str, Any] = {"encoder": "resnet", "weights_init": "scratch", "scales": SCALES}
    settings |= {"batch_size": size[0], "height": size[1], "width": size[2]}
    model: MonoDepth | TwoFrameDepth
    extra: list[str] = []
    if host == "monodepth2":
        options = Monodepth2Options(**settings)
        model = MonoDepth(options, options.config(), "random").train()
        optimizer = build_optimizer(model, options)
    else:
        two = ManydepthOptions(**settings, teacher_encoder="resnet", no_matching_augmentation=True)
        model = TwoFrameDepth(two, two.config(), "random").train()
        optimizer = two_frame_optimizer(model, two)
        extra = ["--no_matching_augmentation"]
    processes = Processes(torch.device("cpu"))
    processes.place(model)
    called = torch.compile(model, dynamic=False) if compiled else model  # as the training loop does
    stepper = Stepper(model, called, processes, "float32", None)

    with tempfile.TemporaryDirectory() as folder:
        original = Original(host, wheel)
        trainer = their_trainer(original, *size, extra, folder)
    for name, net in model.files().items():
        trainer.models[name].load_state_dict(net.state_dict(), strict=False)
    inputs = their_inputs(batch)

    def their_loss() -> Tensor:
        process = {"is_train": True} if host == "manydepth" else {}
        with old_stack():
            loss: Tensor = trainer.process_batch(inputs, **process)[1]["loss"]
        return loss

    def their_step() -> Tensor:
        loss = their_loss()
        trainer.model_optimizer.zero_grad()
        loss.backward()
        trainer.model_optimizer.step()
        return loss

    def our_step() -> Tensor:
        scalars = stepper.run(optimizer, batch, batch.names, 0, 1)
        stepper.finish(optimizer)
        return scalars["loss"]

    compare(f"{host}, whole step", (lambda: called(batch)["loss"], our_step), (their_loss, their_step), rounds)
    if host == "monodepth2" and not compiled:
        losses_alone(model, batch, trainer, inputs, rounds)


def losses_alone(model: Any, batch: DepthBatch, trainer: Any, inputs: dict[Any, Tensor], rounds: int) -> None:
    """View synthesis, reprojection, auto-mask and smoothness, from given disparities and poses."""
    with torch.no_grad():
        features = model.encoder(batch.augmented[0])
        outputs = {key: value.detach() for key, value in model.depth(features).items()}
        poses = {i: T.detach() for i, T in model.predict_poses(batch, features).items()}
    for value in outputs.values():
        value.requires_grad_()

    def their_loss() -> Tensor:
        with old_stack():
            found = {**outputs, **{("cam_T_cam", 0, i): T for i, T in poses.items()}}
            trainer.generate_images_pred(inputs, found)
            loss: Tensor = trainer.compute_losses(inputs, found)["loss"]
        return loss

    def our_loss() -> Tensor:
        view = View.of(batch.frames, batch.K, model.objective)
        return self_supervised_loss(outputs, view, poses, model.objective).loss

    def step(loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            value = loss()
            value.backward()
            return value

        return run

    compare("monodepth2, losses alone", (our_loss, step(our_loss)), (their_loss, step(their_loss)), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=640)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    objective.TIE_BREAK = 0.0  # drawn, and multiplied by 0
    size = (given.batch_size, given.height, given.width)
    with tempfile.TemporaryDirectory() as folder:
        wheels = {host: download(host, Path(folder)) for host in ("monodepth2", "manydepth")}
        torch.set_num_threads(given.threads)
        print(f"{machine(torch.device('cpu'))}; batch {size[0]}, {size[1]}x{size[2]}, 4 scales\n")
        print(
            "| what | original (s) | ours (s) | ratio | kept for backward: original (MiB) | ours | loss | ours |",
            end="",
        )
        print(" difference |\n|---|---|---|---|---|---|---|---|---|")
        for host, wheel in wheels.items():
            whole_step(host, wheel, size, given.rounds, given.compile)


if __name__ == "__main__":
    main()
