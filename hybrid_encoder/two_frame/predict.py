"""Depth of videos by two-frame models, each frame with the ones before it; of single images, with nothing to match."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..data.video_source import runs_without_gap
from ..errors import UserError
from ..images import kept_rows, read_image
from ..model.predictor import DepthPredictor
from ..prediction.inputs import find_inputs
from ..prediction.paths import predict_paths
from ..prediction.settings import PredictionSettings
from ..prediction.trajectory import PosePredictor
from .predictor import TwoFrameModel

_log = logging.getLogger(__name__)


def predict_two_frame(
    model: TwoFrameModel,
    inputs: Sequence[str | Path],
    out: str | Path,
    settings: PredictionSettings | None = None,
    sequence: bool = False,
    poses: PosePredictor | None = None,
) -> list[Path]:
    """Predicts images and videos and writes what `predict_paths` writes.

    Args:
        model: a two-frame model; videos need it to know the camera.
        settings: with the camera of all inputs; None: the defaults.
        sequence: the images are frames of one video, in the order given; else each is seen on its own.
        poses: as of `predict_paths`.

    Returns:
        The files written.

    Raises:
        UserError: as `predict_paths`; a video or sequence without a camera.
    """
    settings = settings or PredictionSettings()
    camera = settings.camera
    found = find_inputs(inputs)
    if camera is None and (sequence or any(file.is_video for file in found)):
        raise UserError(
            "a two-frame model needs the camera of a video: give --intrinsics fx,fy,cx,cy (pixels of its frames) or a "
            "JSON file with K and image_size; single images need none"
        )

    def follow(width: int, height: int) -> DepthPredictor:
        assert camera is not None
        K = camera.for_image(width, height).K
        return model.video(K, width, kept_rows(height, settings.crop_bottom))

    predictor: DepthPredictor = model
    images = [file.path for file in found if not file.is_video]
    if sequence and images:
        _tell_gaps(images)
        height, width = read_image(images[0]).shape[:2]
        predictor = follow(width, height)
    return predict_paths(predictor, inputs, out, settings, follow, poses)


def _tell_gaps(images: Sequence[Path]) -> None:
    """Says where the numbers of a sequence's images leave a gap: what is far apart in time cannot be matched."""
    for run in runs_without_gap([image.stem for image in images])[1:]:
        _log.warning(
            "--sequence: between %s and %s is a gap, and still the one is matched with the other; predict each part by "
            "itself",
            images[run.start - 1].name,
            images[run.start].name,
        )
