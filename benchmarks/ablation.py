"""Which parts help: arms x seeds on rendered scenes, from random numbers.

    python benchmarks/ablation.py --results benchmarks/results/ablation.jsonl --out runs/ablation [--seeds 0 1]

Every run appends a line to the results file and is not repeated, so that the table can grow over several sittings. Runs
of one seed see the same scenes in the same order: arms are compared seed by seed. Prints a table: mean and deviation
over seeds; the difference from another arm with its 95% interval (Student's t over paired seeds); and the best guess
that looks at no image. Towers start from random numbers: the table says nothing about pretrained CLIP and DINO.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from tiny_runs import HEIGHT, STEPS_PER_EPOCH, WIDTH, append_line, read_lines, tiny_options, train_and_evaluate

from hybrid_encoder.commands.measuring import machine
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.stage1.checkpoint import STAGE1_FILE
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage1.training import pretrain
from hybrid_encoder.synthetic.files import write_synthetic
from hybrid_encoder.synthetic.settings import SynthSettings

LANE_DRIVES, LANE_FRAMES = 48, 10
"""As many images with lanes as stage 1 has with exact depth."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        stage1: what orders stage 1's patches: exact depth, or painted lanes, which need no depth; None: no stage 1.
        changes: of stage 2's options.
        against: the arm that it is compared with, which differs in one thing.
    """

    stage1: Literal["depth", "lanes"] | None = "depth"
    changes: dict[str, Any] = field(default_factory=dict)
    against: str = "whole"


_POSECNN = {"pose_model_type": "posecnn"}
ARMS = {
    "whole": Arm(),
    "resnet18": Arm(None, {"encoder": "resnet", "preset": None, "pose_model_type": "separate_resnet"}),
    "no_stage1": Arm(None),
    "no_language": Arm(None, {"encoder_option": ("alignment=none",)}, against="no_stage1"),
    "no_stage1_posecnn": Arm(None, _POSECNN),
    "clip_alone": Arm(None, {**_POSECNN, "encoder_option": ("dino=null",)}, against="no_stage1_posecnn"),
    "dino_alone": Arm(None, {**_POSECNN, "encoder_option": ("image_tower=null",)}, against="no_stage1_posecnn"),
    "separate_pose": Arm(changes={"pose_model_type": "separate_resnet"}),
    "text_weight": Arm(changes={"text_weight": 0.01}),
    "stage1_lanes": Arm("lanes"),
}
"""There is no stage 1 without language, and no class token without DINO."""
STUDENT_T = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""By the number of pairs: the 97.5% point of Student's t."""


def stage1_file(ordered_by: str, seed: int, out: Path) -> Path:
    """Trains stage 1, where an earlier run has not, and returns its file."""
    folder = out / f"stage1_{ordered_by}_{seed}"
    if not (folder / STAGE1_FILE).exists():
        data = f"synthetic:{seed}"
        if ordered_by == "lanes":
            lanes = out / f"lanes_{seed}"
            if not lanes.exists():
                write_synthetic(lanes, SynthSettings(seed, LANE_DRIVES, LANE_FRAMES, 2 * HEIGHT, 2 * WIDTH))
            data = f"tusimple:{lanes / 'tusimple'}"
        options = PretrainOptions(
            preset="tiny", data=(data,), out=folder, epochs=6, lr=2e-3, margin=5.0, height=HEIGHT, width=WIDTH,
            num_workers=0, device="cpu", seed=seed,
        )  # fmt: skip
        pretrain(options, Processes(torch.device("cpu")))
    return folder / STAGE1_FILE


def run(arm: str, seed: int, epochs: int, out: Path) -> dict[str, Any]:
    """Trains and evaluates one arm with one seed; returns its line."""
    chosen, started = ARMS[arm], time.process_time()
    stage1 = stage1_file(chosen.stage1, seed, out) if chosen.stage1 else None
    name = f"{arm}_{seed}_{epochs}"
    common = {"prevent_collapse": True, "stage1": stage1, "pose_model_type": "class_token", "learning_rate": 5e-4}
    errors, _ = train_and_evaluate(tiny_options(seed, epochs, out, name, **{**common, **chosen.changes}))
    seconds = time.process_time() - started
    return {
        "arm": arm,
        "seed": seed,
        "steps": epochs * STEPS_PER_EPOCH,
        **errors,
        "cpu_seconds": round(seconds),
    }


def interval(differences: list[float]) -> str:
    """Mean of paired differences and half the width of its 95% interval.

    >>> interval([0.1, 0.2, 0.3])
    '+0.200 ± 0.248'
    """
    if len(differences) < 2:
        return "one pair"
    half = STUDENT_T[len(differences)] * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{statistics.mean(differences):+.3f} ± {half:.3f}"


HEADER = ("arm", "steps", "seeds", "AbsRel", "prior", "against", "difference", "CPU seconds")


def table(lines: list[dict[str, Any]]) -> str:
    """One row an arm and number of steps, in Markdown."""
    rows = [HEADER, ("---",) * len(HEADER)]
    for steps in sorted({line["steps"] for line in lines}):
        runs = {(line["arm"], line["seed"]): line for line in lines if line["steps"] == steps}
        rows += [row(arm, steps, runs) for arm in ARMS if any(name == arm for name, _ in runs)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(arm: str, steps: int, runs: dict[tuple[str, int], dict[str, Any]]) -> tuple[str, ...]:
    """An arm's cells of the table, from the lines of all runs by arm and seed."""
    mine = {seed: line for (name, seed), line in runs.items() if name == arm}
    against = ARMS[arm].against
    pairs = [(line, runs[against, seed]) for seed, line in mine.items() if arm != against and (against, seed) in runs]
    found = [line["abs_rel"] for line in mine.values()]
    deviation = f" ({statistics.stdev(found):.3f})" if len(found) > 1 else ""
    return (
        arm,
        str(steps),
        str(len(mine)),
        f"{statistics.mean(found):.3f}{deviation}",
        f"{statistics.mean(line['prior'] for line in mine.values()):.3f}",
        against if pairs else "",
        interval([one["abs_rel"] - other["abs_rel"] for one, other in pairs]) if pairs else "",
        f"{statistics.mean(line['cpu_seconds'] for line in mine.values()):.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, one a run, appended to")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--epochs", type=int, default=8, help=f"of {STEPS_PER_EPOCH} steps")
    given = parser.parse_args()
    lines = read_lines(given.results)
    done = [(line["arm"], line["seed"], line["steps"]) for line in lines]
    print(machine(torch.device("cpu")), flush=True)
    for seed in given.seeds:
        for arm in given.arms:
            if (arm, seed, given.epochs * STEPS_PER_EPOCH) not in done:
                lines.append(run(arm, seed, given.epochs, given.out))
                append_line(given.results, lines[-1])
    print(table(lines))


if __name__ == "__main__":
    main()
