"""Compares a patched clone of Monodepth2 with our trainer: same encoder, data, settings and steps; several seeds.

    hybrid-encoder patch monodepth2 CLONE
    python benchmarks/clone_seeds.py CLONE --stage1 runs/stage1/stage1.pth --out runs/clone_seeds [--seeds 5]

The clone needs the packages that the original imports (tensorboardX, six, matplotlib, scikit-image). It is copied,
because its splits are replaced by those of 40 rendered drives in KITTI's layout, which both sides read from files.
Prints AbsRel on 42 held-out frames for every seed, and mean and standard deviation: a table of benchmarks/README.md.
Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from hybrid_encoder.commands.measuring import machine
from hybrid_encoder.stage2.checkpoint import load_depth_model
from hybrid_encoder.stage2.evaluate import evaluate
from hybrid_encoder.stage2.options import EvaluateOptions

HYBRID = [sys.executable, "-m", "hybrid_encoder.cli"]
SEEDED = """
import random, runpy, sys
import numpy, torch
seed = int(sys.argv.pop(1))
random.seed(seed), numpy.random.seed(seed), torch.manual_seed(seed)
sys.path.insert(0, ".")
runpy.run_path("train.py", run_name="__main__")
"""
"""The original has no option for a seed."""
SETTINGS = """--encoder hybrid --preset tiny --weights_init scratch --pose_model_type class_token
    --height 64 --width 128 --scales 0 1 2 3 --min_depth 0.02 --max_depth 20
    --batch_size 4 --learning_rate 1e-4 --num_workers 0 --no_cuda"""

SPLIT = Path("splits", "synthetic")
"""The folder in which `hybrid-encoder synth` writes the split files, within its KITTI folder."""


def run(side: str, seed: int, given: argparse.Namespace) -> float:
    """Trains one side, unless an earlier call has done so, and returns AbsRel of the last epoch's weights."""
    kitti = given.out / "data" / "kitti"
    split = str(kitti / SPLIT)
    weights = given.out / "runs" / f"{side}_{seed}" / "models" / f"weights_{given.num_epochs - 1}"
    if not weights.exists():
        options = [*SETTINGS.split(), "--num_epochs", str(given.num_epochs), "--data_path", str(kitti)]
        options += ["--log_dir", str(given.out / "runs"), "--model_name", f"{side}_{seed}"]
        options += ["--stage1", str(given.stage1)]
        if side == "clone":
            subprocess.run([sys.executable, "-c", SEEDED, str(seed), *options], cwd=given.out / "clone", check=True)
        else:
            options += ["--split", split, "--seed", str(seed), "--resume"]
            subprocess.run([*HYBRID, "train", "monodepth2", *options], check=True)
    settings = EvaluateOptions(weights=weights, data_path=kitti, split=split)
    return evaluate(settings, load_depth_model(weights)).mean.abs_rel


def prepare(given: argparse.Namespace) -> None:
    """Renders the drives, and copies the clone, with the drives' splits in place of its default splits."""
    if not (given.out / "data").exists():
        scenes = ["--seed", "0", "--sequences", "40", "--frames", "8"]
        subprocess.run([*HYBRID, "synth", str(given.out / "data"), *scenes], check=True)
    if not (given.out / "clone").exists():
        shutil.copytree(given.clone, given.out / "clone", ignore=shutil.ignore_patterns(".git"))
    for part in ("train", "val"):
        rendered = given.out / "data" / "kitti" / SPLIT / f"{part}_files.txt"
        shutil.copy(rendered, given.out / "clone" / "splits" / "eigen_zhou")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="a clone that `hybrid-encoder patch monodepth2` was run on")
    parser.add_argument("--stage1", type=Path, required=True, help="stage1.pth of preset tiny, see the top README")
    parser.add_argument("--out", type=Path, required=True, help="folder of data, clone and runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--num_epochs", type=int, default=20)
    given = parser.parse_args()
    given.out, given.stage1 = given.out.resolve(), given.stage1.resolve()
    prepare(given)
    print(machine(torch.device("cpu")), flush=True)
    sides = ("clone", "ours")
    errors = [[run(side, seed, given) for side in sides] for seed in range(given.seeds)]
    print("\n| seed | patched clone | our trainer |\n|---|---|---|")
    for seed, row in enumerate(errors):
        print(f"| {seed} | {row[0]:.4f} | {row[1]:.4f} |")
    columns = list(zip(*errors, strict=True))
    print(f"| mean | {' | '.join(f'{statistics.mean(column):.4f}' for column in columns)} |")
    if given.seeds > 1:
        print(f"| deviation | {' | '.join(f'{statistics.stdev(column):.4f}' for column in columns)} |")


if __name__ == "__main__":
    main()
