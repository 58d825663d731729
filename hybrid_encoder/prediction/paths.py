"""Depth of any image, folder or video: predicted at the model's size, written at the input's size."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..model.predictor import DepthPredictor
from .cameras import Cameras
from .jobs import plan
from .pictures import COARSE_BELOW
from .run import ForVideo, Run
from .settings import PredictionSettings
from .trajectory import PosePredictor


def predict_paths(
    model: DepthPredictor,
    inputs: Sequence[str | Path],
    out: str | Path,
    settings: PredictionSettings | None = None,
    for_video: ForVideo | None = None,
    poses: PosePredictor | None = None,
) -> list[Path]:
    """Predicts images and videos, and writes the results into the folder `out`, each at the size of its input.

    An image gives `<stem>_disp.png` (colours, near is bright), `<stem>_depth.png` (16 bits, depth x 256, as in KITTI),
    `<stem>_pair.jpg` (image and colours side by side, with a legend) and, on request, `<stem>.npy` (depth, float32
    (H, W)) and `<stem>.ply` (coloured points). A video gives `<stem>_depth.mp4`: each frame beside its colours, whose
    scale changes slowly from frame to frame; a last row that makes the height odd is lost. On request it also gives
    `<stem>.ply`, the points of all its frames. Inputs with the same stem get different names (`output_stems`). A file
    is written whole or not at all. The estimated scale and consistency are printed.

    Args:
        inputs: images, videos, folders (their images and videos; other files are skipped) and glob patterns.
        settings: None: the defaults.
        for_video: makes the model for a video; None: `model` predicts videos, too.
        poses: pose nets, for trajectories, points of videos and everything else that needs the camera's motion.

    Returns:
        The files written.

    Raises:
        UserError: an input is missing or unreadable, its scale cannot be estimated, or an output cannot be written.
            An error of a file that the caller named stops the run. Errors of files from a folder or pattern are
            raised together at the end, after all other files are written. Of a damaged video, the frames before the
            damage are written.
    """
    settings = settings or PredictionSettings()
    jobs = plan(inputs, Path(out), settings)
    run = Run(model, Path(out), Cameras(settings, poses))
    run.predict_images([job for job in jobs if not job.source.is_video])
    for job in jobs:
        if job.source.is_video:
            run.predict_video(job, for_video)
    _warn(run, settings)
    if run.failed:
        raise UserError(
            f"{len(run.failed)} of {len(jobs)} files could not be read or written, the other "
            f"{len(jobs) - len(run.failed)} are written to {out}:\n"
            + "\n".join(run.failed[job.source.path] for job in jobs if job.source.path in run.failed)
        )
    return run.written


def _warn(run: Run, settings: PredictionSettings) -> None:
    """Warns of depth that 16-bit PNGs hold coarsely, and of flat depth maps."""
    if 0 < run.farthest < COARSE_BELOW and not settings.save_npy:
        print(
            f"depth reaches {run.farthest:.2g} in this model's unit, and the 16-bit PNGs have steps of 1/256: "
            "--npy keeps it exactly, --scale_factor or --scale_from makes it metres",
            file=sys.stderr,
        )
    if run.flat:
        print(
            f"flat depth maps, with one depth everywhere: {run.flat}. If their images show more, these weights are not "
            "usable: see the warnings of the run that trained them, or try `hybrid-encoder evaluate`",
            file=sys.stderr,
        )
