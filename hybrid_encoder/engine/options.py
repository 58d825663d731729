"""Options of any training run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from ..errors import UserError
from ..options import MAX_SEED, Options, Precision, option

MAX_WORKERS = 1024
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""CPU cores that this process may use."""
DEFAULT_WORKERS = min(4, CORES)


@dataclass(frozen=True)
class RecipeOptions(Options):
    """Of runs that the authors have published, too."""

    recipe: Literal["released"] | None = option(
        None, "released: every option as in the authors' released code, but those that are given beside it"
    )


@dataclass(frozen=True)
class TrainingOptions(Options):
    """How any training run goes: stage 1 and every trainer."""

    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    num_workers: int = option(
        DEFAULT_WORKERS, "processes that load data; default: one a core, at most 4", at_least=0, at_most=MAX_WORKERS
    )
    precision: Precision = option("float32", "bf16: mixed precision")
    compile: bool = option(
        False, "compile the nets with torch.compile: takes minutes at first; for GPUs, on a CPU steps were not faster"
    )
    checkpoint_activations: bool = option(
        False, "compute the nets' feature maps again in the backward pass: less memory, about a third more time"
    )
    sync_bn: bool = option(False, "batch norm over all processes' samples (several GPUs)")
    early_stop: int | None = option(
        None,
        "stop after so many epochs in a row without a better validation: by ranking accuracy in stage 1, in stage 2 by "
        "AbsRel where the truth is known, else by the loss",
        at_least=1,
    )
    accumulate: int = option(1, "batches whose gradients are added up before the optimiser moves", at_least=1)
    log_frequency: int = option(20, "steps between two logged ones", at_least=1)
    save_minutes: float = option(30.0, "minutes after which a run's state is saved within an epoch, too", at_least=0)
    resume: bool = option(
        False,
        "resume the run in its folder even if its data have changed; the same command resumes it without this if not",
    )
    max_bad_steps: int = option(10, "steps with a non-finite loss that are skipped before the run stops", at_least=0)
    skip_bad: int = option(
        0,
        "samples without their files that are left out at the start, and unreadable images that every process passes "
        "over before the run stops",
        at_least=0,
    )
    dry_run: bool = option(
        False, "train for a few steps, print the steps, hours and memory of the whole run, and write nothing"
    )
    seed: int = option(0, "seed of weights, order and augmentation", at_least=0, at_most=MAX_SEED)

    def check_training(self) -> None:
        """Raises `UserError` for options that exclude each other."""
        if self.compile and self.checkpoint_activations:
            raise UserError("--compile already chooses what to compute again: leave --checkpoint_activations out")


RESUMABLE = frozenset(
    {
        "recipe", "device", "num_workers", "compile", "checkpoint_activations", "log_frequency", "save_minutes",
        "resume", "max_bad_steps", "skip_bad", "early_stop", "dry_run",
    }
)  # fmt: skip
"""Training options that may differ when a run resumes: they do not change what it computes, or may be changed during
the run."""
