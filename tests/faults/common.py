"""What the fault scripts share: a small real run of the Monodepth2 trainer on rendered scenes, and its comparison."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hybrid_encoder.engine.record import read_metrics  # noqa: E402
from hybrid_encoder.engine.state import load_state  # noqa: E402

OPTIONS = """
    --dataset synthetic --scenes 4 --height 64 --width 96 --preset tiny --weights_init scratch --device cpu
    --pose_model_type class_token --batch_size 2 --num_epochs 2 --log_frequency 1
"""
UNTIMED = ("time", "images_per_second", "loading_share")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def start(log_dir: Path, *more: str, processes: int = 1, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A run of the trainer in `log_dir`/mdp."""
    launcher = ["-m", "hybrid_encoder.cli"]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *launcher]
    command = [
        *prefix,
        sys.executable,
        *launcher,
        "train",
        "monodepth2",
        *OPTIONS.split(),
        "--log_dir",
        str(log_dir),
        *more,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, start_new_session=True
    )


def finish(log_dir: Path, *more: str, processes: int = 1) -> tuple[int, str]:
    """A run to its end: exit status and output."""
    run = start(log_dir, *more, processes=processes)
    output, _ = run.communicate()
    return run.returncode, output


def contents(log_dir: Path) -> dict[str, Any]:
    """All that a run leaves: its state, its weights, its metrics."""
    folder = log_dir / "mdp"
    weights = {
        str(path.relative_to(folder)): torch.load(path, weights_only=True)
        for path in sorted(folder.glob("models/weights_*/*.pth"))
    }
    lines = [{k: v for k, v in line.items() if k not in UNTIMED} for line in read_metrics(folder)]
    return {"state": load_state(folder), "weights": weights, "metrics": lines}


def wait_for(path: Path, pattern: str, seconds: float = 300) -> None:
    """Until a file of that pattern is there."""
    end = time.monotonic() + seconds
    while not list(path.glob(pattern)):
        if time.monotonic() > end:
            raise SystemExit(f"no {pattern} in {path} after {seconds} s")
        time.sleep(0.02)
