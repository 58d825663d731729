"""Kills runs with SIGKILL at random moments, a third of them while a file is being saved, until each ends by itself;
every one must resume and end bit-equal to the undisturbed run.

python tests/faults/kill.py [--runs 20] [--kills 1] [--workers 1]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import contents, finish, start

from tests.toy_run import differences


def kill_somewhere(run: subprocess.Popen[str], folder: Path, rng: random.Random, seconds: float) -> str | None:
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
    options = ["--save_minutes", "0", "--num_workers", str(given.workers)]
    failed = kills = in_saving = 0
    with tempfile.TemporaryDirectory() as base:
        started = time.monotonic()
        status, output = finish(Path(base, "whole"), *options)
        seconds = time.monotonic() - started
        assert status == 0, output
        expected = contents(Path(base, "whole"))
        for number in range(given.runs):
            log_dir = Path(base, f"run{number}")
            moments = []
            for _ in range(given.kills):
                moment = kill_somewhere(start(log_dir, *options), log_dir / "mdp", rng, seconds)
                if moment is None:
                    break
                moments.append(moment)
            status, output = finish(log_dir, *options)
            found = differences(expected, contents(log_dir)) if status == 0 else [output]
            left = [path.name for path in (log_dir / "mdp").rglob(".*partial*")]
            kills += len(moments)
            in_saving += sum(moment.startswith("saving") for moment in moments)
            failed += bool(found or left)
            end = next((line for line in output.splitlines() if "going on" in line or "finished" in line), "from 0")
            end = end.split(" (")[0]
            print(f"run {number}: killed {moments}, {end}: {found[:3] or 'bit-equal'} {left or ''}", flush=True)
    print(f"{given.runs} runs, {kills} kills, {in_saving} of them while saving, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
