"""Depth of videos by two-frame models, each frame with the ones before it; of single images, with nothing to match."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hybrid_encoder.data.calibration import read_intrinsics
from hybrid_encoder.data.images import kept_rows, read_image
from hybrid_encoder.data.video import video_info
from hybrid_encoder.errors import UserError
from hybrid_encoder.prediction import DepthPredictor, find_inputs, output_stems, predict_paths

from .two_frame_model import TwoFrameModel


def predict_two_frame(
    model: TwoFrameModel,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    intrinsics: str | None = None,
    sequence: bool = False,
    save_npy: bool = False,
    scale_factor: float = 1.0,
    batch_size: int = 4,
    crop_bottom: float = 0.0,
    progress: bool = True,
) -> list[Path]:
    """Predicts images and videos and writes what `predict_paths` writes.

    Args:
        model: a two-frame model; videos need it to know the camera.
        intrinsics: "fx,fy,cx,cy" in pixels of the frames, or a JSON file; of all videos given.
        sequence: the images are frames of one video, in the order given; else each is seen on its own.
        save_npy, scale_factor, batch_size, crop_bottom, progress: as `predict_paths` takes them.

    Returns:
        The files written.

    Raises:
        UserError: as `predict_paths`; a video or sequence without intrinsics, or two videos of one name.
    """
    found = find_inputs(inputs)
    images = [file.path for file in found if not file.is_video]
    videos = [file.path for file in found if file.is_video]
    if intrinsics is None and (videos or sequence):
        raise UserError(
            "a two-frame model needs the camera of a video: give --intrinsics fx,fy,cx,cy (pixels of its frames) or a "
            "JSON file with K and image_size; single images need none"
        )
    if output_stems(videos) != [path.stem for path in videos]:
        raise UserError("two of the videos have one name: predict them into folders of their own")
    settings = {"save_npy": save_npy, "scale_factor": scale_factor, "batch_size": batch_size}
    settings |= {"crop_bottom": crop_bottom, "progress": progress}
    written: list[Path] = []
    if images:
        predictor: DepthPredictor = model
        if sequence:
            height, width = read_image(images[0]).shape[:2]
            predictor = _follow(model, intrinsics, width, height, crop_bottom)
        written += predict_paths(predictor, images, out, **settings)  # type: ignore[arg-type]
    for video in videos:
        info = video_info(video)
        predictor = _follow(model, intrinsics, info.width, info.height, crop_bottom)
        written += predict_paths(predictor, [video], out, **settings)  # type: ignore[arg-type]
    return written


def _follow(
    model: TwoFrameModel, intrinsics: str | None, width: int, height: int, crop_bottom: float
) -> DepthPredictor:
    assert intrinsics is not None
    K = read_intrinsics(intrinsics).for_image(width, height).K
    return model.video(K, width, kept_rows(height, crop_bottom))
