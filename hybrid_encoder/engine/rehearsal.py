"""`--dry_run`: a few steps of a run, for what all of it would take."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from .bars import duration
from .memory import peak_gib
from .processes import Processes
from .step import build_stepper
from .task import LoopOptions, Task

WARM_UP, MEASURED = 2, 8
"""Steps before the clock starts, while workers start and memory is taken; and steps that it counts."""


def rehearse(task: Task, loader: DataLoader[Any], options: LoopOptions, processes: Processes) -> None:
    """Trains for a few steps and prints the steps, hours and memory of the whole run. Leaves no file; the task's nets
    are not to be used afterwards.

    Hours are those of training: validation and saving come on top.
    """
    stepper = build_stepper(task.model, processes, options)
    stepper.model.train()
    started, count = time.perf_counter(), 0
    for step, batch in enumerate(islice(loader, WARM_UP + MEASURED)):
        task.start_step(0, step)
        scalars = stepper.run(task.optimizer, task.to_device(batch, processes.device), task.sample_names(batch), 0, 1)
        stepper.finish(task.optimizer)
        _ = [float(value) for value in scalars.values()]  # waits for the device
        count += 1
        if step + 1 == WARM_UP < len(loader):
            started, count = time.perf_counter(), 0
    seconds = (time.perf_counter() - started) / max(count, 1)
    if processes.is_main:
        print(_summary(options.epochs * len(loader), seconds, peak_gib(processes.device)), flush=True)


def _summary(steps: int, seconds: float, gib: float | None) -> str:
    """
    >>> _summary(11000, 0.45, 3.14)
    'dry run: 11000 steps of 0.45 s take 1 h 22 min, validation not counted, and 3.1 GiB; nothing is written'
    """
    memory = "" if gib is None else f", and {gib:.1f} GiB"
    took = f"{steps} steps of {seconds:.2g} s take {duration(steps * seconds)}, validation not counted{memory}"
    return f"dry run: {took}; nothing is written"
