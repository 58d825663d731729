"""Short runs of the preset tiny on rendered scenes, from random numbers, which `collapse.py` and `ablation.py` compare;
and their results files, one line of JSON a run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.stage2.checkpoint import load_depth_model
from hybrid_encoder.stage2.evaluate import evaluate, prior_errors
from hybrid_encoder.stage2.options import EvaluateOptions, Monodepth2Options
from hybrid_encoder.stage2.training import train

HEIGHT, WIDTH, SCENES = 64, 192, 96
STEPS_PER_EPOCH = SCENES * 3 // 4
"""Steps of four samples, three samples a scene."""


def tiny_options(seed: int, epochs: int, out: Path, name: str, **changes: Any) -> Monodepth2Options:
    """Stage 2 of such a run, in the folder `out / name`; `changes` are further options."""
    common: dict[str, Any] = {
        "preset": "tiny",
        "dataset": "synthetic",
        "scenes": SCENES,
        "height": HEIGHT,
        "width": WIDTH,
        "weights_init": "scratch",
        "scales": (0, 1, 2, 3),
        "min_depth": 0.02,
        "max_depth": 20.0,
        "batch_size": 4,
        "lr_schedule": "one_cycle",
        "num_epochs": epochs,
        "save_frequency": 1000,
        "num_workers": 0,
        "log_frequency": STEPS_PER_EPOCH,
        "device": "cpu",
        "seed": seed,
        "log_dir": out,
        "model_name": name,
    }
    return Monodepth2Options(**{**common, **changes})


def train_and_evaluate(options: Monodepth2Options) -> tuple[dict[str, float], float]:
    """Errors on held-out scenes after the last epoch, beside the best guess that looks at no image; and the CPU seconds
    of training."""
    started = time.process_time()
    train(options, Processes(torch.device("cpu")))
    seconds = time.process_time() - started
    test = EvaluateOptions(
        dataset="synthetic",
        scenes=options.scenes,
        height=options.height,
        width=options.width,
        seed=options.seed,
        weights=str(options.folder),
    )
    errors = evaluate(test, load_depth_model(options.folder / "models" / f"weights_{options.num_epochs - 1}")).mean
    prior = prior_errors(test).mean.abs_rel
    return {"abs_rel": round(errors.abs_rel, 4), "a1": round(errors.a1, 4), "prior": round(prior, 4)}, seconds


def read_lines(results: Path) -> list[dict[str, Any]]:
    """The runs of a results file; none where there is no file yet, whose folder is made."""
    results.parent.mkdir(parents=True, exist_ok=True)
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def append_line(results: Path, line: dict[str, Any]) -> None:
    """Adds a run to a results file."""
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
