"""From samples to batches: their order, what happens to unreadable ones, and the loader."""

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
    """The samples of a batch, and the problems of those that they stand for."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []


class SampleDataset(Dataset[T_co]):
    """Samples by (epoch, index). In a batch, one that cannot be read may be passed over: the next readable one in the
    data set's order stands for it.

    Attributes:
        skip_bad: how many different problems a batch may have.
    """

    skip_bad = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Fetched:
        """The samples of a batch, as PyTorch's loader asks for them.

        Raises:
            UserError: more problems than `skip_bad`; the last of them.
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

    Processes take turns in one order, so that together they see the batches that one process with a batch as many times
    as large sees. In training (`shuffle`) each gets equally many, and a rest of less than one each is left out;
    without, every index comes exactly once.
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
            draws: an epoch is as many indices drawn at random, some of them several times and some never; the epoch in
                their keys is the number of the draw, so that a sample drawn twice is not augmented alike. None: every
                index comes once.

        Raises:
            UserError: fewer samples than processes.
        """
        if length < world_size:
            raise UserError(f"{length} samples are too few for {world_size} processes: start fewer processes")
        self.length, self.shuffle, self.seed, self.rank, self.world_size = length, shuffle, seed, rank, world_size
        self.draws = draws
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and how many samples of this process's share in it to pass over: those seen already."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """How many keys are left from `start` on."""
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
        skip_bad: how many unreadable files it passes over before it gives up.
        problems: those that it met, each once.
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
                # A connection that breaks is how a worker's death shows where it comes in the middle of a batch.
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
    """Ends an iterator's workers, of which one that hangs would keep the whole run from ending.

    They are struck off PyTorch's list first: its handler would raise their death in the main thread, wherever that is
    by then.
    """
    if getattr(batches, "_worker_pids_set", False):
        signal_handling._remove_worker_pids(id(batches))
        batches._worker_pids_set = False
    for worker in getattr(batches, "_workers", []):
        worker.kill()


class _Collate:
    """Batches with the problems met in making them."""

    def __init__(self, collate_fn: Callable[[list[Any]], Any]) -> None:
        self.collate_fn = collate_fn

    def __call__(self, samples: list[Any]) -> tuple[Any, list[str]]:
        batch = self.collate_fn(samples)
        if get_worker_info() is not None:
            _share(batch)
        return batch, samples.problems if isinstance(samples, Fetched) else []


def _share(batch: Any) -> None:
    """Moves a worker's tensors to shared memory now: where that is full, the error reaches the main process. PyTorch
    does it later, in a thread whose errors nobody hears of, and the main process waits."""
    if isinstance(batch, torch.Tensor):
        batch.share_memory_()
    elif isinstance(batch, dict | list | tuple):
        for value in batch.values() if isinstance(batch, dict) else batch:
            _share(value)


def worker_failure(error: Exception) -> UserError | None:
    """The user's side of PyTorch's report of a worker process that died or hangs; None for any other error.

    PyTorch raises it in the main thread wherever that is when the worker dies.
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
    """Of the order."""
    rank: int = 0
    """This process's number among `world_size` that share the samples."""
    world_size: int = 1
    skip_bad: int = 0
    """How many unreadable files to pass over, where the data set is a `SampleDataset`."""
    pin_memory: bool = False
    """For a GPU, which then copies batches while it computes."""
    draws: int | None = None
    """In training, how many samples are drawn at random for an epoch; None: every one comes once."""

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
    """Batches of a data set that takes (epoch, index) keys, this process's share of them.

    `loader.sampler` is an `EpochSampler`. In training the order changes with the epoch and an incomplete last batch is
    left out; else the order is the data set's and every sample comes once. Takes no number from the global random
    state.

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
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(options.seed),
        collate_fn=collate_fn,
        skip_bad=options.skip_bad,
        **ahead,
    )


def _start_worker(_: int) -> None:
    """One thread a worker, and a stop only when the main process says so.

    Ctrl-C, the SIGTERM of a scheduler, and the SIGHUP of a terminal that is gone, go to every process of a job. They
    are the main process's to answer: it finishes its step and saves, for which it needs its workers.
    """
    cv2.setNumThreads(0)
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    main = multiprocessing.parent_process()
    while main is not None and signal.sigwaitinfo({signal.SIGTERM}).si_pid != main.pid:
        pass
    os._exit(0)


def _own_message(text: str) -> str:
    """The message of a UserError from within a worker's report, which is its traceback."""
    parts = re.split(rf"^{re.escape(UserError.__module__)}\.{UserError.__name__}: ", text, flags=re.MULTILINE)
    return parts[-1].rstrip("\n")
