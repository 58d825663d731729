"""Compares a training step of ours with ResNet-18 with the original trainers' classes, on the same frames and weights.

    python benchmarks/training_step.py [--threads 2] [--rounds 7] [--compile]

Downloads the originals' published wheels to a temporary folder; their data sets are replaced by frames in memory, and
`grid_sample` aligns corners as in the PyTorch that they were written for. Each side runs in a process of its own, as in
real use; the sides take turns; seconds are medians. `--compile` is the option of our trainers, and affects our side
only. Prints a table of benchmarks/README.md.
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
from dataclasses import dataclass
from functools import partial
from io import StringIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hybrid_encoder.commands.measuring import frames_in_memory, machine, training_step  # noqa: E402
from hybrid_encoder.engine.allocator import keep_freed_memory  # noqa: E402
from hybrid_encoder.engine.processes import Processes  # noqa: E402
from hybrid_encoder.stage2 import objective  # noqa: E402
from hybrid_encoder.stage2.model import DepthBatch, MonoDepth  # noqa: E402
from hybrid_encoder.stage2.objective import View, self_supervised_loss  # noqa: E402
from hybrid_encoder.stage2.options import Monodepth2Options  # noqa: E402
from hybrid_encoder.stage2.training import build_optimizer  # noqa: E402
from hybrid_encoder.two_frame.model import TwoFrameDepth  # noqa: E402
from hybrid_encoder.two_frame.options import ManydepthOptions  # noqa: E402
from hybrid_encoder.two_frame.training import build_optimizer as two_frame_optimizer  # noqa: E402
from tests.oracle import Original, download  # noqa: E402

SCALES = (0, 1, 2, 3)


def their_inputs(batch: DepthBatch) -> dict[Any, Tensor]:
    """The batch under the originals' keys, with image pyramids."""
    inputs: dict[Any, Tensor] = {}
    full = torch.eye(4).repeat(len(batch.K), 1, 1)
    full[:, :3, :3] = batch.K
    for scale in SCALES:
        K = full.clone()
        K[:, :2] /= 2**scale
        inputs["K", scale], inputs["inv_K", scale] = K, torch.linalg.inv(K)
        for i in batch.frames:
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
    """Makes today's PyTorch behave as that of the originals did, on a machine without GPU."""
    sample = F.grid_sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "grid_sample", lambda *a, **k: sample(*a, **{**k, "align_corners": True}))
        patch.setattr(Tensor, "cuda", lambda self: self)
        yield


@contextmanager
def ties_unbroken() -> Iterator[None]:
    """Removes the noise on the original's identity loss, so that the sides can be compared; `ours` removes our
    noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", lambda *size, **_: torch.zeros(*size))
        yield


def kept_mib(forward: Callable[[], object]) -> float:
    """MiB that a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(kept.values()) / 2**20


@dataclass(frozen=True)
class Side:
    """`loss` returns the loss with its graph, without noise on ties. `step` is timed."""

    loss: Callable[[], Tensor]
    step: Callable[[], object]


@dataclass(frozen=True)
class Case:
    """What both sides run: whole steps, or only the losses, on disparities and poses that our side saved in `given`."""

    host: str
    size: tuple[int, int, int]
    losses_alone: bool
    wheel: Path
    given: Path


def ours(case: Case, compiled: bool) -> Side:
    """Our trainer, as its command runs it; saves weights, disparities and poses in `case.given`."""
    keep_freed_memory()
    objective.TIE_BREAK = 0.0
    batch = frames_in_memory(*case.size)
    settings: dict[str, Any] = {"encoder": "resnet", "weights_init": "scratch", "scales": SCALES}
    settings |= {"batch_size": case.size[0], "height": case.size[1], "width": case.size[2]}
    model: Any
    if case.host == "monodepth2":
        options = Monodepth2Options(**settings)
        model = MonoDepth(options, options.config(), "random").train()
        optimizer = build_optimizer(model, options)
    else:
        two = ManydepthOptions(**settings, teacher_encoder="resnet", no_matching_augmentation=True)
        model = TwoFrameDepth(two, two.config(), "random").train()
        optimizer = two_frame_optimizer(model, two)
    processes = Processes(torch.device("cpu"))
    processes.place(model)
    given: dict[str, Any] = {"weights": {name: net.state_dict() for name, net in model.files().items()}}
    if case.losses_alone:
        with torch.no_grad():
            features = model.encoder(batch.augmented[0])
            given |= {"disparities": model.depth(features), "poses": model.predict_poses(batch, {})}
    torch.save(given, case.given)
    if case.losses_alone:
        disparities = {key: value.requires_grad_() for key, value in given["disparities"].items()}

        def loss() -> Tensor:
            view = View.of(batch.frames, batch.K, model.objective)
            return self_supervised_loss(disparities, view, given["poses"], model.objective).loss

        return Side(loss, lambda: loss().backward())  # type: ignore[no-untyped-call]

    called = torch.compile(model, dynamic=False) if compiled else model  # as the training loop does
    step = training_step(model, optimizer, [batch], processes, called=called)
    return Side(lambda: called(batch)["loss"], step)


def theirs(case: Case) -> Side:
    """The original trainer with the weights that our side saved; for the losses, also with its disparities and
    poses."""
    host = case.host
    given = torch.load(case.given, weights_only=True)
    extra = ["--no_matching_augmentation"] if host == "manydepth" else []
    trainer = their_trainer(Original(host, case.wheel), *case.size, extra, str(case.given.parent))
    for name, weights in given["weights"].items():
        trainer.models[name].load_state_dict(weights, strict=False)
    inputs = their_inputs(frames_in_memory(*case.size))
    if case.losses_alone:
        found = {key: value.requires_grad_() for key, value in given["disparities"].items()}
        found |= {("cam_T_cam", 0, i): T for i, T in given["poses"].items()}

        def losses() -> Tensor:
            outputs = dict(found)
            with old_stack():
                trainer.generate_images_pred(inputs, outputs)
                return trainer.compute_losses(inputs, outputs)["loss"]  # type: ignore[no-any-return]

        return Side(losses, lambda: losses().backward())  # type: ignore[no-untyped-call]

    def loss() -> Tensor:
        with old_stack():
            return trainer.process_batch(inputs, **({"is_train": True} if host == "manydepth" else {}))[1]["loss"]  # type: ignore[no-any-return]

    def step() -> None:
        value = loss()
        trainer.model_optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        trainer.model_optimizer.step()

    return Side(loss, step)


def serve(build: Callable[[], Side], threads: int, connection: Connection) -> None:
    """Runs in a side's process: builds the side, then answers with its loss, the MiB that it keeps, or a step's
    seconds."""
    warnings.filterwarnings("ignore")
    side = build()
    torch.set_num_threads(threads)  # after the originals are imported, since their import may change it
    connection.send("ready")
    for question in iter(connection.recv, None):
        if question == "loss":
            with ties_unbroken():
                connection.send(float(side.loss().detach()))
        elif question == "kept":
            connection.send(kept_mib(side.loss))
        else:
            started = time.perf_counter()
            side.step()
            connection.send(time.perf_counter() - started)


@contextmanager
def process(build: Callable[[], Side], threads: int) -> Iterator[Callable[[str], Any]]:
    """Starts a side in a process of its own; yields a function from questions to answers."""
    spawn = get_context("spawn")
    here, there = spawn.Pipe()
    worker = spawn.Process(target=serve, args=(build, threads, there), daemon=True)
    worker.start()
    there.close()  # so that `recv` ends if the worker fails
    here.recv()

    def ask(question: str) -> Any:
        here.send(question)
        return here.recv()

    yield ask
    here.send(None)
    worker.join()


def compare(case: Case, rounds: int, threads: int, compiled: bool) -> None:
    """Measures a case and prints its row."""
    with process(partial(ours, case, compiled), threads) as our, process(partial(theirs, case), threads) as their:
        sides = (their, our)
        losses = [side("loss") for side in sides]
        memory = [side("kept") for side in sides]
        seconds = [[side("step") for side in sides] for _ in range(rounds + 1)][1:]
    slow, fast = (statistics.median(found) for found in zip(*seconds, strict=True))
    difference = abs(losses[0] - losses[1]) / losses[0]
    print(f"| {case.host}, {'losses alone' if case.losses_alone else 'whole step'} ", end="")
    print(f"| {slow:.3f} | {fast:.3f} | {slow / fast:.2f} | {memory[0]:.0f} | {memory[1]:.0f} ", end="")
    print(f"| {losses[0]:.6f} | {losses[1]:.6f} | {difference:.0e} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=640)
    given = parser.parse_args()
    size = (given.batch_size, given.height, given.width)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.set_num_threads(given.threads)
        print(f"{machine(torch.device('cpu'))}; batch {size[0]}, {size[1]}x{size[2]}, 4 scales\n")
        print(
            "| what | original (s) | ours (s) | ratio | kept for backward: original (MiB) | ours | loss | ours |",
            end="",
        )
        print(" difference |\n|---|---|---|---|---|---|---|---|---|")
        for host in ("monodepth2", "manydepth"):
            wheel = download(host, folder)
            for losses_alone in (False, True) if host == "monodepth2" else (False,):
                case = Case(host, size, losses_alone, wheel, folder / "given.pt")
                compare(case, given.rounds, given.threads, given.compile)


if __name__ == "__main__":
    main()
