"""Progress bars: on a terminal they move, in a log file they are a line now and then. And how long a run takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

LOG_SECONDS = 30.0
"""Between two lines in a log file."""
_COLUMNS = 120


class _Lines:
    """A log file as a bar writes to it: every state of the bar is a line of its own."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            self.stream.write(f"{line}\n")

    def flush(self) -> None:
        self.stream.flush()


def progress_bar(
    items: Iterable[Any] | None = None,
    what: str = "",
    total: int | None = None,
    unit: str = "it",
    shown: bool = True,
    done: int = 0,
) -> tqdm[Any]:
    """A bar on stderr, around items or moved by `update`.

    Args:
        what: its name.
        total: how many there are, where that is known and the items do not say it.
        done: how many of them are done before it starts.
    """
    settings: dict[str, Any] = {"desc": what, "total": total, "unit": unit, "disable": not shown, "initial": done}
    if sys.stderr.isatty():
        return tqdm(items, ncols=_COLUMNS, mininterval=0.5, **settings)
    return tqdm(
        items,
        file=_Lines(sys.stderr),
        ncols=_COLUMNS,
        ascii=True,
        mininterval=LOG_SECONDS,
        maxinterval=LOG_SECONDS,
        delay=1.0,  # else every bar would begin with a line of 0%
        **settings,
    )


class TimeLeft:
    """How long a run still takes, by the steps since it began or resumed, with the validation and saving between
    them."""

    def __init__(self, total: int, done: int) -> None:
        """
        Args:
            total: steps of the whole run.
            done: those of its earlier parts.
        """
        self._total, self._first, self._start = total, done, time.perf_counter()

    def at(self, step: int) -> str:
        """After so many steps of the run, in words."""
        seconds = time.perf_counter() - self._start
        return duration(seconds * (self._total - step) / max(step - self._first, 1))


def duration(seconds: float) -> str:
    """A time in words, to two parts.

    >>> duration(7.4), duration(200), duration(9000), duration(200000)
    ('7 s', '3 min 20 s', '2 h 30 min', '2 d 7 h')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute} min"
    return f"{minutes} min {second} s" if minutes else f"{second} s"
