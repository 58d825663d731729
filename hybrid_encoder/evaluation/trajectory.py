"""Compares camera motion with known motion: the field's error of short snippets, and trajectories from motions.

Poses are 4 x 4 matrices that map points from a camera to the world. A motion maps points from a camera to the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SNIPPET_FRAMES = 5
"""Frames of a snippet in published errors of odometry."""


@dataclass(frozen=True)
class TrajectoryResult:
    """The result of an evaluation of odometry."""

    errors: tuple[float, ...]
    """Absolute trajectory error of each snippet, metres."""
    frames: int
    """Number of frames in all drives."""

    def __str__(self) -> str:
        return (
            f"absolute trajectory error, {SNIPPET_FRAMES}-frame snippets: {np.mean(self.errors):.4f} m, std "
            f"{np.std(self.errors):.4f}; {len(self.errors)} snippets of {self.frames} frames"
        )


def motions_of(poses: np.ndarray) -> np.ndarray:
    """(N, 4, 4) poses -> (N - 1, 4, 4) motions.

    >>> poses = np.tile(np.eye(4), (2, 1, 1))
    >>> poses[1, 2, 3] = 3.0  # the camera moves 3 ahead, so points come 3 nearer
    >>> motions_of(poses)[0, :3, 3].tolist()
    [0.0, 0.0, -3.0]
    """
    return np.linalg.inv(poses[1:]) @ poses[:-1]


def poses_of(motions: np.ndarray) -> np.ndarray:
    """(N, 4, 4) motions -> (N + 1, 4, 4) poses, in the world of the first camera.

    >>> motion = np.eye(4)
    >>> motion[2, 3] = -3.0
    >>> poses_of(np.stack([motion, motion]))[:, 2, 3].tolist()
    [0.0, 3.0, 6.0]
    """
    poses = [np.eye(4)]
    for motion in motions:
        poses.append(poses[-1] @ np.linalg.inv(motion))
    return np.stack(poses)


def snippet_errors(truth: np.ndarray, predicted: np.ndarray, frames: int = SNIPPET_FRAMES) -> np.ndarray:
    """Absolute trajectory error of the snippets that begin at each frame (Zhou et al. 2017, section 4.2,
    https://arxiv.org/abs/1704.07813), as Monodepth2's `evaluate_pose.py` computes it.

    Two habits of that script are kept, so that numbers are comparable with published ones. Motions are chained as
    M_0 M_1 M_2 ..., without inverting them. The error is the root of the sum of squares, divided by the number of
    positions. Snippets at the end of a drive are shorter.

    Args:
        truth, predicted: motions (N, 4, 4), N at least 1. The predicted ones may have any scale: each snippet is
            scaled by the factor with the least squared error.

    Returns:
        (N,), in the unit of the truth.

    Raises:
        ValueError: the shapes differ, or there is no motion.
    """
    if truth.shape != predicted.shape or not len(truth):
        raise ValueError(f"expected as many motions of both kinds, at least 1, got {truth.shape} and {predicted.shape}")
    starts = range(len(truth))
    return np.array([_error(*(_positions(m[i : i + frames - 1]) for m in (truth, predicted))) for i in starts])


def _positions(motions: np.ndarray) -> np.ndarray:
    """(n + 1, 3), the positions along a chain of n motions, the origin first."""
    chained = [np.eye(4)]
    for motion in motions:
        chained.append(chained[-1] @ motion)
    return np.stack(chained)[:, :3, 3]


def _error(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The error of positions (n, 3) that both begin at the origin, after scaling by least squares."""
    length = float(np.sum(predicted**2))
    scale = float(np.sum(truth * predicted)) / length if length else 0.0
    return float(np.sqrt(np.sum((scale * predicted - truth) ** 2)) / len(truth))
