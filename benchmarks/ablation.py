"""Which parts help, and which runs collapse: arms x seeds of the preset tiny on rendered scenes, from random numbers.

    python benchmarks/ablation.py --results benchmarks/results/ablation.jsonl --out runs/ablation [--seeds 0 1]

Every run appends a line to the results file and is not repeated, so that the table can be made in several calls. Runs
of one seed see the same scenes in the same order: arms are compared seed by seed. Prints a table: mean and standard
deviation over seeds; the difference from another arm with its 95% interval (Student's t over paired seeds); the best
guess without an image, how many runs are better, and how many ended flat, at a limit or upside down. Towers start from
random numbers: the table does not apply to pretrained CLIP and DINO.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from hybrid_encoder.commands.measuring import machine
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.engine.record import read_metrics
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage1.training import pretrain
from hybrid_encoder.stage2.checkpoint import load_depth_model
from hybrid_encoder.stage2.evaluate import evaluate, prior_errors
from hybrid_encoder.stage2.health import HEALTHY, unhealthy
from hybrid_encoder.stage2.options import EvaluateOptions, Monodepth2Options
from hybrid_encoder.stage2.training import train
from hybrid_encoder.synthetic.files import write_synthetic
from hybrid_encoder.synthetic.settings import SynthSettings
from hybrid_encoder.weights.run_files import STAGE1_FILE

HEIGHT, WIDTH, SCENES = 64, 192, 200
STEPS_PER_EPOCH = SCENES * 3 // 4
"""Steps of four samples each; a scene has three samples."""
LANE_DRIVES, LANE_FRAMES = 48, 10
"""Number of images with lanes: as many as stage 1 has with exact depth."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        stage1: what orders stage 1's patches: exact depth, or painted lanes, which need no depth; None: no stage 1.
        changes: options of stage 2 that differ from the default.
        against: the arm that it is compared with; the two differ in one option, but for the ResNet, which has a pose
            net of its own.
    """

    stage1: Literal["depth", "lanes"] | None = "depth"
    changes: dict[str, Any] = field(default_factory=dict)
    against: str = "whole"


_POSECNN = {"pose_model_type": "posecnn"}
_SEPARATE = {"pose_model_type": "separate_resnet"}
ARMS = {
    "whole": Arm(),
    "no_stage1": Arm(None),
    "no_stage1_separate": Arm(None, _SEPARATE, against="no_stage1"),
    "resnet18": Arm(None, {**_SEPARATE, "encoder": "resnet"}),
    "no_language": Arm(None, {"encoder_option": ("alignment=none",)}, against="no_stage1"),
    "not_prevented": Arm(None, {"prevent_collapse": False}, against="no_stage1"),
    "no_stage1_posecnn": Arm(None, _POSECNN, against="no_stage1"),
    "clip_alone": Arm(None, {**_POSECNN, "encoder_option": ("dino=null",)}, against="no_stage1_posecnn"),
    "dino_alone": Arm(None, {**_POSECNN, "encoder_option": ("image_tower=null",)}, against="no_stage1_posecnn"),
    "separate_pose": Arm(changes=_SEPARATE),
    "text_weight": Arm(changes={"text_weight": 0.01}),
    "stage1_lanes": Arm("lanes"),
}
"""Without language there is no stage 1, and without DINO there is no class token."""
STUDENT_T = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""The 97.5% quantile of Student's t, by the number of pairs."""


def stage1_file(ordered_by: str, seed: int, out: Path) -> Path:
    """Trains stage 1, unless an earlier run has done so, and returns its file."""
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


def stage2_options(seed: int, epochs: int, out: Path, changes: dict[str, Any]) -> Monodepth2Options:
    """The options of a run's stage 2; `changes` are those of its arm."""
    common: dict[str, Any] = {
        "preset": "tiny",
        "dataset": "synthetic",
        "scenes": SCENES,
        "height": HEIGHT,
        "width": WIDTH,
        "weights_init": "scratch",
        "prevent_collapse": True,
        "pose_model_type": "class_token",
        "scales": (0, 1, 2, 3),
        "min_depth": 0.02,
        "max_depth": 20.0,
        "batch_size": 4,
        "learning_rate": 5e-4,
        "lr_schedule": "one_cycle",
        "num_epochs": epochs,
        "save_frequency": 1000,
        "num_workers": 0,
        "log_frequency": STEPS_PER_EPOCH,
        "device": "cpu",
        "seed": seed,
        "log_dir": out,
    }
    return Monodepth2Options(**{**common, **changes})


def arm_options(arm: str, seed: int, epochs: int, out: Path) -> Monodepth2Options:
    """Trains an arm's stage 1, unless an earlier run has done so; returns the options of its stage 2."""
    chosen = ARMS[arm]
    stage1 = stage1_file(chosen.stage1, seed, out) if chosen.stage1 else None
    own = {"stage1": stage1, "model_name": f"{arm}_{seed}_{epochs}", **chosen.changes}
    return stage2_options(seed, epochs, out, own)


def run(arm: str, seed: int, epochs: int, out: Path) -> dict[str, Any]:
    """Trains one arm with one seed, evaluates it on held-out scenes after the last epoch, and returns its results
    line."""
    started = time.process_time()
    options = arm_options(arm, seed, epochs, out)
    train(options, Processes(torch.device("cpu")))
    seconds = time.process_time() - started
    test = EvaluateOptions(
        dataset="synthetic", scenes=SCENES, height=HEIGHT, width=WIDTH, seed=seed, weights=str(options.folder)
    )
    errors = evaluate(test, load_depth_model(options.folder / "models" / f"weights_{epochs - 1}")).mean
    last = [line for line in read_metrics(options.folder) if line["kind"] == "val"][-1]
    return {
        "arm": arm,
        "seed": seed,
        "steps": epochs * STEPS_PER_EPOCH,
        "abs_rel": round(errors.abs_rel, 4),
        "a1": round(errors.a1, 4),
        "prior": round(prior_errors(test).mean.abs_rel, 4),
        **{name: round(last[name], 4) for name in dict.fromkeys(bound.name for bound in HEALTHY)},
        "warning": unhealthy(last).partition(" (")[0],
        "cpu_seconds": round(seconds),
    }


def read_lines(results: Path) -> list[dict[str, Any]]:
    """The runs of a results file; none where there is no file yet, whose folder is made."""
    results.parent.mkdir(parents=True, exist_ok=True)
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def append_line(results: Path, line: dict[str, Any]) -> None:
    """Adds a run to a results file."""
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def interval(differences: list[float]) -> str:
    """Mean of paired differences and half the width of its 95% interval.

    >>> interval([0.1, 0.2, 0.3])
    '+0.200 ± 0.248'
    """
    if len(differences) < 2:
        return "one pair"
    half = STUDENT_T[len(differences)] * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{statistics.mean(differences):+.3f} ± {half:.3f}"


HEADER = (
    "arm", "steps", "seeds", "AbsRel", "prior", "better than it", "collapsed", "against", "difference", "CPU seconds",
)  # fmt: skip


def table(lines: list[dict[str, Any]]) -> str:
    """A table in Markdown: one row for each arm and number of steps."""
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
        str(sum(line["abs_rel"] < line["prior"] for line in mine.values())),
        str(sum(bool(line["warning"]) for line in mine.values())),
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
    parser.add_argument("--epochs", type=int, default=4, help=f"of {STEPS_PER_EPOCH} steps")
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
