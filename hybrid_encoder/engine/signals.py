"""Stopping on request: SIGTERM, SIGINT and SIGHUP end a run after the step at hand, its state saved."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

EXIT_INTERRUPTED = 3
"""Exit status of a run that was asked to stop, saved its state and did."""
_SAME_REQUEST = 1.0
"""Seconds within which a second signal is the first one again: torchrun passes on what the workers got, too."""
_HANGUP = getattr(signal, "SIGHUP", None)
"""The terminal is gone; Windows has no such signal."""


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
    """SIGTERM, SIGINT and SIGHUP ask for a stop; a second one exits at once, but for SIGHUP, which shells repeat."""
    stop = Stop()
    first = 0.0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal first
        if not stop.asked:
            first = time.monotonic()
            stop.ask()
        elif number == _HANGUP:
            return
        elif not several_processes or time.monotonic() - first > _SAME_REQUEST:
            os._exit(128 + number)

    with _handling(handle, signal.SIGTERM, signal.SIGINT, _HANGUP):
        yield stop


@contextmanager
def end_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP end the program as Ctrl-C does: what was half written is cleared away on the way out.

    While an error is being handled they do nothing: its message matters more. torchrun, for instance, ends every
    process as soon as one was lost, and the others are then about to say so.
    """

    def handle(number: int, _: FrameType | None) -> None:
        if sys.exc_info()[0] is None:
            raise SystemExit(128 + number)

    with _handling(handle, signal.SIGTERM, _HANGUP):
        yield


@contextmanager
def _handling(handle: Callable[[int, FrameType | None], None], *numbers: Any) -> Iterator[None]:
    """Handles signals within the block; SIGHUP stays ignored where the program was told to ignore it (nohup)."""
    before = {}
    for number in numbers:
        if number is None or (number == _HANGUP and signal.getsignal(number) == signal.SIG_IGN):
            continue
        try:
            before[number] = signal.signal(number, handle)
        except ValueError:  # not in the main thread, where Python allows no handlers
            continue
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
