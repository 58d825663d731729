"""Makes batches from samples: their order, the treatment of unreadable samples, and the loader."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info
from torch.utils.data._utils import signal_handling

from ..errors import UserError

WORKER_TIMEOUT = 600
"""Seconds without a batch after which a worker process counts as hung."""
T_co = TypeVar("T_co", covariant=True)


class Fetched(list[Any]):
    """The samples of a batch, and the problems of unreadable samples that were replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []


class SampleDataset(Dataset[T_co]):
    """Samples by (epoch, index). In a batch, the next readable sample in the data set's order replaces an unreadable
    one.

    Attributes:
        skip_bad: how many different problems a batch may have.
    """

    skip_bad = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Fetched:
        """The samples of a batch; PyTorch's loader calls this method.

        Raises:
            UserError: the last problem, where there are more than `skip_bad`.
        """
        fetched = Fetched()
        for epoch, index in keys:
            while True:
                try:
                    fetched.append(self[epoch, index])
                    break
                except UserError as error:
                    if str(error) not in fetched.problems:
                        fetched.problems.append(str(error))
                    if len(fetched.problems) > self.skip_bad:
                        raise
                    index = (index + 1) % len(self)
        return fetched


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) keys: this process's share of an epoch's order, which is a function of (seed, epoch).

    Processes take turns in one order, so that together they see the same batches as a single process with a batch
    `world_size` times as large. In training (`shuffle`) all processes get the same number of keys, and the last keys
    are left out if they are fewer than processes; otherwise every index occurs exactly once.
    """

    def __init__(
        self,
        length: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        draws: int | None = None,
    ) -> None:
        """
        Args:
            draws: how many indices are drawn at random for an epoch, with repetitions. The epoch in their keys is the
                number of the draw, so that a sample that is drawn twice is augmented differently. None: every index
                occurs once.

        Raises:
            UserError: fewer samples than processes.
        """
        if length < world_size:
            raise UserError(f"{length} samples are too few for {world_size} processes: start fewer processes")
        self.length, self.shuffle, self.seed, self.rank, self.world_size = length, shuffle, seed, rank, world_size
        self.draws = draws
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Sets the epoch, and how many samples of this process's share were seen already and are skipped."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Number of keys from `start` on."""
        return max(0, self._share() - self.start)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        mine = slice(self.rank, None, self.world_size)
        keys = self._keys()[mine][self.start : self._share()]
        return iter([(epoch, index) for epoch, index in keys.tolist()])

    def _keys(self) -> np.ndarray:
        """(N, 2), epoch and index of all processes' samples."""
        random = np.random.default_rng([self.seed, self.epoch])
        if self.draws is not None:
            numbers = self.epoch * self.draws + np.arange(self.draws)
            return np.stack([numbers, random.integers(0, self.length, self.draws)], axis=1)
        order = np.arange(self.length)
        if self.shuffle:
            random.shuffle(order)
        return np.stack([np.full_like(order, self.epoch), order], axis=1)

    def _share(self) -> int:
        count = self.length if self.draws is None else self.draws
        left_over = 0 if self.shuffle else self.world_size - 1 - self.rank
        return (count + left_over) // self.world_size


class SampleLoader(DataLoader[Any]):
    """A DataLoader whose workers' errors reach the user as they were raised, without the workers' tracebacks.

    Attributes:
        skip_bad: how many unreadable files are skipped before the loader stops with an error.
        problems: the problems so far, each once.
    """

    def __init__(
        self, dataset: Dataset[Any], *, collate_fn: Callable[[list[Any]], Any], skip_bad: int = 0, **settings: Any
    ) -> None:
        super().__init__(dataset, collate_fn=_Collate(collate_fn), **settings)
        self.skip_bad = skip_bad
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            try:
                batch, problems = next(batches)
            except StopIteration:
                return
            except UserError as error:
                raise UserError(_own_message(str(error))) from error
            except (RuntimeError, ConnectionError, EOFError) as error:
                # Where a worker dies in the middle of a batch, its connection breaks.
                inside = isinstance(error, RuntimeError) or str(error).startswith("Caught ")  # raised by the data set
                broken = self.num_workers > 0 and not inside
                failure = _lost_worker(f"connection lost ({error})") if broken else worker_failure(error)
                if failure is None:
                    raise
                _kill_workers(batches)
                raise failure from error
            for problem in problems:
                self._count(problem)
            yield batch

    def end_workers(self) -> None:
        """Ends persistent workers now, whatever they are at."""
        batches, self._iterator = self._iterator, None
        _kill_workers(batches)
        for worker in getattr(batches, "_workers", []):
            worker.join()

    def _count(self, problem: str) -> None:
        if problem in self.problems:
            return
        self.problems.append(problem)
        if len(self.problems) > self.skip_bad:
            raise UserError(
                f"{problem}. It is the {len(self.problems)}th such file: --skip_bad {self.skip_bad} is over"
            )
        print(f"passed over ({len(self.problems)} of {self.skip_bad}): {problem}", file=sys.stderr)


def _kill_workers(batches: Any) -> None:
    """Ends an iterator's workers: a worker that hangs would keep the whole run from ending.

    They are removed from PyTorch's list first: its signal handler would report their death by an error in the main
    thread, at any later line.
    """
    if getattr(batches, "_worker_pids_set", False):
        signal_handling._remove_worker_pids(id(batches))
        batches._worker_pids_set = False
    for worker in getattr(batches, "_workers", []):
        worker.kill()


class _Collate:
    """Collates samples into a batch, and adds the problems of unreadable samples."""

    def __init__(self, collate_fn: Callable[[list[Any]], Any]) -> None:
        self.collate_fn = collate_fn

    def __call__(self, samples: list[Any]) -> tuple[Any, list[str]]:
        batch = self.collate_fn(samples)
        if get_worker_info() is not None:
            _share(batch)
        return batch, samples.problems if isinstance(samples, Fetched) else []


def _share(batch: Any) -> None:
    """Moves a worker's tensors to shared memory now: if that is full, the error reaches the main process. PyTorch would
    move them later, in a thread whose errors are lost, and the main process would wait."""
    if isinstance(batch, torch.Tensor):
        batch.share_memory_()
    elif isinstance(batch, dict | list | tuple):
        for value in batch.values() if isinstance(batch, dict) else batch:
            _share(value)


def worker_failure(error: Exception) -> UserError | None:
    """A `UserError` for PyTorch's report of a worker process that died or hangs; None for any other error.

    PyTorch raises the report in the main thread, at whatever line that is when the worker dies.
    """
    return _lost_worker(str(error).strip()) if str(error).startswith("DataLoader") else None


def _lost_worker(reason: str) -> UserError:
    return UserError(
        f"loading data failed: {reason} A worker process was killed (memory full?) or hangs (data disk gone?); "
        "--num_workers 0 loads in the main process, where an error shows itself"
    )


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are loaded.

    Raises:
        UserError: numbers out of range.
    """

    num_workers: int = 0
    """Processes that load ahead; 0 loads in this one."""
    seed: int = 0
    """Seed of the order."""
    rank: int = 0
    """This process's number among the `world_size` processes that share the samples."""
    world_size: int = 1
    skip_bad: int = 0
    """How many unreadable files are skipped, if the data set is a `SampleDataset`."""
    pin_memory: bool = False
    """Whether batches are in pinned memory, from which a GPU copies them while it computes."""
    draws: int | None = None
    """In training, how many samples are drawn at random for an epoch; None: every sample occurs once."""

    def __post_init__(self) -> None:
        if self.num_workers < 0 or self.skip_bad < 0:
            raise UserError(f"num_workers {self.num_workers}, skip_bad {self.skip_bad}: expected at least 0 and 0")


def make_loader(
    dataset: Dataset[Any],
    batch_size: int,
    train: bool,
    options: LoaderOptions | None = None,
    collate_fn: Callable[[list[Any]], Any] = default_collate,
) -> SampleLoader:
    """Loads this process's share of the batches of a data set that takes (epoch, index) keys.

    `loader.sampler` is an `EpochSampler`. In training the order changes with the epoch and an incomplete last batch is
    left out; otherwise the order is the data set's and every sample occurs once. The global random state is not used.

    Args:
        batch_size: of this process.
        options: None: `LoaderOptions()`.

    Raises:
        UserError: a batch of less than one sample.
    """
    options = options or LoaderOptions()
    if batch_size < 1:
        raise UserError(f"batch_size {batch_size}: expected at least 1")
    if isinstance(dataset, SampleDataset):
        dataset.skip_bad = options.skip_bad
    length, draws = len(dataset), options.draws if train else None  # type: ignore[arg-type]
    sampler = EpochSampler(length, train, options.seed, options.rank, options.world_size, draws)
    ahead: dict[str, Any] = {"persistent_workers": True, "timeout": WORKER_TIMEOUT} if options.num_workers else {}
    return SampleLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=options.num_workers,
        drop_last=train,
        pin_memory=options.pin_memory,
        worker_init_fn=start_worker,
        generator=torch.Generator().manual_seed(options.seed),
        collate_fn=collate_fn,
        skip_bad=options.skip_bad,
        **ahead,
    )


def start_worker(_: int) -> None:
    """Gives a worker a single thread, and lets only the main process stop it.

    Ctrl-C, a scheduler's SIGTERM and the SIGHUP of a closed terminal reach every process of a job. Only the main
    process reacts to them: it finishes its step and saves, and needs its workers for that.
    """
    cv2.setNumThreads(0)
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    """Waits for the main process's SIGTERM, and ends the worker then."""
    main = multiprocessing.parent_process()
    while main is not None and signal.sigwaitinfo({signal.SIGTERM}).si_pid != main.pid:
        pass
    os._exit(0)


def _own_message(text: str) -> str:
    """The message of a `UserError` from a worker's report, which is its traceback."""
    parts = re.split(rf"^{re.escape(UserError.__module__)}\.{UserError.__name__}: ", text, flags=re.MULTILINE)
    return parts[-1].rstrip("\n")
