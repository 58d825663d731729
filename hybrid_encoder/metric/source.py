"""The source of the metric scale that `--scale_from` names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ..errors import UserError

Kind = Literal["camera_height", "lidar", "baseline", "speed", "poses"]
_IN_METRES = {"camera_height": (0.05, 100.0), "baseline": (0.001, 100.0)}
"""Smallest and largest length in metres that is accepted."""
_EXPECTED = (
    "expected camera_height=METRES, lidar, baseline=METRES, speed=FILE (lines of seconds and metres per second) or "
    "poses=FILE (lines of twelve numbers as in KITTI, or of eight as in TUM)"
)


@dataclass(frozen=True)
class ScaleSource:
    """Where the metric scale comes from. `read_scale_source` makes and checks it."""

    kind: Kind
    metres: float = 0.0
    """The length, of camera_height and baseline."""
    file: Path = Path()
    """The file, of speed and poses; Path(): the poses are the data set's own."""

    def __str__(self) -> str:
        if self.kind in _IN_METRES:
            return f"{self.kind.replace('_', ' ')} {self.metres:g} m"
        if not self.has_file:
            return "LiDAR" if self.kind == "lidar" else "known poses"
        return f"the {self.kind.rstrip('s')}s of {self.file}"

    @property
    def has_file(self) -> bool:
        """Whether the source is a file."""
        return self.file != Path()

    @property
    def needs_motion(self) -> bool:
        """Whether the scale comes from the camera's motion in the unit of depth."""
        return self.kind in ("speed", "poses")


def read_scale_source(text: str) -> ScaleSource:
    """The source that `--scale_from TEXT` names.

    >>> read_scale_source("camera_height=1.65")
    ScaleSource(kind='camera_height', metres=1.65, file=PosixPath('.'))
    >>> str(read_scale_source("lidar"))
    'LiDAR'

    Raises:
        UserError: an unknown source, or a length out of range.
    """
    kind, _, value = text.partition("=")
    if kind not in get_args(Kind) or (kind == "lidar" and value) or (kind == "speed" and not value):
        raise UserError(f"--scale_from {text}: {_EXPECTED}")
    if kind not in _IN_METRES:
        return ScaleSource(kind, file=Path(value))  # type: ignore[arg-type]
    low, high = _IN_METRES[kind]
    try:
        metres = float(value)
    except ValueError:
        metres = math.nan
    if not low <= metres <= high:
        raise UserError(f"--scale_from {text}: expected metres between {low:g} and {high:g}")
    return ScaleSource(kind, metres)  # type: ignore[arg-type]
