"""How many runs from random numbers collapse, without and with `--prevent_collapse`: seeds x pose nets x variants.

    python benchmarks/collapse.py --results benchmarks/results/collapse.jsonl --out runs/collapse [--seeds 0 1 2]

Preset tiny on rendered scenes, without stage 1. Every run appends a line to the results file; those that are in it are
not repeated, so that the table can grow over several sittings. Variants of one seed see the same scenes and start from
the same numbers. Prints a table of all lines.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from tiny_runs import STEPS_PER_EPOCH, append_line, read_lines, tiny_options, train_and_evaluate

from hybrid_encoder.commands.measuring import machine
from hybrid_encoder.engine.record import read_metrics
from hybrid_encoder.stage2.health import HEALTHY, unhealthy

VARIANTS = {"before": False, "after": True}
"""Whether a variant has `--prevent_collapse`."""
ASKED = ("variant", "pose", "seed", "steps", "lr")
"""What a run is told by."""


def run(asked: dict[str, Any], out: Path) -> dict[str, Any]:
    """Trains and evaluates one run; returns its line."""
    options = tiny_options(
        asked["seed"],
        round(asked["steps"] / STEPS_PER_EPOCH),
        out,
        "_".join(str(asked[name]) for name in ASKED),
        prevent_collapse=VARIANTS[asked["variant"]],
        pose_model_type=asked["pose"],
        learning_rate=asked["lr"],
    )
    errors, seconds = train_and_evaluate(options)
    last = [line for line in read_metrics(options.folder) if line["kind"] == "val"][-1]
    found = {name: round(last[name], 4) for name in dict.fromkeys(bound.name for bound in HEALTHY)}
    return {
        **asked,
        **errors,
        "photometric": round(last["photometric"], 4),
        **found,
        "warning": unhealthy(last).partition(" (")[0],
        "cpu_seconds": round(seconds),
    }


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
    lines = read_lines(given.results)
    done = [tuple(line[name] for name in ASKED) for line in lines]
    print(machine(torch.device("cpu")), flush=True)
    for seed in given.seeds:
        for pose in given.poses:
            for variant in given.variants:
                asked = dict(zip(ASKED, (variant, pose, seed, given.steps, given.lr), strict=True))
                if tuple(asked.values()) not in done:
                    lines.append(run(asked, given.out))
                    append_line(given.results, lines[-1])
    print(table(lines))


if __name__ == "__main__":
    main()
