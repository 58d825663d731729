"""The camera's path through a video or an image sequence, from predicted motions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..config import Resize
from ..data.video import VideoFrame
from ..errors import UserError
from ..images import resize_image


class PosePredictor(Protocol):
    """Any model that predicts the camera's motion between two frames. An implementation is in evaluation mode and moves
    its inputs to its own device."""

    height: int
    width: int
    resize: Resize

    def motions(self, earlier: Tensor, later: Tensor) -> Tensor:
        """The motions (B, 4, 4) that map points of the earlier camera to the later one, on any device.

        Args:
            earlier, later: RGB images (B, 3, height, width) in [0, 1], on the CPU.
        """


def predict_motions(model: PosePredictor, frames: Iterable[np.ndarray], batch_size: int) -> np.ndarray:
    """Motions between consecutive frames, float64 (N - 1, 4, 4).

    Args:
        frames: N images, uint8 RGB (h, w, 3).

    Raises:
        UserError: fewer than two frames, or a non-finite motion.
    """
    stream = (torch.from_numpy(resize_image(frame, model.height, model.width, model.resize)) for frame in frames)
    last = list(islice(stream, 1))
    found: list[np.ndarray] = []
    while batch := list(islice(stream, batch_size)):
        images = torch.stack([*last, *batch]).permute(0, 3, 1, 2).float() / 255
        found.append(model.motions(images[:-1], images[1:]).double().cpu().numpy())
        last = batch[-1:]
    if not found:
        raise UserError(f"a trajectory needs at least two frames, found {len(last)}")
    motions = np.concatenate(found)
    if not np.isfinite(motions).all():
        raise UserError("the predicted motion is non-finite: the weights of the pose nets are damaged")
    return motions


class CameraPath(NamedTuple):
    """A predicted path."""

    motions: np.ndarray
    """(N - 1, 4, 4) float64, map points of each camera to the next one; translations in the model's unit of depth."""
    seconds: np.ndarray
    """(N,), times of the frames."""


def predict_path(model: PosePredictor, frames: Iterable[VideoFrame], batch_size: int) -> CameraPath:
    """The path through N consecutive frames.

    Raises:
        UserError: as `predict_motions`.
    """
    seconds: list[float] = []

    def images() -> Iterator[np.ndarray]:
        for frame in frames:
            seconds.append(frame.seconds)
            yield frame.image

    motions = predict_motions(model, images(), batch_size)
    return CameraPath(motions, np.array(seconds))
