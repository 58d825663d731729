"""The scale from how far the camera went: known lengths against predicted ones."""

from __future__ import annotations

import numpy as np

from .scale import FrameScale

MIN_METRES = 0.1
"""A camera that goes less between two frames tells nothing: what it is said to go is mostly error."""


def motion_scales(predicted: np.ndarray, metres: np.ndarray) -> list[FrameScale]:
    """What each step of a camera tells of the scale.

    Args:
        predicted: (N, 4, 4) motions between frames that follow each other, translations in the unit of depth.
        metres: (N,), how far the camera went between them.

    >>> motion = np.eye(4)[None].repeat(2, 0)
    >>> motion[:, 2, 3] = -0.2
    >>> [scale.refusal or round(scale.factor, 3) for scale in motion_scales(motion, np.array([1.0, 0.01]))]
    [5.0, 'the camera goes 0.01 m in a frame, at least 0.1 m are expected']
    """
    lengths = np.linalg.norm(predicted[:, :3, 3], axis=1)
    return [_step(float(length), float(known)) for length, known in zip(lengths, metres, strict=True)]


def _step(length: float, metres: float) -> FrameScale:
    if metres < MIN_METRES:
        return FrameScale(0.0, f"the camera goes {metres:.2g} m in a frame, at least {MIN_METRES} m are expected")
    if length <= 0:
        return FrameScale(0.0, "the predicted motion is none")
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
