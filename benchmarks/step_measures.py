"""Measures what each optimisation saves in a training step of stage 2: seconds and peak memory, with and without it.

    python benchmarks/step_measures.py [--preset paper] [--height 224 --width 672] [--rounds 3] [--threads 2]

Every row runs in a process of its own: a step of our Monodepth2 trainer on frames in memory, with random weights, on
the CPU. Peak memory is the largest memory of the process, less its memory before the first step. Prints a table of
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from parts import PerImageText

from hybrid_encoder.commands.measuring import frames_in_memory, machine, median_seconds, training_step
from hybrid_encoder.engine.activation_checkpointing import checkpoint_activations
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.model.backbones import build_clip
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.model.language import Language
from hybrid_encoder.stage2 import objective
from hybrid_encoder.stage2.losses import photometric_error
from hybrid_encoder.stage2.model import MonoDepth
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.stage2.training import build_optimizer

ROWS = {
    "as": "as it is",
    "text77": "text over all 77 positions",
    "textcut": "text cut at the end token, the prompts' common beginning not shared",
    "dino": "all of DINO with gradients, not its last block alone",
    "channels_last": "weights channels-last",
    "ssim": "SSIM through autograd and `avg_pool2d`",
    "checkpoint": "`--checkpoint_activations`",
    "bf16": "`--precision bf16`",
    "batch2": "batch 2",
    "accumulate": "batch 2 as `--accumulate 2`",
}


def without(row: str, model: MonoDepth, clip: Any) -> None:
    """Undoes the optimisation of a row, or switches the option of a row on."""
    encoder = model.encoder
    assert isinstance(encoder, HybridEncoder)
    if row in ("text77", "textcut"):
        encoder.language = Language(clip, encoder.config)
        context = 77 if row == "text77" else int(encoder.language.position.shape[0])
        slow = PerImageText(clip, encoder.language, context)
        slow.requires_grad_(False)
        encoder.language.tokens.requires_grad_()
        encoder.language.text_features = lambda: slow()  # type: ignore[method-assign]
    elif row == "dino":
        assert encoder.dino is not None
        encoder.dino.requires_grad_()
    elif row == "channels_last":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    elif row == "ssim":
        objective.reprojection_loss = lambda target, predicted: photometric_error(target.image, predicted)
    elif row == "checkpoint":
        checkpoint_activations(model)


def measure(row: str, given: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step (after a first one), peak memory in MiB, and the loss of the first step."""
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    size = 2 if row in ("batch2", "accumulate") else 1
    options = Monodepth2Options(preset=given.preset, weights_init="scratch", height=given.height, width=given.width)
    model = MonoDepth(options, options.config(), "random").train()
    processes = Processes(torch.device("cpu"))
    processes.place(model)
    optimizer = build_optimizer(model, options)
    without(row, model, build_clip(options.config().clip, "random") if row.startswith("text") else None)
    parts = size if row == "accumulate" else 1
    batches = [frames_in_memory(size // parts, given.height, given.width) for _ in range(parts)]
    precision = "bf16" if row == "bf16" else "float32"
    run = training_step(model, optimizer, batches, processes, precision)
    losses: list[float] = []

    def step() -> None:
        losses.append(run())

    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    seconds = median_seconds(step, given.rounds, processes.device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "mib": peak - before, "loss": losses[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--height", type=int, default=224)
    parser.add_argument("--width", type=int, default=672)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given)))
        return
    torch.set_num_threads(given.threads)
    print(f"{machine(torch.device('cpu'))}; {given.preset}, {given.height}x{given.width}, medians of {given.rounds}\n")
    print("| step, batch 1 where not said | seconds | peak memory (MiB) | loss of the first step |\n|---|---|---|---|")
    settings = ["--preset", given.preset, "--height", str(given.height), "--width", str(given.width)]
    settings += ["--threads", str(given.threads), "--rounds", str(given.rounds)]
    for row in given.rows:
        command = [sys.executable, __file__, *settings, "--one", row]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"| {ROWS[row]} | {found['seconds']:.2f} | {found['mib']:.0f} | {found['loss']:.6f} |", flush=True)


if __name__ == "__main__":
    main()
