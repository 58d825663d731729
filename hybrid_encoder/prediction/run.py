"""Runs a prediction: reads each input, predicts it, and writes its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.calibration import Undistorter
from ..data.video import VideoInfo, read_video, video_info
from ..engine.bars import progress_bar
from ..errors import UserError
from ..images import cut_bottom, kept_rows, read_image
from ..model.disparity import disparity_to_depth, is_flat
from ..model.predictor import DepthPredictor, NonFiniteWeightsError, resize_map
from ..writing import NO_ROOM, not_written
from .batches import predict_batch
from .cameras import Cameras, Size
from .clouds import image_cloud
from .jobs import Job
from .overlap import Later, ahead
from .pictures import ImageDepth, write_image
from .scaling import Scale, scale_of_images, scale_of_video
from .settings import PredictionSettings
from .shown_frames import ShownFrames
from .trajectory_files import write_trajectory
from .video import write_video

ForVideo = Callable[[int, int], DepthPredictor]
"""Makes the model for the frames of a video, from their width and height."""


class _Image(NamedTuple):
    """An image between reading and writing."""

    job: Job
    seen: np.ndarray | None
    """uint8 RGB, undistorted and cropped; None if it cannot be read."""
    size: Size = (0, 0)
    """Of the whole image."""


@dataclass
class Run:
    """A prediction of many files.

    Attributes:
        written: files so far.
        failed: messages of inputs that could not be read or written.
    """

    model: DepthPredictor
    out: Path
    cameras: Cameras
    written: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    farthest: float = 0.0
    """Largest depth so far, in the unit that is written."""
    flat: int = 0
    """Number of depth maps so far, of images and frames, with one depth everywhere."""

    @property
    def settings(self) -> PredictionSettings:
        return self.cameras.settings

    def predict_images(self, jobs: Sequence[Job]) -> None:
        """Predicts images, which share one metric scale, and writes their files."""
        if not jobs:
            return
        settings, size, paths = self.settings, self.settings.batch_size, [job.source.path for job in jobs]
        scale = scale_of_images(self.cameras, self.model, paths)
        if settings.scale_from is not None:
            print(scale)
        with (
            progress_bar(what="images", total=len(jobs), unit="image", shown=settings.progress) as bar,
            Later(size) as later,
        ):
            stream = ahead(self._read(jobs), size)
            while batch := list(islice(stream, size)):
                readable = [image for image in batch if image.seen is not None]
                if readable:
                    seen = [image.seen for image in readable if image.seen is not None]
                    self._make_folder()
                    for image, disparity in zip(readable, predict_batch(self.model, seen, settings), strict=True):
                        later(self._write_image, image, disparity, scale)
                bar.update(len(batch))
        if settings.trajectory:
            self.written += write_trajectory(self.cameras, self.out / "trajectory", paths)

    def _read(self, jobs: Sequence[Job]) -> Iterator[_Image]:
        undistort = Undistorter(self.settings.camera)
        for job in jobs:
            image = _Image(job, None)
            with self._noted(job):
                whole = read_image(job.source.path)
                seen = cut_bottom(undistort(whole), self.settings.crop_bottom)
                image = _Image(job, seen, (whole.shape[1], whole.shape[0]))
            yield image

    def _write_image(self, image: _Image, small: np.ndarray, scale: Scale) -> None:
        """Writes an image's files at its own size; `small` is inverse depth (h, w) as the model predicts it."""
        assert image.seen is not None
        self.flat += is_flat(small)
        with self._noted(image.job):
            disparity, limits = resize_map(small, *image.seen.shape[:2]), (self.model.min_depth, self.model.max_depth)
            depth = scale.factor * disparity_to_depth(disparity, *limits)
            cloud = None
            if self.settings.points:
                coarse = scale.factor * disparity_to_depth(small, *limits)
                cloud = image_cloud(image.seen, coarse, self.cameras.intrinsics_of_map(image.size))
            found = ImageDepth(image.seen, disparity / scale.factor, depth, cloud)
            self.written += write_image(found, image.job.targets, self.settings)
            self.farthest = max(self.farthest, float(depth.max()))

    def predict_video(self, job: Job, for_video: ForVideo | None) -> None:
        """Predicts a video and writes its files; `for_video` makes the model for it."""
        settings, path, target = self.settings, job.source.path, job.targets["video"]
        with self._noted(job):
            info = video_info(path)
            size = info.width, info.height
            fresh = partial(for_video, *size) if for_video else lambda: self.model
            shown = self._shown(path, info, fresh())
            kept = info._replace(height=kept_rows(info.height, settings.crop_bottom))
            stream = ahead(self.cameras.seen(read_video(path)), settings.batch_size)
            with progress_bar(stream, path.name, info.frames or None, "frame", settings.progress) as bar:
                try:
                    write_video(fresh(), bar, kept, target, shown)
                except OSError as error:
                    raise not_written(target, error) from error
            self.written.append(target)
            self.flat += shown.flat
            if settings.points:
                shown.write_points(job.targets["points"])
                self.written.append(job.targets["points"])
            for line in shown.report():
                print(f"{path}: {line}")
            if settings.trajectory:
                trajectory = self.out / f"{target.stem.removesuffix('_depth')}_trajectory"
                self.written += write_trajectory(self.cameras, trajectory, (), path)

    def _shown(self, path: Path, info: VideoInfo, model: DepthPredictor) -> ShownFrames:
        """The receiver of a video's frames; finds out the scale and the path first."""
        if self.settings.points and not self.cameras.knows_paths:
            raise UserError(
                f"--points of the video {path}: the camera's path is not known. Give weights of a run with pose nets, "
                "or a file of the path with --poses"
            )
        size = info.width, info.height
        scale = scale_of_video(self.cameras, model, path, size)
        shown = ShownFrames(self.cameras, model, scale)
        if self.cameras.knows_camera and self.cameras.knows_paths:
            shown.follow_path(self.cameras.poses_of_video(path), partial(self.cameras.intrinsics_of_map, size))
        return shown

    def _make_folder(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {self.out}: {error.strerror}") from error
        if not os.access(self.out, os.W_OK):
            raise UserError(f"the folder {self.out} cannot be written: choose another with --out")

    @contextmanager
    def _noted(self, job: Job) -> Iterator[None]:
        """Collects the errors of files from folders and patterns; other errors, and a full disk, stop the run."""
        try:
            yield
        except NonFiniteWeightsError:
            raise
        except UserError as error:
            no_room = isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM
            if job.source.named or no_room:
                raise
            self.failed[job.source.path] = str(error)
