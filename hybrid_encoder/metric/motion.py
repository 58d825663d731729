"""The scale from how far the camera went: known lengths against predicted ones."""

from __future__ import annotations

import numpy as np

from .alignment import Alignment
from .scale import FrameScale

MIN_METRES = 0.1
"""A camera that goes less between two frames tells nothing: what it is said to go is mostly error."""
MAX_ERROR = 0.75
"""Largest error of an alignment that is believed."""


def motion_scale(found: Alignment, metres: float) -> FrameScale:
    """What one step of a camera tells of the scale.

    >>> motion = np.eye(4)
    >>> motion[2, 3] = -0.2
    >>> motion_scale(Alignment(motion, 0.4), 1.0)
    FrameScale(factor=5.0, refusal='')
    >>> motion_scale(Alignment(motion, 0.4), 0.01).refusal
    'the camera goes 0.01 m in a frame, at least 0.1 m are expected'

    Args:
        found: the step, in the unit of depth.
        metres: how far the camera went.
    """
    if metres < MIN_METRES:
        return FrameScale(0.0, f"the camera goes {metres:.2g} m in a frame, at least {MIN_METRES} m are expected")
    length = float(np.linalg.norm(found.motion[:3, 3]))
    if found.error > MAX_ERROR or not length:
        return FrameScale(0.0, f"depth and motion explain {1 - found.error:.0%} of what changes between two frames")
    return FrameScale(metres / length)


def steps_of(poses: np.ndarray) -> np.ndarray:
    """How far the camera goes between poses (N, 4, 4), world from camera: (N - 1,)."""
    steps: np.ndarray = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    return steps


def steps_of_speeds(seconds: np.ndarray, speeds: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """How far the camera goes between frames, from its measured speed: (N - 1,) metres.

    The distance is the integral of the speed, linear between measurements; before the first and after the last one the
    speed is theirs.

    Args:
        seconds, speeds: (M,), when the speed was measured, growing, and metres per second.
        frames: (N,), seconds of the frames.

    >>> steps_of_speeds(np.array([0.0, 1.0]), np.array([10.0, 20.0]), np.array([0.0, 0.5, 1.0, 2.0])).tolist()
    [6.25, 8.75, 20.0]
    """
    moments = np.unique(np.concatenate([seconds, frames]))
    speed = np.interp(moments, seconds, speeds)
    gone = np.concatenate([[0.0], np.cumsum(np.diff(moments) * (speed[1:] + speed[:-1]) / 2)])
    steps: np.ndarray = np.diff(np.interp(frames, moments, gone))
    return steps
