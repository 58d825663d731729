"""Stopping on request: after SIGTERM, SIGINT or SIGHUP a run finishes the current step, saves its state and ends."""

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
"""Exit status of a run that was asked to stop, saved its state and stopped."""
_SAME_REQUEST = 1.0
"""Seconds within which a second signal counts as the first one: processes get a signal from the scheduler, and again
from torchrun."""
_HANGUP = getattr(signal, "SIGHUP", None)
"""Sent when the terminal is closed; Windows has no such signal."""


class Interrupted(Exception):  # noqa: N818 (not an error: the run did as asked)
    """The run was asked to stop, and stopped; the message says which state is saved."""


class Stop:
    """Whether the run was asked to stop. Work that may be interrupted anywhere runs in a block `at_once`."""

    def __init__(self) -> None:
        self.asked = False
        self._at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raises `Interrupted` within the block as soon as a stop is asked for."""
        if self.asked:
            raise Interrupted
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def ask(self) -> None:
        """Asks the run to stop: after the current step, or now if it is in a block `at_once`."""
        self.asked = True
        if self._at_once:
            self._at_once = False
            raise Interrupted


@contextmanager
def stop_on_signal(several_processes: bool = False) -> Iterator[Stop]:
    """SIGTERM, SIGINT and SIGHUP ask for a stop. A second one exits at once, except SIGHUP, which shells repeat."""
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
    """SIGTERM and SIGHUP end the program as Ctrl-C does, so that unfinished files are deleted.

    While an error is being handled they do nothing, because its message matters more. For instance, torchrun ends every
    process as soon as one is lost, while the others are about to report this.
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
