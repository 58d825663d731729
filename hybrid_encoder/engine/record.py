"""What a run tells about itself: progress bar, TensorBoard scalars, and the same scalars as JSON lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

METRICS_FILE = "metrics.jsonl"


class Recorder:
    """Writes scalars of one run; does nothing in processes other than the first (folder None)."""

    def __init__(self, folder: Path | None, step: int = 0) -> None:
        self.folder = folder
        self._writer: Any = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and not needed by readers

            _drop_later_lines(folder / METRICS_FILE, step)
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step if step else None)

    def scalars(self, kind: str, step: int, epoch: int, values: dict[str, float]) -> None:
        """One line {"kind", "step", "epoch", ...values}, and a TensorBoard scalar `kind/name` each."""
        if self.folder is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        line = json.dumps({"kind": kind, "step": step, "epoch": epoch, **values})
        with (self.folder / METRICS_FILE).open("a") as file:
            file.write(line + "\n")

    def image(self, name: str, image: Any, step: int) -> None:
        """A picture, uint8 (H, W, 3) RGB."""
        if self._writer is not None:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes what is still in memory."""
        if self._writer is not None:
            self._writer.close()


def read_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """The scalar lines of a run, oldest first; a last line cut off by a crash is left out."""
    path = folder / METRICS_FILE
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def _drop_later_lines(path: Path, step: int) -> None:
    """A run resumed at `step` writes what came later anew."""
    if path.exists():
        kept = [json.dumps(line) + "\n" for line in read_metrics(path.parent) if line["step"] <= step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(kept))
        os.replace(partial, path)


def progress(total: int, done: int, epoch: int, epochs: int, shown: bool) -> tqdm[Any]:
    """The bar of one epoch, in steps."""
    interval = 0.5 if sys.stderr.isatty() else 30.0  # a log file gets a line now and then
    name = f"epoch {epoch + 1}/{epochs}"
    return tqdm(total=total, initial=done, desc=name, disable=not shown, ncols=110, mininterval=interval)


def device_memory(device: torch.device) -> dict[str, str]:
    """Peak GPU memory for the progress bar; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    return {"GPU": f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}G"}
