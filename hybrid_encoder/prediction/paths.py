"""Depth of any image, folder or video: predicts at the model's size, writes pictures and depth maps at the input's
own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.calibration import Undistorter
from ..data.video import read_video, video_info
from ..engine.bars import progress_bar
from ..errors import UserError
from ..images import cut_bottom, kept_rows, read_image
from ..model.disparity import disparity_to_depth, is_flat
from ..model.predictor import DepthPredictor, NonFiniteWeightsError, check_finite, predict_disparities, resize_map
from ..writing import NO_ROOM, not_written
from .inputs import InputFile, find_inputs, output_stems
from .pictures import COARSE_BELOW, write_image
from .settings import PredictionSettings
from .video import write_video

ForVideo = Callable[[int, int], DepthPredictor]
"""Makes the model for the frames of a video of some width and height."""


def predict_paths(
    model: DepthPredictor,
    inputs: Sequence[str | Path],
    out: str | Path,
    settings: PredictionSettings | None = None,
    for_video: ForVideo | None = None,
) -> list[Path]:
    """Predict images and videos and write the results into the folder `out`, each at its input's own size.

    An image gives `<stem>_disp.png` (colours, near bright), `<stem>_depth.png` (16-bit, depth x 256, as KITTI's) and,
    on request, `<stem>.npy` (depth, float32 (H, W)). A video gives `<stem>_depth.mp4`: frame and colours side by side,
    all frames on one slowly moving scale (a last row that makes the height odd is lost). Inputs with the same stem get
    names that tell them apart (`output_stems`). Files appear whole or not at all.

    Args:
        inputs: images, videos, folders (their images and videos; other files are passed over) and glob patterns.
        settings: None: the defaults.
        for_video: makes the model for a video; None: `model` sees videos, too.

    Returns:
        The files written.

    Raises:
        UserError: an input is not there or cannot be read, or an output cannot be written. Where a file was named, the
            run stops there; what went wrong with files of a folder or pattern is told at the end, after all others were
            written. Of a damaged video, the depth of the frames before the damage is written.
    """
    settings = settings or PredictionSettings()
    jobs = _plan(inputs, Path(out), settings)
    run = _Run(model, Path(out), settings)
    run.predict_images([job for job in jobs if not job.source.is_video])
    for job in jobs:
        if job.source.is_video:
            run.predict_video(job, for_video)
    if 0 < run.farthest < COARSE_BELOW and not settings.save_npy:
        print(
            f"depth reaches {run.farthest:.2g} in this model's unit, and the 16-bit PNGs have steps of 1/256: "
            "--npy keeps it exactly, --scale_factor makes it metres where the factor is known",
            file=sys.stderr,
        )
    if run.flat:
        print(
            f"flat depth maps, with one depth everywhere: {run.flat}. If their images show more, these weights are not "
            "usable: see the warnings of the run that trained them, or try `hybrid-encoder evaluate`",
            file=sys.stderr,
        )
    if run.failed:
        raise UserError(
            f"{len(run.failed)} of {len(jobs)} files could not be read or written, the other "
            f"{len(jobs) - len(run.failed)} are written to {out}:\n" + "\n".join(run.failed)
        )
    return run.written


class _Job(NamedTuple):
    """An input and the files that it gives, by kind."""

    source: InputFile
    targets: dict[str, Path]


def _plan(inputs: Sequence[str | Path], out: Path, settings: PredictionSettings) -> list[_Job]:
    """Raises UserError where `out` is or lies in a file, or an output would take the place of an input."""
    sources = find_inputs(inputs)
    in_the_way = next((folder for folder in (out, *out.parents) if os.path.exists(folder)), None)
    if in_the_way is not None and not in_the_way.is_dir():
        raise UserError(f"cannot make the folder {out}: {in_the_way} is a file. Choose another folder with --out")
    stems = output_stems([source.path for source in sources])
    jobs = [_Job(source, _targets(out, stem, source, settings)) for source, stem in zip(sources, stems, strict=True)]
    originals = {source.path.resolve() for source in sources}
    for target in (path for job in jobs for path in job.targets.values()):
        if target.resolve() in originals:
            raise UserError(f"the output {target} would overwrite an input: choose another folder with --out")
    return jobs


def _targets(out: Path, stem: str, source: InputFile, settings: PredictionSettings) -> dict[str, Path]:
    if source.is_video:
        return {"video": out / f"{stem}_depth.mp4"}
    targets = {"disp": out / f"{stem}_disp.png", "depth": out / f"{stem}_depth.png"}
    if settings.save_npy:
        targets["npy"] = out / f"{stem}.npy"
    return targets


@dataclass
class _Run:
    """One prediction of many files: what is written so far, and what went wrong."""

    model: DepthPredictor
    out: Path
    settings: PredictionSettings
    written: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    farthest: float = 0.0
    """The largest depth so far."""
    flat: int = 0
    """Depth maps so far, of images and of frames, that show one depth everywhere."""

    def predict_images(self, jobs: Sequence[_Job]) -> None:
        settings, undistort = self.settings, Undistorter(self.settings.camera)
        with progress_bar(what="images", total=len(jobs), unit="image", shown=settings.progress and bool(jobs)) as bar:
            for start in range(0, len(jobs), settings.batch_size):
                batch = jobs[start : start + settings.batch_size]
                readable: list[tuple[np.ndarray, _Job]] = []
                for job in batch:
                    with self._noted(job):
                        image = undistort(read_image(job.source.path))
                        readable.append((cut_bottom(image, settings.crop_bottom), job))
                if readable:
                    disparities = check_finite(predict_disparities(self.model, [image for image, _ in readable]))
                    self._make_folder()
                    for disparity, (image, job) in zip(disparities, readable, strict=True):
                        self.flat += is_flat(disparity)
                        with self._noted(job):
                            self._write_image(resize_map(disparity, *image.shape[:2]), job)
                bar.update(len(batch))

    def _write_image(self, disparity: np.ndarray, job: _Job) -> None:
        depth = self.settings.scale_factor * disparity_to_depth(disparity, self.model.min_depth, self.model.max_depth)
        self.written += write_image(disparity, depth, job.targets)
        self.farthest = max(self.farthest, float(depth.max()))

    def predict_video(self, job: _Job, for_video: ForVideo | None) -> None:
        settings, path, undistort = self.settings, job.source.path, Undistorter(self.settings.camera)
        with self._noted(job):
            info = video_info(path)
            model = self.model if for_video is None else for_video(info.width, info.height)
            frames = (
                frame._replace(image=cut_bottom(undistort(frame.image), settings.crop_bottom))
                for frame in read_video(path)
            )
            kept = info._replace(height=kept_rows(info.height, settings.crop_bottom))
            target = job.targets["video"]
            with progress_bar(frames, path.name, info.frames or None, "frame", settings.progress) as bar:
                try:
                    self.flat += write_video(model, bar, kept, target, settings)
                except OSError as error:
                    raise not_written(target, error) from error
            self.written.append(target)

    def _make_folder(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {self.out}: {error.strerror}") from error
        if not os.access(self.out, os.W_OK):
            raise UserError(f"the folder {self.out} cannot be written: choose another with --out")

    @contextmanager
    def _noted(self, job: _Job) -> Iterator[None]:
        """Keeps errors of files that were found in a folder for the end; others, and a full disk, stop the run."""
        try:
            yield
        except NonFiniteWeightsError:
            raise
        except UserError as error:
            no_room = isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM
            if job.source.named or no_room:
                raise
            self.failed.append(str(error))
