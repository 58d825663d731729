"""The camera's path through a video or a sequence of images, from predicted motions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..colormap import write_picture
from ..config import Resize
from ..data.calibration import Undistorter
from ..data.poses import write_kitti_poses, write_tum_poses
from ..data.video import VideoFrame, read_video
from ..errors import UserError, naming
from ..evaluation.trajectory import poses_of
from ..images import cut_bottom, read_image, resize_image
from .inputs import InputFile, find_inputs, output_stems
from .map_picture import Path2D, draw_map
from .overlap import ahead
from .settings import PredictionSettings


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


def predict_trajectories(
    model: PosePredictor, inputs: Sequence[str | Path], out: Path, settings: PredictionSettings
) -> list[Path]:
    """Writes the camera's path of every video, and of all images together, which are frames of one sequence.

    `<stem>_trajectory_tum.txt` and `<stem>_trajectory_kitti.txt` hold the poses in the world of the first camera,
    `<stem>_trajectory.png` shows them from above. Of images, the stem is left out, and TUM's times are their numbers.
    Lengths are in the unit of the model's depth, times `settings.scale_factor`.

    Returns:
        The files written.

    Raises:
        UserError: an input cannot be read, has fewer than two frames, or an output cannot be written.
    """
    found = find_inputs(inputs)
    images = [file for file in found if not file.is_video]
    written: list[Path] = []
    for file, stem in zip(found, output_stems([file.path for file in found]), strict=True):
        if file.is_video:
            written += _write(model, read_video(file.path), out / f"{stem}_trajectory", settings, str(file.path))
    if images:
        written += _write(model, _image_frames(images), out / "trajectory", settings, f"{len(images)} images")
    return written


def _image_frames(images: Sequence[InputFile]) -> Iterator[VideoFrame]:
    for number, file in enumerate(images):
        yield VideoFrame(read_image(file.path), float(number))


def _write(
    model: PosePredictor, frames: Iterator[VideoFrame], target: Path, settings: PredictionSettings, name: str
) -> list[Path]:
    """The three files of one path; `target` is their name without its ending."""
    undistort, seconds = Undistorter(settings.camera), list[float]()

    def images() -> Iterator[np.ndarray]:
        for frame in frames:
            seconds.append(frame.seconds)
            yield cut_bottom(undistort(frame.image), settings.crop_bottom)

    with naming(name):
        stream = ahead(images(), settings.batch_size)
        poses = poses_of(predict_motions(model, stream, settings.batch_size))
    poses[:, :3, 3] *= settings.scale_factor
    tum, kitti, picture = (target.with_name(target.name + ending) for ending in ("_tum.txt", "_kitti.txt", ".png"))
    write_tum_poses(tum, poses, seconds)
    write_kitti_poses(kitti, poses)
    write_picture(picture, draw_map([Path2D.of("predicted", poses)]))
    return [tum, kitti, picture]
