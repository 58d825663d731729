"""What a run tells its user while it trains: the progress bar, lines on the screen, and the record."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from .folder import RunFolder
from .processes import Processes
from .record import Recorder


class Reporter:
    """Tells of one run. Every process calls it, for the means over processes; the first one alone writes.

    Attributes:
        recorder: the run's scalars on disk.
    """

    def __init__(self, folder: RunFolder, processes: Processes, lines: int) -> None:
        """
        Args:
            lines: of the record, those that a resumed run keeps.
        """
        self.folder, self.processes = folder, processes
        self.recorder = Recorder(folder.path if processes.is_main else None, lines)

    @contextmanager
    def epoch(self, epoch: int, epochs: int, done: int, total: int) -> Iterator[EpochReport]:
        """The progress bar and the throughput of an epoch, `done` of whose `total` batches are trained on already."""
        interval = 0.5 if sys.stderr.isatty() else 30.0  # a log file gets a line now and then
        name, shown = f"epoch {epoch + 1}/{epochs}", self.processes.is_main
        bar = tqdm(total=total, initial=done, desc=name, disable=not shown, ncols=110, mininterval=interval)
        with bar:
            yield EpochReport(self, epoch, bar)

    def validated(self, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """The metrics of a validation after so many epochs; none are not told."""
        if not metrics:
            return
        self.record("val", step, epoch, metrics)
        listed = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self._print(f"validation after epoch {epoch}: {listed}")

    def warned(self, step: int, epoch: int, warning: str) -> None:
        """What is wrong with the run, in one line; an empty one is not told."""
        if warning:
            self.record("warning", step, epoch, {"warning": warning})
            self._print(f"warning after epoch {epoch}: {warning}", sys.stderr)

    def resumed(self, step: int, epoch: int, epochs: int) -> None:
        """Where a saved state continues."""
        where = "the run is finished" if epoch >= epochs else f"resuming at epoch {epoch + 1}"
        self._print(f"{where}, step {step} ({self.folder.path})")

    def record(self, kind: str, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """A line of the record.

        Raises:
            FolderLost: the folder is not this run's any more.
        """
        self.folder.check()
        self.recorder.scalars(kind, step, epoch, values)

    def _print(self, line: str, stream: Any = None) -> None:
        if self.processes.is_main:
            print(line, file=stream or sys.stdout, flush=True)


class EpochReport:
    """Tells of the batches of one epoch: images a second, and the share of time that loading took, since the last
    logged step."""

    def __init__(self, reporter: Reporter, epoch: int, bar: tqdm[Any]) -> None:
        self._reporter, self._epoch, self._bar = reporter, epoch, bar
        self._restart()
        self._waiting_since = self._logged_at

    def waits(self) -> None:
        """The next batch is asked for."""
        self._waiting_since = time.perf_counter()

    def got(self, images: int) -> None:
        """It is there, with so many images of this process."""
        self._loading += time.perf_counter() - self._waiting_since
        self._images += images * self._reporter.processes.world_size

    def trained(self) -> None:
        """A batch is done."""
        self._bar.update()

    def log(self, step: int, scalars: Mapping[str, Tensor], further: Mapping[str, float]) -> None:
        """The scalars of a step, as means over processes, on the bar and in the record; `further` in the record."""
        processes = self._reporter.processes
        numbers = processes.mean({name: float(value) for name, value in scalars.items()})
        seconds = time.perf_counter() - self._logged_at  # now that reading the numbers has waited for the device
        speed = {"images_per_second": self._images / seconds, "loading_share": self._loading / seconds}
        self._restart()
        shown = {"loss": f"{numbers['loss']:.4f}", "img_s": f"{speed['images_per_second']:.1f}"}
        self._bar.set_postfix(**shown, **_device_memory(processes.device))
        self._reporter.record("train", step, self._epoch, {**numbers, **further, **speed})

    def _restart(self) -> None:
        self._images, self._loading, self._logged_at = 0, 0.0, time.perf_counter()


def describe_run(model: nn.Module, loader: DataLoader[Any], epochs: int, processes: Processes) -> str:
    """The first line of a run: what is trained on what, and for how long.

    >>> from torch.utils.data import TensorDataset
    >>> loader = DataLoader(TensorDataset(torch.rand(22)), batch_size=2)
    >>> describe_run(nn.Linear(1000, 200), loader, 3, Processes(torch.device("cpu")))
    'training: 22 samples on cpu, 0.20 M parameters, of which 0.20 M train, 3 epochs of 11 steps'
    """
    sizes = [(parameter.numel() / 1e6, parameter.requires_grad) for parameter in model.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)
    samples = len(loader.dataset)  # type: ignore[arg-type]
    where = f"{processes.device}" if processes.world_size == 1 else f"{processes.world_size} processes"
    return (
        f"training: {samples} samples on {where}, {total:.2f} M parameters, of which {trained:.2f} M train, "
        f"{epochs} epochs of {len(loader)} steps"
    )


def _device_memory(device: torch.device) -> dict[str, str]:
    """Peak GPU memory for the progress bar; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    return {"GPU": f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}G"}
