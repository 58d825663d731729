"""The metric scale from the camera's motion: known over predicted distances."""

from __future__ import annotations

import numpy as np

from .scale import FrameScale

MIN_METRES = 0.1
"""Shorter motions between two frames give no scale: measured distances that short are mostly error."""


def motion_scales(predicted: np.ndarray, metres: np.ndarray) -> list[FrameScale]:
    """The scale from each motion between two frames.

    Args:
        predicted: (N, 4, 4), motions between consecutive frames, translations in the unit of depth.
        metres: (N,), known distances that the camera moved.

    >>> motion = np.eye(4)[None].repeat(2, 0)
    >>> motion[:, 2, 3] = -0.2
    >>> [scale.refusal or round(scale.factor, 3) for scale in motion_scales(motion, np.array([1.0, 0.01]))]
    [5.0, 'the camera moves by 0.01 m, expected at least 0.1 m between two frames']
    """
    lengths = np.linalg.norm(predicted[:, :3, 3], axis=1)
    return [_step(float(length), float(known)) for length, known in zip(lengths, metres, strict=True)]


def _step(length: float, metres: float) -> FrameScale:
    if metres < MIN_METRES:
        return FrameScale(
            0.0, f"the camera moves by {metres:.2g} m, expected at least {MIN_METRES} m between two frames"
        )
    if length <= 0:
        return FrameScale(0.0, "the predicted motion is zero")
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
