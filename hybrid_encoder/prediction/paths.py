"""Depth of any image, folder or video: predicts at the model's size, writes pictures and depth maps at the input's
own."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.calibration import Intrinsics, Undistorter
from ..data.video import iterate_video, video_info
from ..errors import UserError
from ..images import (
    check_crop_bottom,
    cut_bottom,
    kept_rows,
    read_image,
)
from ..model.disparity import disparity_to_depth
from ..model.predictor import DepthPredictor, NonFiniteWeightsError, check_finite, predict_disparities, resize_map
from .inputs import InputFile, find_inputs, output_stems
from .pictures import COARSE_BELOW, write_image, write_video

"""Grey levels per metre of KITTI's 16-bit depth images; 0 means unknown, the largest depth is 255.99 m."""


def predict_paths(
    model: DepthPredictor,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    save_npy: bool = False,
    scale_factor: float = 1.0,
    batch_size: int = 4,
    crop_bottom: float = 0.0,
    camera: Intrinsics | None = None,
    for_video: Callable[[int, int], DepthPredictor] | None = None,
    progress: bool = True,
) -> list[Path]:
    """Predict images and videos and write the results into the folder `out`, each at its input's own size.

    An image gives `<stem>_disp.png` (colours, near bright), `<stem>_depth.png` (16-bit, depth x 256, as KITTI's) and,
    on request, `<stem>.npy` (depth, float32 (H, W)). A video gives `<stem>_depth.mp4`: frame and colours side by
    side, all frames on one slowly moving scale (an odd height loses its last row, MPEG-4 has none). Inputs of one
    stem get telling names (`output_stems`). Files appear whole or not at all.

    Args:
        inputs: images, videos, folders (their images and videos; other files are passed over) and glob patterns.
        scale_factor: metres per unit of the model's depth, `STEREO_SCALE_FACTOR` for stereo-trained ones. A monocular
            model's depth is right up to an unknown factor.
        crop_bottom: share of the height cut off below, as in training (a bonnet); what is written lacks those rows.
        camera: of all inputs; where its lens distortion is known, they are undistorted first, as in training.
        for_video: makes the model for the frames of a video of some width and height; None: `model` sees those, too.

    Returns:
        The files written.

    Raises:
        UserError: an input that is not there or cannot be read. Unreadable files that were named stop the run; those
            found in a folder or by a pattern are named at the end, after all others were written.
    """
    check_crop_bottom(crop_bottom)
    if batch_size < 1:
        raise UserError(f"--batch_size {batch_size}: expected at least 1")
    if not 0 < scale_factor < math.inf:
        raise UserError(f"--scale_factor {scale_factor}: expected a number above 0")
    undistort = Undistorter(camera)
    sources = find_inputs(inputs)
    stems = output_stems([source.path for source in sources])
    targets = [
        _targets(Path(out), stem, source.is_video, save_npy) for source, stem in zip(sources, stems, strict=True)
    ]
    originals = {source.path.resolve() for source in sources}
    for target in (path for paths in targets for path in paths.values()):
        if target.resolve() in originals:
            raise UserError(f"the output {target} would overwrite an input: choose another folder with --out")
    written: list[Path] = []
    unreadable: list[str] = []
    farthest = 0.0
    images = [(source, paths) for source, paths in zip(sources, targets, strict=True) if not source.is_video]
    videos = [(source, paths) for source, paths in zip(sources, targets, strict=True) if source.is_video]
    with tqdm(total=len(images), desc="images", unit="image", disable=not progress or not images) as bar:
        for start in range(0, len(images), batch_size):
            readable: list[tuple[np.ndarray, dict[str, Path]]] = []
            for source, paths in images[start : start + batch_size]:
                with _noted(source, unreadable):
                    readable.append((cut_bottom(undistort(read_image(source.path)), crop_bottom), paths))
            if readable:
                disparities = check_finite(predict_disparities(model, [image for image, _ in readable]))
                for disparity, (image, paths) in zip(disparities, readable, strict=True):
                    disparity = resize_map(disparity, *image.shape[:2])
                    depth = scale_factor * disparity_to_depth(disparity, model.min_depth, model.max_depth)
                    farthest = max(farthest, float(depth.max()))
                    written += write_image(disparity, depth, paths)
            bar.update(len(images[start : start + batch_size]))
    for source, paths in videos:
        with _noted(source, unreadable):
            info = video_info(source.path)
            predictor = model if for_video is None else for_video(info.width, info.height)
            frames = (cut_bottom(undistort(frame), crop_bottom) for frame in iterate_video(source.path))
            size = (info.width, kept_rows(info.height, crop_bottom))
            with tqdm(frames, source.path.name, info.frames, unit="frame", disable=not progress) as bar:
                write_video(predictor, bar, size, info.fps, source.path, paths["video"], batch_size)
            written.append(paths["video"])
    if 0 < farthest < COARSE_BELOW and not save_npy:
        print(
            f"depth reaches {farthest:.2g} in this model's unit, and the 16-bit PNGs have steps of 1/256: "
            "--npy keeps it exactly, --scale_factor makes it metres where the factor is known",
            file=sys.stderr,
        )
    if unreadable:
        done = f"the other {len(sources) - len(unreadable)} are written to {out}"
        raise UserError(
            f"{len(unreadable)} of {len(sources)} files could not be read, {done}:\n" + "\n".join(unreadable)
        )
    return written


@contextmanager
def _noted(source: InputFile, unreadable: list[str]) -> Iterator[None]:
    """Let errors of named files through; keep those of files found in a folder for the end."""
    try:
        yield
    except NonFiniteWeightsError:
        raise
    except UserError as error:
        if source.named:
            raise
        unreadable.append(str(error))


def _targets(out: Path, stem: str, is_video: bool, save_npy: bool) -> dict[str, Path]:
    if is_video:
        return {"video": out / f"{stem}_depth.mp4"}
    targets = {"disp": out / f"{stem}_disp.png", "depth": out / f"{stem}_depth.png"}
    if save_npy:
        targets["npy"] = out / f"{stem}.npy"
    return targets
