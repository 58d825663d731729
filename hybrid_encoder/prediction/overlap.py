"""Reading, the net and writing at the same time, each in a thread of its own. Results come in the same order, and are
the same, as when one waits for the other; few of them are in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar, cast

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], most: int) -> Iterator[T]:
    """The items in their order, made by a thread while the caller works on earlier ones; at most `most` wait.

    An error of the items is raised where its item would have come.

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
    """Calls functions in their order in a thread of its own, while the caller goes on; at most `most` calls wait.

    After the first error nothing more is called. It is raised at the next call, or at the end of the block, where it
    takes the place of an error that the block ended with: it is of earlier work. An interrupted block waits for the
    call under way alone.
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
