"""The camera's path through a video or a sequence of images, from predicted motions."""

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
    """Any model that tells the camera's motion between two frames; an implementation is in evaluation mode and knows
    its own device."""

    height: int
    width: int
    resize: Resize

    def motions(self, earlier: Tensor, later: Tensor) -> Tensor:
        """(B, 4, 4), maps points of the earlier camera to the later one, of RGB images (B, 3, height, width) in
        [0, 1], which come on the CPU; the result may be on any device."""


def predict_motions(model: PosePredictor, frames: Iterable[np.ndarray], batch_size: int) -> np.ndarray:
    """Motions between frames that follow each other, float64 (N - 1, 4, 4), of uint8 RGB images (h, w, 3).

    Raises:
        UserError: fewer than two frames, or a motion that is not finite.
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
        raise UserError("the predicted motion is not finite: the pose nets' weights are damaged")
    return motions


class CameraPath(NamedTuple):
    """A predicted path."""

    motions: np.ndarray
    """(N - 1, 4, 4) float64, map points of each camera to the next one; translations in the unit of depth."""
    seconds: np.ndarray
    """(N,), of the frames."""


def predict_path(model: PosePredictor, frames: Iterable[VideoFrame], batch_size: int) -> CameraPath:
    """The path through N frames that follow each other.

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
