"""Two frames against one, on rendered scenes: each pair's teacher, then a two-frame net that starts as this teacher.

    python benchmarks/two_frame.py --out runs/two_frame [--epochs 16] [--two_frame_epochs 10]

Trains the hybrid pair (preset tiny, random initial weights) and the ResNet-18 pair with the same data, steps and
options, and prints their errors on held-out scenes: the table of benchmarks/two_frame.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from hybrid_encoder.adapters.manydepth.checkpoint import load_two_frame_model
from hybrid_encoder.adapters.manydepth.evaluate import evaluate_two_frame
from hybrid_encoder.adapters.manydepth.options import ManydepthOptions, TwoFrameEvaluateOptions
from hybrid_encoder.adapters.manydepth.trainer import train as train_two_frame
from hybrid_encoder.adapters.monodepth2.checkpoint import load_depth_model
from hybrid_encoder.adapters.monodepth2.options import Monodepth2Options
from hybrid_encoder.adapters.monodepth2.trainer import train as train_teacher
from hybrid_encoder.engine.processes import Processes, choose_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the four runs; they are resumed")
    parser.add_argument("--pairs", nargs="+", default=["hybrid", "resnet"])
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=16, help="of the teachers")
    parser.add_argument("--two_frame_epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    group = Processes(choose_device(given.device))
    data: dict[str, Any] = {name: getattr(given, name) for name in ("height", "width", "scenes", "batch_size")}
    shared: dict[str, Any] = {
        **data,
        "dataset": "synthetic",
        "preset": "tiny",
        "weights_init": "scratch",
        "log_dir": given.out,
        "num_workers": 0,
        "log_frequency": 10,
        "save_frequency": 1000,
        "resume": True,
        "device": given.device,
    }
    rows = []
    for kind in given.pairs:
        start = time.process_time()
        epochs = given.epochs
        teacher = Monodepth2Options(
            **shared, encoder=kind, model_name=f"{kind}_teacher", learning_rate=3e-4, num_epochs=epochs,
            scheduler_step_size=max(epochs * 3 // 4, 1),
        )  # fmt: skip
        train_teacher(teacher, group)
        epochs = given.two_frame_epochs
        two = ManydepthOptions(
            **shared,
            encoder=kind,
            teacher_encoder=kind,
            model_name=f"{kind}_two_frame",
            mono_weights_folder=teacher.folder,
            freeze_teacher_and_pose=True,
            start_from_teacher=True,
            num_depth_bins=48,
            learning_rate=2e-4,
            num_epochs=epochs,
            scheduler_step_size=max(epochs * 3 // 4, 1),
        )
        train_two_frame(two, group)
        minutes = (time.process_time() - start) / 60
        evaluation = TwoFrameEvaluateOptions(
            **{name: data[name] for name in ("height", "width", "scenes")}, dataset="synthetic", weights=two.folder
        )
        last = two.folder / "models" / f"weights_{epochs - 1}"
        mono = load_depth_model(last, "mono_encoder", "mono_depth").to(group.device)
        pair = load_two_frame_model(last).to(group.device)
        rows.append((f"{kind}, teacher (one frame)", evaluate_two_frame(evaluation, mono).mean, minutes))
        rows.append((f"{kind}, two frames", evaluate_two_frame(evaluation, pair).mean, minutes))
    print(f"{given.height}x{given.width}, {given.scenes} drives, batch {given.batch_size}; ", end="")
    print(f"{given.epochs} epochs of one frame, {given.two_frame_epochs} of two\n")
    print("| net | AbsRel | SqRel | RMSE | RMSE log | a1 | a2 | a3 | CPU minutes of the pair |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, errors, minutes in rows:
        print(f"| {name} | {' | '.join(f'{value:.4f}' for value in errors)} | {minutes:.0f} |")


if __name__ == "__main__":
    main()
