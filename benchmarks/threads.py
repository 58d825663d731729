"""Measures what OpenMP's threads cost a small net on a busy machine: how many there are, and how they wait.

    python benchmarks/threads.py [--steps 60] [--most 2] [--busy 0]

Every row is a process of its own, which computes steps of two small convolutions, forward and backward. Times are
means, since some steps wait longer than others. `--busy N` starts N processes beside it that compute without end.
Prints a table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hybrid_encoder.commands.measuring import machine
from hybrid_encoder.engine.threads import small_step


def measure(threads: int, steps: int) -> str:
    """Milliseconds of a step by the wall clock, and of the processor, as two cells."""
    torch.set_num_threads(threads)
    step = small_step()
    for number in range(steps + 1):
        if number == 1:  # the first one is slow
            wall, cpu = time.perf_counter(), time.process_time()
        step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return f"{1000 * wall / steps:.1f} | {1000 * cpu / steps:.1f}"


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that compute without end."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--most", type=int, default=2, help="threads of the rows with several")
    parser.add_argument("--busy", type=int, default=0, help="processes beside it")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(measure(given.one, given.steps))
        return
    print(f"{machine(torch.device('cpu'))}; {os.getloadavg()[0]:.1f} processes at work, and {given.busy} beside it\n")
    print("| threads | they wait | a step (ms) | of the processor (ms) |\n|---|---|---|---|")
    with busy(given.busy):
        for threads, policy in ((1, ""), (given.most, "active"), (given.most, ""), (given.most, "passive")):
            environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
            environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
            command = [sys.executable, __file__, "--steps", str(given.steps), "--one", str(threads)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            print(f"| {threads} | {policy or 'as by default'} | {done.stdout.strip()} |", flush=True)


if __name__ == "__main__":
    main()
