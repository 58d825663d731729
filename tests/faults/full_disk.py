"""Trains on a disk that fills up: a small tmpfs with other data on it. The run must say so, stop with what it had saved
still there, and go on when there is room again, bit-equal to a run that never noticed. Needs the right to mount.

python tests/faults/full_disk.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import contents, finish, start, wait_for

from hybrid_encoder.engine.state import load_state
from tests.toy_run import differences


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as base:
        disk = Path(base, "disk")
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(disk)]).returncode:
            print("no tmpfs can be mounted here")
            return 77
        try:
            status, output = finish(Path(base, "whole"), "--num_workers", "0")
            assert status == 0, output
            expected = contents(Path(base, "whole"))
            # States of 15 MiB: when the first is there, no other fits; or two fit and one being written, but not the
            # weights of the first epoch besides.
            for name, pattern, room in (("state", "state_*.pt", 8), ("weights", None, 52)):
                log_dir, filler = disk / name, disk / "filler"
                if pattern is None:
                    fill(filler, disk, room)
                run = start(log_dir, "--num_workers", "0", "--save_minutes", "0")
                if pattern is not None:
                    wait_for(log_dir / "mdp", pattern)
                    fill(filler, disk, room)
                output, _ = run.communicate()
                message = [line for line in output.splitlines() if line.startswith("hybrid-encoder:")]
                state = load_state(log_dir / "mdp")
                stopped = run.returncode == 2 and "No space left" in output and "Traceback" not in output
                at = None if state is None else state["step"]
                print(f"{name}: status {run.returncode}, state of step {at}; {message}")
                filler.unlink()
                status, output = finish(log_dir, "--num_workers", "0")
                found = differences(expected, contents(log_dir)) if status == 0 else [output]
                print(f"{name}: with room again: {found[:3] or 'bit-equal'}")
                failed += bool(found or not stopped or state is None)
                shutil.rmtree(log_dir)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    print(f"{failed} failed")
    return int(failed > 0)


def fill(filler: Path, disk: Path, room: int) -> None:
    """Writes until so many MiB are left."""
    with filler.open("ab") as file:
        while (free := shutil.disk_usage(disk).free - (room << 20)) > 0:
            file.write(bytes(min(free, 1 << 20)))
            file.flush()


if __name__ == "__main__":
    sys.exit(main())
