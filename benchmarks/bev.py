r"""Whether depth helps bird's-eye view: image encoders x budgets of labelled rigs x seeds, on rendered rigs.

    python benchmarks/bev.py --results benchmarks/results/bev.jsonl --out runs/bev_arms --depth_runs runs/ablation \
        [--minutes 60]

One BEV model, trained for the same number of steps in every run; what differs is how its image encoder starts. Depth
comes from rendered video without labels. Runs of one seed share the video and the rigs. Every run appends a line to the
results file and is not repeated, a stopped one resumes: the table can grow over several sittings.
It gives IoU on held-out scenes after the last step, mean and deviation over seeds, beside the best map that looks at no
image. It says nothing of pretrained CLIP and DINO, nor of mAP or NDS.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from ablation import HEIGHT, WIDTH, append_line, arm_options, read_lines, stage1_file

from hybrid_encoder.bev.checkpoint import LAST_FILE, load_bev, weights_file
from hybrid_encoder.bev.evaluate import evaluate
from hybrid_encoder.bev.options import BevEvaluateOptions, BevOptions
from hybrid_encoder.bev.training import train
from hybrid_encoder.commands.measuring import machine
from hybrid_encoder.engine.inference import inference
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.stage2.checkpoint import weights_folder
from hybrid_encoder.stage2.training import train as train_depth
from hybrid_encoder.synthetic.nuscenes import write_rigs
from hybrid_encoder.synthetic.settings import RigSettings

CPU = Processes(torch.device("cpu"))
SCENES, FRAMES = 480, 2
"""800 rigs to train on, 160 held out."""
FIRST_SEED = 10_000
"""Of the rigs' streets, so that the video shows other ones."""
BATCH_SIZE = 4


@dataclass(frozen=True)
class Arm:
    """How an image encoder starts.

    Attributes:
        starts_from: random numbers, stage 1, or stages 1 and 2 (of a ResNet, stage 2 alone).
        frozen: it stays so.
    """

    encoder: Literal["hybrid", "resnet"]
    starts_from: Literal["random", "stage1", "stage2"]
    frozen: bool = False


ARMS = {
    "a_hybrid_random": Arm("hybrid", "random"),
    "b_hybrid_stage1": Arm("hybrid", "stage1"),
    "c_hybrid_stage2": Arm("hybrid", "stage2"),
    "d_hybrid_stage2_frozen": Arm("hybrid", "stage2", frozen=True),
    "e_resnet18_random": Arm("resnet", "random"),
    "f_resnet18_stage2": Arm("resnet", "stage2"),
}
CLASSES = ("vehicle", "road")


@dataclass(frozen=True)
class Plan:
    """What all runs have in common.

    Attributes:
        out: folder of rigs and BEV runs.
        depth_runs: folder of the runs of stages 1 and 2.
        steps: of a BEV run; as near to it as whole epochs allow.
        depth_epochs: of stage 2.
        scenes: rendered ones.
    """

    out: Path
    depth_runs: Path
    steps: int
    depth_epochs: int
    scenes: int


def rigs(plan: Plan, seed: int) -> Path:
    """The folder of a seed's rigs, rendered where an earlier run has not."""
    folder = plan.out / f"rigs_{seed}"
    if not folder.exists():
        write_rigs(folder, RigSettings(FIRST_SEED + seed, plan.scenes, FRAMES, HEIGHT, WIDTH))
    return folder


def depth_run(encoder: str, seed: int, plan: Plan) -> Path:
    """The folder of stage 2 on rendered video, an arm of `ablation.py`; trained where an earlier run has not."""
    arm = "whole" if encoder == "hybrid" else "resnet18"
    options = arm_options(arm, seed, plan.depth_epochs, plan.depth_runs)
    if not weights_folder(options.folder, plan.depth_epochs - 1).exists():
        train_depth(options, CPU)
    return options.folder


def starting_point(arm: Arm, seed: int, plan: Plan) -> dict[str, Any]:
    """The options of an arm's image encoder."""
    if arm.starts_from == "random":
        hybrid = {"encoder": "hybrid", "preset": "tiny"}
        return {"weights_init": "scratch"} | (hybrid if arm.encoder == "hybrid" else {"encoder": "resnet"})
    if arm.starts_from == "stage1":
        return {"weights": stage1_file("depth", seed, plan.depth_runs).parent}
    return {"weights": depth_run(arm.encoder, seed, plan), "freeze_encoder": arm.frozen}


def run(name: str, budget: int, seed: int, plan: Plan) -> dict[str, Any]:
    """Trains and evaluates an arm; returns its line."""
    data, start, started = rigs(plan, seed), starting_point(ARMS[name], seed, plan), time.process_time()
    per_epoch = budget // BATCH_SIZE
    options = BevOptions(
        data_path=data, out=plan.out / f"{name}_{budget}_{seed}_{plan.steps}", seed=seed, **start,
        epochs=max(round(plan.steps / per_epoch), 1), batch_size=BATCH_SIZE, train_samples=budget, val_samples=8,
        height=HEIGHT, width=WIDTH, stride=8, extent=20.0, cell=0.5, near=2.0, far=26.0, bins=25, channels=32,
        bev_channels=32, num_workers=0, device="cpu",
    )  # fmt: skip
    train(options, CPU)
    seconds = time.process_time() - started
    weights = weights_file(options.out, LAST_FILE)  # the best epoch's would be chosen by held-out rigs
    saved = load_bev(weights)
    with inference(CPU.device):
        found = evaluate(BevEvaluateOptions(weights=weights, data_path=data, num_workers=0), saved, CPU.device)
    line = {"arm": name, "budget": budget, "seed": seed, "steps": plan.steps, "made": options.epochs * per_epoch}
    for k, label in enumerate(CLASSES):
        line |= {label: round(float(found.model[k, 0]), 4), f"{label}_constant": round(float(found.constant[k, 0]), 4)}
    return line | {"held_out": found.samples, "cpu_seconds": round(seconds)}


HEADER = ("image encoder", "labelled rigs", "seeds", "vehicle IoU", "road IoU", "CPU seconds")


def table(lines: list[dict[str, Any]]) -> str:
    """One row an arm and budget, after a row of the map that looks at no image, in Markdown."""
    rows = [HEADER, ("---",) * len(HEADER)]
    for budget in sorted({line["budget"] for line in lines}):
        of_budget = [line for line in lines if line["budget"] == budget]
        # All arms of a seed see the same rigs: one line a seed tells of the map without an image.
        by_seed = list({line["seed"]: line for line in of_budget}.values())
        rows.append(row("no image", budget, by_seed, "_constant"))
        for name in ARMS:
            mine = [line for line in of_budget if line["arm"] == name]
            if mine:
                rows.append(row(name, budget, mine, ""))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(name: str, budget: int, lines: list[dict[str, Any]], ending: str) -> tuple[str, ...]:
    """Cells of the table; `ending` of the fields' names."""
    figures = (mean_and_deviation([line[f"{label}{ending}"] for line in lines]) for label in CLASSES)
    seconds = "" if ending else f"{statistics.mean(line['cpu_seconds'] for line in lines):.0f}"
    return (name, str(budget), str(len(lines)), *figures, seconds)


def mean_and_deviation(values: list[float]) -> str:
    """
    >>> mean_and_deviation([0.2, 0.3, 0.4])
    '0.300 (0.100)'
    """
    deviation = f" ({statistics.stdev(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, one a run, appended to")
    parser.add_argument("--out", type=Path, required=True, help="folder of rigs and BEV runs")
    parser.add_argument(
        "--depth_runs",
        type=Path,
        required=True,
        help="folder of stages 1 and 2; the --out of ablation.py, whose runs serve",
    )
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--budgets", type=int, nargs="+", default=[50, 200, 800], help="labelled rigs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400, help=f"of {BATCH_SIZE} rigs, the same for all budgets")
    parser.add_argument("--depth_epochs", type=int, default=4, help="of stage 2")
    parser.add_argument("--scenes", type=int, default=SCENES, help=f"rendered ones of {FRAMES} rigs, a sixth held out")
    parser.add_argument("--minutes", type=float, help="begin no run later than this")
    given = parser.parse_args()
    labelled = FRAMES * (given.scenes - max(1, round(given.scenes / 6)))
    if max(given.budgets) > labelled or min(given.budgets) < BATCH_SIZE:
        parser.error(f"--budgets: expected {BATCH_SIZE} to {labelled} rigs, those of --scenes {given.scenes}")
    plan = Plan(given.out, given.depth_runs, given.steps, given.depth_epochs, given.scenes)
    lines = [line for line in read_lines(given.results) if line["steps"] == plan.steps]
    done = [(line["arm"], line["budget"], line["seed"]) for line in lines]
    wanted = [(a, b, s) for s in given.seeds for b in given.budgets for a in given.arms if (a, b, s) not in done]
    print(f"{machine(torch.device('cpu'))}; {len(wanted)} runs to do", flush=True)
    started = time.monotonic()
    for arm, budget, seed in wanted:
        if given.minutes is not None and time.monotonic() - started > 60 * given.minutes:
            print("the time is over: the same command goes on", flush=True)
            break
        lines.append(run(arm, budget, seed, plan))
        append_line(given.results, lines[-1])
    print(table(lines))


if __name__ == "__main__":
    main()
