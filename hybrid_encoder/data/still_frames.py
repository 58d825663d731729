"""Which frames of a video to learn from: where the picture hardly moves, neighbours tell nothing of depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np

_WIDTH = 160
"""Pixels of the pictures that are compared."""
_QUANTILE = 0.75
"""The motion that three of four pixels stay below: the sky stands still on the fastest road, and a passing car moves
past one that stands."""


class Readable(Protocol):
    """Frames that are read at random."""

    def read(self, number: int) -> np.ndarray:
        """uint8 RGB (h, w, 3)."""
        ...


def moving_frames(frames: Readable, numbers: Sequence[int], min_motion: float) -> Iterator[int]:
    """The first of frames that follow each other, and every one whose picture has moved far enough since the last of
    these.

    Args:
        frames: to read.
        numbers: of the frames, in order.
        min_motion: how far three quarters of the picture may move at most for a frame to be left out, as a share of
            its width.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    last: np.ndarray | None = None
    for number in numbers:
        picture = _small(frames.read(number))
        if last is not None and motion(flow, last, picture) < min_motion:
            continue
        last = picture
        yield number


def motion(flow: cv2.DISOpticalFlow, before: np.ndarray, after: np.ndarray) -> float:
    """How far a picture has moved, grey (h, w) both, as a share of its width."""
    field = flow.calc(before, after, np.zeros((*before.shape, 2), np.float32))
    return float(np.quantile(np.linalg.norm(field, axis=2), _QUANTILE)) / before.shape[1]


def _small(image: np.ndarray) -> np.ndarray:
    height = max(round(_WIDTH * image.shape[0] / image.shape[1]), 32)
    return cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (_WIDTH, height), interpolation=cv2.INTER_AREA)
