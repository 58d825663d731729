"""All that is to be known of one GPU, in at most eight minutes: `make gpu`.

    python benchmarks/gpu_day.py [--out runs/gpu] [--seconds 480] [--device cuda]

One part after the other, each a process of its own with its share of the time; what a part does not need, the later
ones get. First the tests of what a GPU computes, then the tables of `gpu.py`, then a training run on rendered scenes to
its metrics, last a profile. Every line is printed and written to OUT/PART.md at once, so that a stop loses nothing; a
part that fails or takes too long ends alone. `--device cpu` rehearses all of it at small sizes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 480


@dataclass(frozen=True)
class Part:
    """A command, and the seconds that it gets at least."""

    name: str
    seconds: float
    command: Sequence[str]


SMALL = [
    *("--nets", "tiny", "--compiled", "--precisions", "float32", "--height", "64", "--width", "96", "--sizes", "64x96"),
    *("--batches", "1", "2", "--batch", "2", "--largest_batch", "4", "--matrix", "32", "--rounds", "1"),
]
"""What `gpu.py` measures to rehearse; bf16 is slow on CPUs that only imitate it."""
LARGE = [
    *("--nets", "paper", "small", "resnet18", "--compiled", "paper", "--batches", "1", "16", "64", "--sizes", "192x640")
]


def parts(device: str, scratch: Path) -> list[Part]:
    """What is run on a GPU, or on the CPU to rehearse it."""
    rehearsed = device == "cpu"
    table = [sys.executable, "benchmarks/gpu.py", "--device", device, *(SMALL if rehearsed else LARGE), "--parts"]
    chosen = "cpu and not compiled" if rehearsed else device
    tests = [sys.executable, "-m", "pytest", "tests/test_gpu.py", "-p", "no:cacheprovider", "-k", chosen]
    demo = [sys.executable, "-m", "hybrid_encoder.cli", "demo", "--out", str(scratch / "demo"), "--device", device]
    return [
        Part("tests", 110, tests),
        Part("inference", 100, [*table, "inference"]),
        Part("steps", 90, [*table, "steps"]),
        Part("fill", 50, [*table, "fill"]),
        Part("training", 90, [*demo, *(("--scenes", "8", "--num_epochs", "1") if rehearsed else ())]),
        Part("profile", 30, [*table, "profile"]),
    ]


def run(part: Part, out: Path, seconds: float) -> str:
    """Runs a part, for so many seconds at most; how it ended, in words."""
    started, environment = time.monotonic(), {**os.environ, "GPU_DAY": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        part.command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        cwd=ROOT,
    )
    alarm = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
    alarm.start()
    assert process.stdout is not None
    try:
        with (out / f"{part.name}.md").open("wb", buffering=0) as file:
            for line in process.stdout:
                file.write(line)
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
        status = process.wait()
    finally:
        alarm.cancel()
        if process.poll() is None:  # this program was interrupted
            os.killpg(process.pid, signal.SIGKILL)
    took = time.monotonic() - started
    how = {0: "done", -signal.SIGKILL: "out of time"}.get(status, f"failed ({status})")
    return f"{how}, {took:.0f} s of {seconds:.0f}"


def run_all(planned: Sequence[Part], out: Path, seconds: float) -> bool:
    """Runs all parts within so many seconds; whether all ended well. What a part is given is what is left without the
    later ones' shares."""
    out.mkdir(parents=True, exist_ok=True)
    deadline, whole, well = time.monotonic() + seconds, sum(part.seconds for part in planned), True
    with (out / "summary.md").open("w", buffering=1) as summary:
        for number, part in enumerate(planned):
            print(f"\n## {part.name}\n", flush=True)
            later = sum(other.seconds for other in planned[number + 1 :]) * seconds / whole
            ending = run(part, out, deadline - time.monotonic() - later)
            well = well and ending.startswith("done")
            for stream in (summary, sys.stdout):
                print(f"{part.name}: {ending}", file=stream, flush=True)
    return well


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the tables")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here: --device cpu rehearses all of it at small sizes")
    with tempfile.TemporaryDirectory() as scratch:
        well = run_all(parts(given.device, Path(scratch)), given.out, given.seconds)
        report = Path(scratch, "demo", "report.html")
        if report.exists():
            shutil.copy(report, given.out / "training.html")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
