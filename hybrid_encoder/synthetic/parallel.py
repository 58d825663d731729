"""Work on many scenes, shared among processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import Dataset

from ..data.loader import SampleLoader, start_worker

Result = TypeVar("Result")


@contextmanager
def in_order(work: Callable[[int], Result], numbers: Sequence[int], num_workers: int) -> Iterator[Iterator[Result]]:
    """Yields what `work` returns for each number, in the order of the numbers. After the block, nothing works any more.

    >>> with in_order(abs, [-3, 1, -2], num_workers=0) as results:
    ...     print(list(results))
    [3, 1, 2]

    Args:
        work: its results must not depend on the process that it runs in.
        num_workers: processes that work, with one thread each; 0: this process alone.

    Raises:
        UserError: what `work` raises, or a process was lost.
    """
    loader = SampleLoader(
        _Calls(work, numbers),
        collate_fn=_only,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # the global random state is not used
    )
    try:
        yield iter(loader)
    finally:
        loader.end_workers()


class _Calls(Dataset[Result], Generic[Result]):
    """A data set whose samples are what a function returns."""

    def __init__(self, work: Callable[[int], Result], numbers: Sequence[int]) -> None:
        self.work, self.numbers = work, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Result:
        return self.work(self.numbers[index])


def _only(results: list[Any]) -> Any:
    """The result in a batch of one."""
    return results[0]
