"""Measures what OpenMP's threads cost a small net on a busy machine: how many there are, and how they wait.

    python benchmarks/threads.py [--rounds 5] [--most 2] [--height 64 --width 192 --batch_size 4]

Every row is a process of its own: a step of our Monodepth2 trainer, preset tiny, on frames in memory. It is measured
first as the machine is, then beside a process on every core that never waits. Prints a table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from hybrid_encoder.commands.measuring import frames_in_memory, machine, training_step
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.stage2.model import MonoDepth
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.stage2.training import build_optimizer

BUSY = [sys.executable, "-c", "while True: pass"]


def measure(threads: int, given: argparse.Namespace) -> list[tuple[float, float]]:
    """Seconds by the wall clock and of the processor, medians of a step: as the machine is, and on busy cores."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    options = Monodepth2Options(preset="tiny", weights_init="scratch", height=given.height, width=given.width)
    model = MonoDepth(options, options.config(), "random").train()
    processes = Processes(torch.device("cpu"))
    processes.place(model)
    batch = frames_in_memory(given.batch_size, given.height, given.width)
    step = training_step(model, build_optimizer(model, options), [batch], processes)
    step()
    found = [_medians(step, given.rounds)]
    with busy_cores():
        found.append(_medians(step, given.rounds))
    return found


def _medians(step: Callable[[], object], rounds: int) -> tuple[float, float]:
    wall, cpu = [], []
    for _ in range(rounds):
        wall_before, cpu_before = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - wall_before)
        cpu.append(time.process_time() - cpu_before)
    return statistics.median(wall), statistics.median(cpu)


@contextmanager
def busy_cores() -> Iterator[None]:
    """A process on every core that computes without end."""
    others = [subprocess.Popen(BUSY) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--most", type=int, default=2, help="threads of the rows with several")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given)))
        return
    print(f"{machine(torch.device('cpu'))}; medians of {given.rounds} steps")
    print(f"preset tiny, {given.height}x{given.width}, batch {given.batch_size}\n")
    columns = ("threads", "they wait", "as the machine is (s)", "CPU seconds", "busy cores (s)", "CPU seconds")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for threads, policy in ((1, "-"), (given.most, "active"), (given.most, "passive")):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
        environment |= {} if policy == "-" else {"OMP_WAIT_POLICY": policy}
        command = [sys.executable, __file__, *sys.argv[1:], "--one", str(threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        (wall, cpu), (busy_wall, busy_cpu) = json.loads(done.stdout.splitlines()[-1])
        print(f"| {threads} | {policy} | {wall:.2f} | {cpu:.2f} | {busy_wall:.2f} | {busy_cpu:.2f} |", flush=True)


if __name__ == "__main__":
    main()
