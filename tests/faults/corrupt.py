"""Damages states and weights files in hundreds of ways: each must be refused or recovered from, none executed, and no
damaged number may be accepted.

python tests/faults/corrupt.py [--count 400]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pickle
import random
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from common import ROOT  # noqa: F401 (finds the package)

from hybrid_encoder.engine.state import load_state, save_state, with_sum
from hybrid_encoder.errors import UserError
from hybrid_encoder.weights.reading import read_checkpoint
from hybrid_encoder.writing import write_torch
from tests.toy_run import differences


class Hostile:
    """Makes a folder when it is unpickled by someone who trusts it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def hostile_file(marker: Path, rng: random.Random) -> bytes:
    """A pickle that runs something, bare, within torch's archive, or among tensors."""
    buffer = io.BytesIO()
    kind = rng.randrange(3)
    if kind == 0:
        return pickle.dumps(Hostile(marker), protocol=rng.randrange(5))
    if kind == 1:
        torch.save({"model": {"w": torch.zeros(3)}, "step": 1, "x": Hostile(marker)}, buffer)
        return buffer.getvalue()
    torch.save({"w": torch.zeros(3)}, buffer)
    out = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            target.writestr(name, pickle.dumps(Hostile(marker), 2) if name.endswith("data.pkl") else source.read(name))
    return out.getvalue()


def damage(content: bytes, marker: Path, rng: random.Random) -> tuple[str, bytes]:
    data = bytearray(content)
    kind = rng.choice(["bit", "bits", "cut", "zeros", "hostile"])
    if kind == "bit":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "bits":
        for _ in range(20):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[rng.randrange(len(data)) :]
    elif kind == "zeros":
        at = rng.randrange(len(data))
        data[at : at + 512] = bytes(min(512, len(data) - at))
    else:
        data = bytearray(hostile_file(marker, rng))
    return kind, bytes(data)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="damaged files of each of the two kinds")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    counts: Counter[str] = Counter()
    failures = []
    with tempfile.TemporaryDirectory() as base, contextlib.redirect_stderr(io.StringIO()):
        folder, marker, weights = Path(base, "run"), Path(base, "executed"), Path(base, "encoder.pth")
        older = {"step": 1, "model": {"w": torch.randn(40, 40)}}
        save_state(folder, older, 1)
        newest = save_state(folder, {**older, "step": 2}, 2)
        net = {"a": torch.randn(30, 30), "b": torch.randn(500), "height": 64}
        write_torch(weights, net)
        contents = newest.read_bytes(), weights.read_bytes()
        for _ in range(given.count):
            kind, data = damage(contents[0], marker, rng)
            if kind == "hostile" and rng.random() < 0.5:
                kind, data = "hostile, right sum", with_sum(data)
            newest.write_bytes(data)
            found = load_state(folder)
            right = found is not None and not differences(found, older)
            if data == contents[0]:
                right = found is not None and found["step"] == 2
            counts[f"state, {kind}: {'the one before is used' if right else 'ACCEPTED'}"] += 1
            if not right or marker.exists():
                failures.append(f"state {kind}")

            kind, data = damage(contents[1], marker, rng)
            weights.write_bytes(data)
            try:
                read = read_checkpoint(weights)
                same = all(name in read and not differences(read[name], net[name]) for name in net)
                # A hostile archive may hold harmless tensors beside what it would run; they are all that is read.
                outcome = "read, unharmed" if same else "inert" if kind == "hostile" else "ACCEPTED"
            except UserError:
                outcome = "refused"
            counts[f"weights, {kind}: {outcome}"] += 1
            if outcome == "ACCEPTED" or marker.exists():
                failures.append(f"weights {kind}")
        executed = marker.exists()
    for name, count in sorted(counts.items()):
        print(f"{count:5d}  {name}")
    print(f"{2 * given.count} damaged files, {len(failures)} accepted, executed: {executed}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
