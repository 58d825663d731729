"""Compares two frames with one on rendered scenes: per pair a teacher, and a two-frame net that starts as this teacher.

    python benchmarks/two_frame.py --out runs/two_frame --stage1 runs/stage1/stage1.pth

Trains the hybrid pair (preset tiny; its encoder from `hybrid-encoder pretrain`, if --stage1 is given) and the ResNet-18
pair (from random numbers) with the same data and steps, and prints their errors on held-out scenes: a table of
benchmarks/README.md. The single-frame runs are those of the commands in the top README.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from hybrid_encoder.commands.measuring import machine
from hybrid_encoder.engine.processes import Processes, choose_device
from hybrid_encoder.stage2.checkpoint import load_depth_model
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.stage2.training import train as train_teacher
from hybrid_encoder.two_frame.checkpoint import load_two_frame_model
from hybrid_encoder.two_frame.evaluate import evaluate_two_frame
from hybrid_encoder.two_frame.options import ManydepthOptions, TwoFrameEvaluateOptions
from hybrid_encoder.two_frame.training import train as train_two_frame

LEARNING_RATES = {"hybrid": 1e-3, "resnet": 3e-4}
"""Learning rates of the teachers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the four runs; they are resumed")
    parser.add_argument("--pairs", nargs="+", default=["hybrid", "resnet"])
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4, help="of the teachers")
    parser.add_argument("--two_frame_epochs", type=int, default=2)
    parser.add_argument("--stage1", type=Path, help="stage-1 weights of the hybrid pair")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    group = Processes(choose_device(given.device))
    data: dict[str, Any] = {name: getattr(given, name) for name in ("height", "width", "scenes", "batch_size")}
    shared: dict[str, Any] = {
        **data,
        "dataset": "synthetic",
        "weights_init": "scratch",
        "log_dir": given.out,
        "scales": (0, 1, 2, 3),
        "min_depth": 0.02,
        "max_depth": 20.0,
        "lr_schedule": "one_cycle",
        "num_workers": 0,
        "resume": True,
        "device": given.device,
    }
    rows = []
    for kind in given.pairs:
        start = time.process_time()
        pair: dict[str, Any] = {**shared, "encoder": kind}
        if kind == "hybrid":
            pair |= {"preset": "tiny", "stage1": given.stage1, "pose_model_type": "class_token"}
        teacher = Monodepth2Options(
            **pair, model_name=f"{kind}_teacher", learning_rate=LEARNING_RATES[kind], num_epochs=given.epochs
        )
        train_teacher(teacher, group)
        epochs = given.two_frame_epochs
        two = ManydepthOptions(
            **pair,
            teacher_encoder=kind,
            model_name=f"{kind}_two_frame",
            mono_weights_folder=teacher.folder,
            freeze_teacher_and_pose=True,
            start_from_teacher=True,
            num_depth_bins=48,
            learning_rate=2e-4,
            num_epochs=epochs,
        )
        train_two_frame(two, group)
        minutes = (time.process_time() - start) / 60
        evaluation = TwoFrameEvaluateOptions(
            **{name: data[name] for name in ("height", "width", "scenes")}, dataset="synthetic", weights=two.folder
        )
        last = two.folder / "models" / f"weights_{epochs - 1}"
        mono = load_depth_model(last, "mono_encoder", "mono_depth").to(group.device)
        two_frames = load_two_frame_model(last).to(group.device)
        rows.append((f"{kind}, teacher (one frame)", evaluate_two_frame(evaluation, mono).mean, minutes))
        rows.append((f"{kind}, two frames", evaluate_two_frame(evaluation, two_frames).mean, minutes))
    print(machine(group.device))
    print(f"{given.height}x{given.width}, {given.scenes} drives, batch {given.batch_size}; ", end="")
    print(f"{given.epochs} epochs of one frame, {given.two_frame_epochs} of two\n")
    print("| net | AbsRel | SqRel | RMSE | RMSE log | a1 | a2 | a3 | CPU minutes of the pair |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, errors, minutes in rows:
        print(f"| {name} | {' | '.join(f'{value:.4f}' for value in errors)} | {minutes:.0f} |")


if __name__ == "__main__":
    main()
