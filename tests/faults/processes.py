"""Two processes under torchrun's launcher: interrupted and resumed, and one killed, which must end the other within a
minute with a message; both end bit-equal to the undisturbed run of two.

python tests/faults/processes.py
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import contents, finish, start, wait_for

from tests.toy_run import differences

OPTIONS = ("--num_workers", "0", "--save_minutes", "0")


def workers(launcher: int) -> dict[int, int]:
    """Process ids of the launcher's children by rank."""
    found = {}
    for pid in map(int, subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True).stdout.split()):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ranks = [int(v.removeprefix(b"RANK=")) for v in variables if v.startswith(b"RANK=")]
        found.update(dict.fromkeys(ranks, pid))
    return found


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as base:
        status, output = finish(Path(base, "whole"), *OPTIONS, processes=2)
        assert status == 0, output
        expected = contents(Path(base, "whole"))
        for name, victim, number in (
            ("rank 1 killed", 1, signal.SIGKILL),
            ("rank 0 killed", 0, signal.SIGKILL),
            ("launcher told to stop", None, signal.SIGTERM),
        ):
            log_dir = Path(base, name)
            run = start(log_dir, *OPTIONS, processes=2)
            wait_for(log_dir / "mdp", "state_*.pt")
            ranks = workers(run.pid)
            began = time.monotonic()
            os.kill(run.pid if victim is None else ranks[victim], number)
            while any(Path(f"/proc/{pid}").exists() for pid in ranks.values()):
                time.sleep(0.1)
            seconds = time.monotonic() - began
            output, _ = run.communicate()
            message = [line for line in output.splitlines() if "hybrid-encoder:" in line]
            print(f"{name}: all ended after {seconds:.1f} s; {message or output[-3000:]}")
            status, output = finish(log_dir, *OPTIONS, processes=2)
            found = differences(expected, contents(log_dir)) if status == 0 else [output[-2000:]]
            print(f"{name}: resumed: {found[:3] or 'bit-equal'}", flush=True)
            failed += bool(found or seconds > 60 or not message)
    print(f"{failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
