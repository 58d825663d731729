"""The metric scale from the camera's motion: known over predicted distances."""

from __future__ import annotations

import numpy as np

from .alignment import Alignment
from .scale import FrameScale

MIN_METRES = 0.1
"""Shorter motions between two frames give no scale: measured distances that short are mostly error."""
MAX_ERROR = 0.75
"""Largest error of an alignment that is believed."""


def motion_scale(found: Alignment, metres: float) -> FrameScale:
    """The scale from the motion between two frames.

    >>> motion = np.eye(4)
    >>> motion[2, 3] = -0.2
    >>> motion_scale(Alignment(motion, 0.4), 1.0)
    FrameScale(factor=5.0, refusal='')
    >>> motion_scale(Alignment(motion, 0.4), 0.01).refusal
    'the camera moves by 0.01 m, expected at least 0.1 m between two frames'

    Args:
        found: the motion, in the unit of depth.
        metres: known distance that the camera moved.
    """
    if metres < MIN_METRES:
        return FrameScale(
            0.0, f"the camera moves by {metres:.2g} m, expected at least {MIN_METRES} m between two frames"
        )
    length = float(np.linalg.norm(found.motion[:3, 3]))
    if found.error > MAX_ERROR or not length:
        return FrameScale(
            0.0, f"depth and motion explain {max(1 - found.error, 0):.0%} of what changes between two frames"
        )
    return FrameScale(metres / length)


def steps_of(poses: np.ndarray) -> np.ndarray:
    """The distances (N - 1,) between consecutive poses (N, 4, 4), world from camera, in the unit of the poses."""
    steps: np.ndarray = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    return steps


def steps_of_speeds(seconds: np.ndarray, speeds: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The distances (N - 1,) in metres that the camera moves between frames, from its measured speed.

    The distance is the integral of the speed. The speed is linear between measurements, and constant before the first
    and after the last one.

    Args:
        seconds, speeds: (M,), times of the measurements, ascending, and metres per second.
        frames: (N,), times of the frames in seconds.

    >>> steps_of_speeds(np.array([0.0, 1.0]), np.array([10.0, 20.0]), np.array([0.0, 0.5, 1.0, 2.0])).tolist()
    [6.25, 8.75, 20.0]
    """
    moments = np.unique(np.concatenate([seconds, frames]))
    speed = np.interp(moments, seconds, speeds)
    gone = np.concatenate([[0.0], np.cumsum(np.diff(moments) * (speed[1:] + speed[:-1]) / 2)])
    steps: np.ndarray = np.diff(np.interp(frames, moments, gone))
    return steps
