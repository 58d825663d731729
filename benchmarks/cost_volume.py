"""Compares our cost volume with the original's: time and peak memory on the CPU.

    python benchmarks/cost_volume.py [--threads 2] [--rounds 5]

Downloads the original's published wheel to a temporary folder. Every measurement runs in a process of its own, and the
two sides take turns; results are medians over rounds. Prints a table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SIZES = ((48, 160, 64), (56, 168, 256))
"""Height, width and channels of the features: ResNet-18 at 192x640, CLIP RN50 at 224x672."""
BATCH, BINS = 4, 96


def inputs(height: int, width: int, channels: int) -> tuple[Tensor, ...]:
    """Features, lookup features, poses, K and its inverse: smooth random maps, a camera that moves forward, KITTI's
    K."""
    torch.manual_seed(0)
    coarse = torch.rand(2 * BATCH, channels, height // 4, width // 4)
    maps = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    K = torch.eye(4).repeat(BATCH, 1, 1)
    K[:, 0, 0], K[:, 0, 2], K[:, 1, 1], K[:, 1, 2] = 0.58 * width, 0.5 * width, 1.92 * height, 0.5 * height
    poses = torch.eye(4).repeat(BATCH, 1, 1, 1)
    poses[..., 0, 3], poses[..., 1, 3], poses[..., 2, 3] = 0.02, 0.01, 0.05
    return maps[:BATCH], maps[BATCH:, None], poses, K, torch.linalg.inv(K)


def measure(side: str, size: tuple[int, int, int], threads: int, wheel: Path) -> dict[str, float]:
    """Seconds of a call (the faster of two, after a first one) and the peak memory of this process, in MiB."""
    height, width = size[:2]
    arguments = inputs(*size)
    if side == "ours":
        from hybrid_encoder.two_frame.cost_volume import Lookup, depth_bins, match

        bins, lookup = depth_bins(0.1, 20.0, BINS), Lookup(*arguments[1:])

        def run() -> tuple[Tensor, Tensor]:
            found = match(arguments[0], lookup, bins)
            return found.cost, found.confidence

    else:
        from tests.oracle import Original

        original = Original("manydepth", wheel)
        encoder = original.networks.ResnetEncoderMatching(18, False, 4 * height, 4 * width, num_depth_bins=BINS)

        def run() -> tuple[Tensor, Tensor]:
            cost, missing = encoder.match_features(*arguments)
            return cost, encoder.compute_confidence_mask(cost * (1 - missing))

    torch.set_num_threads(threads)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            cost, confidence = run()
            seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": min(seconds[1:]),
        "peak": peak / 1024,
        "added": (peak - before) / 1024,
        "cost": float(cost.double().mean()),
        "confident": float(confidence.float().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=3, metavar=("SIDE", "SIZE", "WHEEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        side, index, wheel = arguments.one
        print(json.dumps(measure(side, SIZES[int(index)], arguments.threads, Path(wheel))))
        return
    from tests.oracle import download

    print(f"batch {BATCH}, {BINS} bins, {arguments.threads} threads, medians of {arguments.rounds} rounds\n")
    print("| features | side | seconds | peak memory (MiB) | of it in the call | mean cost | confident |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        wheel = download("manydepth", Path(folder))
        for index, (height, width, channels) in enumerate(SIZES):
            found: dict[str, list[dict[str, float]]] = {"original": [], "ours": []}
            for _ in range(arguments.rounds):
                for side, results in found.items():
                    command = [sys.executable, __file__, "--threads", str(arguments.threads)]
                    command += ["--one", side, str(index), str(wheel)]
                    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                    results.append(json.loads(output.splitlines()[-1]))
            medians = {
                side: {key: statistics.median(result[key] for result in results) for key in results[0]}
                for side, results in found.items()
            }
            for side, m in medians.items():
                print(
                    f"| {height}x{width}x{channels} | {side} | {m['seconds']:.2f} | {m['peak']:.0f} | {m['added']:.0f} "
                    f"| {m['cost']:.6f} | {m['confident']:.4f} |"
                )
            ratio = medians["original"]["seconds"] / medians["ours"]["seconds"]
            memory = medians["original"]["peak"] / medians["ours"]["peak"]
            print(f"| | ratio | {ratio:.1f} | {memory:.1f} | | | |", flush=True)


if __name__ == "__main__":
    main()
