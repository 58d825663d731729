"""The record of a run: its scalars as JSON lines, and the same scalars for TensorBoard."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..writing import write_text

METRICS_FILE = "metrics.jsonl"
_EVENT_FILES = ".event_files"
"""Lists the event files that runs of this folder wrote: these are written anew when it resumes, no others."""


class Recorder:
    """Writes scalars of one run; does nothing in processes other than the first (folder None).

    Attributes:
        lines: how many lines of `metrics.jsonl` are written; a saved state knows it, so that a resumed run continues
            after the same line.
    """

    def __init__(self, folder: Path | None, lines: int = 0) -> None:
        """
        Args:
            lines: those to keep of an earlier part of the run; what comes after them is written anew, TensorBoard's
                events with it.
        """
        self.folder = folder
        self.lines = 0
        self._writer: Any = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and not needed by readers

            kept = list(read_metrics(folder))[:lines]
            write_text(folder / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in kept))
            self.lines = len(kept)
            events = folder / "tensorboard"
            _delete_own_events(events)
            self._writer = SummaryWriter(str(events))
            write_text(events / _EVENT_FILES, Path(self._writer.file_writer.event_writer._file_name).name + "\n")
            for line in kept:
                self._add_to_tensorboard(line)

    def scalars(self, kind: str, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """One line {"kind", "step", "epoch", ...values, "time"}, and a TensorBoard scalar `kind/name` of every
        number."""
        if self.folder is None:
            return
        line = {"kind": kind, "step": step, "epoch": epoch, **values, "time": round(time.time(), 3)}
        with (self.folder / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.lines += 1
        self._add_to_tensorboard(line)

    def close(self) -> None:
        """Flushes what is still in memory."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:  # every scalar is in metrics.jsonl, too
                print(f"TensorBoard's last events could not be written ({error.strerror})", file=sys.stderr)

    def _add_to_tensorboard(self, line: dict[str, Any]) -> None:
        for name, value in line.items():
            if name not in ("kind", "step", "epoch", "time") and isinstance(value, int | float):
                self._writer.add_scalar(f"{line['kind']}/{name}", value, line["step"], walltime=line["time"])


def _delete_own_events(folder: Path) -> None:
    """Deletes the event files that an earlier part of the run wrote."""
    listed = folder / _EVENT_FILES
    if listed.is_file():
        for name in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            if name.startswith("events.out.tfevents.") and "/" not in name:
                (folder / name).unlink(missing_ok=True)


def read_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """The scalar lines of a run, oldest first; one that a crash cut off is reported and left out."""
    path = folder / METRICS_FILE
    if path.exists():
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): delete it to start its record anew") from error
        for number, text in enumerate(lines, 1):
            if not text:
                continue
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                line = None
            if _is_line(line):
                yield line
            else:
                print(f"{path} line {number} is damaged and left out", file=sys.stderr)


def _is_line(line: Any) -> bool:
    """Whether this is what `Recorder.scalars` writes, with numbers that TensorBoard takes."""
    if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
        return False
    if any(isinstance(value, int) and abs(value) >= 2**63 for value in line.values()):
        return False
    counted = all(type(line.get(name)) is int and line[name] >= 0 for name in ("step", "epoch"))
    return counted and isinstance(line.get("time"), float) and math.isfinite(line["time"])
