"""Kills runs with SIGKILL at random moments, a third of them while a file is being saved, until each ends by itself;
every one must resume and end bit-equal to the undisturbed run.

python tests/faults/kill.py [--runs 20] [--kills 1] [--workers 1]
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import OPTIONS, contents

from hybrid_encoder import cli
from tests.toy_run import differences


class Run:
    """A run of the trainer in `log_dir`/mdp, forked from this process, which spares it the imports."""

    def __init__(self, log_dir: Path, *more: str) -> None:
        self.log = log_dir.with_suffix(".log")
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            status = 1
            try:
                status = cli.main(["train", "monodepth2", *OPTIONS.split(), "--log_dir", str(log_dir), *more])
                sys.stdout.flush()
            finally:
                os._exit(status)
        self.status: int | None = None

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self) -> str:
        """Its output, once it has ended."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.log.read_text()


def kill_somewhere(run: Run, folder: Path, rng: random.Random, seconds: float) -> str | None:
    """SIGKILL to the main process, as the kernel does when memory is full; says when, or None if the run had ended."""
    saving = rng.random() < 0.5
    skip = rng.randrange(12)
    seen: set[str] = set()
    end = time.monotonic() + rng.uniform(0.2, 1.0) * seconds
    while run.poll() is None:
        partial = [str(path) for path in [*folder.glob(".state*.partial*"), *folder.glob("models/.*partial")]]
        seen.update(partial)
        if saving and partial and len(seen) > skip:
            moment = f"saving {Path(partial[0]).name}"
            break
        if not saving and time.monotonic() > end:
            moment = "at random"
            break
        time.sleep(0.0005)
    else:
        return None
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    return moment


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=1, help="of each run")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    cli.build_parser()
    for name in ("torch.utils.tensorboard", "hybrid_encoder.stage2.training"):
        importlib.import_module(name)  # so that no run needs to
    torch.set_num_threads(1)
    options = ["--save_minutes", "0", "--num_workers", str(given.workers)]
    failed = kills = in_saving = 0
    with tempfile.TemporaryDirectory() as base:
        started = time.monotonic()
        whole = Run(Path(base, "whole"), *options)
        output = whole.wait()
        seconds = time.monotonic() - started
        assert whole.status == 0, output
        expected = contents(Path(base, "whole"))
        for number in range(given.runs):
            log_dir = Path(base, f"run{number}")
            moments = []
            for _ in range(given.kills):
                moment = kill_somewhere(Run(log_dir, *options), log_dir / "mdp", rng, seconds)
                if moment is None:
                    break
                moments.append(moment)
            last = Run(log_dir, *options)
            output = last.wait()
            found = differences(expected, contents(log_dir)) if last.status == 0 else [output]
            left = [path.name for path in (log_dir / "mdp").rglob(".*partial*")]
            kills += len(moments)
            in_saving += sum(moment.startswith("saving") for moment in moments)
            failed += bool(found or left)
            end = next((line for line in output.splitlines() if "resuming" in line or "finished" in line), "from 0")
            end = end.split(" (")[0]
            print(f"run {number}: killed {moments}, {end}: {found[:3] or 'bit-equal'} {left or ''}", flush=True)
    print(f"{given.runs} runs, {kills} kills, {in_saving} of them while saving, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
