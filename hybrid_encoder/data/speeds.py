"""Reads files of measured speed: a time and a speed per line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from .calibration import NUMBER
from .text import read_text

MAX_SPEED = 150.0
"""Largest speed that is accepted, in metres per second; no car is faster."""


class Speeds(NamedTuple):
    """Measured speeds with their times."""

    seconds: np.ndarray
    """(N,) float64, in ascending order."""
    metres_per_second: np.ndarray
    """(N,) float64, at least 0."""


def read_speeds(path: str | Path) -> Speeds:
    """Reads a file with seconds and metres per second in each line, separated by a comma or spaces; the first line may
    name the columns.

    Raises:
        UserError: a missing file, no speed in it, a line of another form, times that do not ascend, or an impossible
            speed.
    """
    rows: list[list[float]] = []
    for number, line in enumerate(read_text(path, "file of speeds").split("\n"), start=1):
        fields = line.replace(",", " ").split()
        if not fields or line.startswith("#") or (not rows and number == 1 and not NUMBER.fullmatch(fields[0])):
            continue
        where = f"{path}, line {number}"
        if len(fields) != 2 or not all(NUMBER.fullmatch(field) for field in fields):
            raise UserError(f"{where}: expected two numbers, seconds and metres per second, found {line[:100]!r}")
        seconds, speed = map(float, fields)
        if rows and seconds <= rows[-1][0]:
            raise UserError(f"{where}: second {seconds:g} follows {rows[-1][0]:g}: times have to grow")
        if not 0 <= speed <= MAX_SPEED:
            raise UserError(f"{where}: {speed:g} m/s is no car's speed: expected 0 to {MAX_SPEED:g}")
        rows.append([seconds, speed])
    if not rows:
        raise UserError(f"{path} holds no speed: expected lines of seconds and metres per second")
    return Speeds(*np.array(rows).T)
