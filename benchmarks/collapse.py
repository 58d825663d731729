"""How many runs from random numbers collapse, without and with `--prevent_collapse`: seeds x pose nets x variants.

    python benchmarks/collapse.py --results benchmarks/results/collapse.jsonl --out runs/collapse [--seeds 0 1 2]

Preset tiny on rendered scenes, without stage 1. Every run appends a line to the results file; those that are in it are
not repeated, so that the table can grow over several sittings. Variants of one seed see the same scenes and start from
the same numbers. Prints a table of all lines.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from hybrid_encoder.commands.measuring import machine
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.engine.record import read_metrics
from hybrid_encoder.stage2.checkpoint import load_depth_model
from hybrid_encoder.stage2.evaluate import evaluate, prior_errors
from hybrid_encoder.stage2.health import HEALTHY, unhealthy
from hybrid_encoder.stage2.options import EvaluateOptions, Monodepth2Options
from hybrid_encoder.stage2.training import train

VARIANTS = {"before": False, "after": True}
"""Whether a variant has `--prevent_collapse`."""
ASKED = ("variant", "pose", "seed", "steps", "lr")
"""What a run is told by."""


def run(asked: dict[str, Any], out: Path) -> dict[str, Any]:
    """Trains and evaluates one run; returns its line."""
    options = Monodepth2Options(
        preset="tiny",
        dataset="synthetic",
        scenes=96,
        height=64,
        width=192,
        weights_init="scratch",
        prevent_collapse=VARIANTS[asked["variant"]],
        pose_model_type=asked["pose"],
        scales=(0, 1, 2, 3),
        min_depth=0.02,
        max_depth=20.0,
        batch_size=4,
        learning_rate=asked["lr"],
        lr_schedule="one_cycle",
        num_epochs=round(asked["steps"] / STEPS_PER_EPOCH),
        save_frequency=1000,
        num_workers=0,
        log_frequency=STEPS_PER_EPOCH,
        device="cpu",
        seed=asked["seed"],
        log_dir=out,
        model_name="_".join(str(asked[name]) for name in ASKED),
    )
    started = time.process_time()
    train(options, Processes(torch.device("cpu")))
    seconds = time.process_time() - started
    test = EvaluateOptions(
        dataset="synthetic", scenes=96, height=64, width=192, seed=asked["seed"], weights=str(options.folder)
    )
    errors = evaluate(test, load_depth_model(options.folder / "models" / f"weights_{options.num_epochs - 1}")).mean
    last = [line for line in read_metrics(options.folder) if line["kind"] == "val"][-1]
    found = {name: round(last[name], 4) for name in dict.fromkeys(bound.name for bound in HEALTHY)}
    return {
        **asked,
        "abs_rel": round(errors.abs_rel, 4),
        "a1": round(errors.a1, 4),
        "prior": round(prior_errors(test).mean.abs_rel, 4),
        "photometric": round(last["photometric"], 4),
        **found,
        "warning": unhealthy(last).partition(" (")[0],
        "cpu_seconds": round(seconds),
    }


STEPS_PER_EPOCH = 72
"""Steps of four samples over 96 scenes."""


def table(lines: list[dict[str, Any]]) -> str:
    """All runs, in Markdown."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    rows = [names, ["---"] * len(names), *([str(line.get(name, "")) for name in names] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, one a run, appended to")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--poses", nargs="+", default=["class_token"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--steps", type=int, default=576)
    parser.add_argument("--lr", type=float, default=1e-3)
    given = parser.parse_args()
    given.results.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in given.results.read_text().splitlines()] if given.results.exists() else []
    done = [tuple(line[name] for name in ASKED) for line in lines]
    print(machine(torch.device("cpu")), flush=True)
    for seed in given.seeds:
        for pose in given.poses:
            for variant in given.variants:
                asked = dict(zip(ASKED, (variant, pose, seed, given.steps, given.lr), strict=True))
                if tuple(asked.values()) not in done:
                    lines.append(run(asked, given.out))
                    with given.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(lines[-1]) + "\n")
    print(table(lines))


if __name__ == "__main__":
    main()
