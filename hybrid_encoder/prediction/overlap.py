"""Threads by which reading, prediction and writing overlap. Order and results are those of a plain loop, and only a few
items are in memory at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar, cast

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], most: int) -> Iterator[T]:
    """Yields the items in order; a thread fetches up to `most` of them ahead of the caller.

    An error of the iterable is raised in the place of its item.

    >>> list(ahead(iter("abc"), 2))
    ['a', 'b', 'c']
    """
    source = iter(items)

    def take() -> object:
        return next(source, _END)

    reader = ThreadPoolExecutor(1)
    try:
        waiting = deque(reader.submit(take) for _ in range(most))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(reader.submit(take))
            yield cast("T", item)
    finally:
        reader.shutdown(cancel_futures=True)


class Later:
    """Calls functions in order in a thread of its own, while the caller continues; at most `most` calls wait.

    After the first error no function is called any more. The error is raised at the next call, or at the end of the
    `with` block. There it replaces an error of the block itself, because it happened first. After an interrupt (Ctrl-C)
    the block waits only for the call that is running.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._writer, self._waiting = ThreadPoolExecutor(1), deque[Future[None]]()
        self._error: BaseException | None = None

    def __call__(self, function: Callable[..., object], *arguments: Any) -> None:
        while len(self._waiting) >= self.most:
            self._waiting.popleft().result()
        if self._error is not None:
            raise self._error
        self._waiting.append(self._writer.submit(self._run, function, arguments))

    def _run(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if self._error is None:
            try:
                function(*arguments)
            except BaseException as error:  # raised in the caller's thread
                self._error = error

    def __enter__(self) -> Later:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        interrupted = error is not None and not isinstance(error, Exception)
        self._writer.shutdown(cancel_futures=interrupted)
        if self._error is not None and not interrupted and error is not self._error:
            raise self._error
