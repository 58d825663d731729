"""Stopping on request: SIGTERM and SIGINT end a run after the step at hand, its state saved."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 3
"""Exit status of a run that was asked to stop, saved its state and did."""
_SAME_REQUEST = 1.0
"""Seconds within which a second signal is the first one again: torchrun passes on what the workers got, too."""


class Interrupted(Exception):  # noqa: N818 (not an error: the run did as asked)
    """The run was asked to stop and did; its message says which state is saved."""


class Stop:
    """Whether the run was asked to stop; `at_once` while it does what may be broken off anywhere."""

    def __init__(self) -> None:
        self.asked = False
        self._at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raises `Interrupted` in its block as soon as a stop is asked for."""
        if self.asked:
            raise Interrupted
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def ask(self) -> None:
        """The next boundary between steps is the last."""
        self.asked = True
        if self._at_once:
            self._at_once = False
            raise Interrupted


@contextmanager
def stop_on_signal(several_processes: bool = False) -> Iterator[Stop]:
    """SIGTERM and SIGINT ask for a stop; a second one exits at once."""
    stop = Stop()
    first = 0.0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal first
        if not stop.asked:
            first = time.monotonic()
            stop.ask()
        elif not several_processes or time.monotonic() - first > _SAME_REQUEST:
            os._exit(128 + number)

    before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            before[number] = signal.signal(number, handle)
        except ValueError:  # not in the main thread, where Python allows no handlers
            continue
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
