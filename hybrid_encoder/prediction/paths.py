"""Depth of any image, folder or video: predicts at the model's size, writes pictures and depth maps at the input's
own."""

from __future__ import annotations

import glob
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..colormap import color_range, colorize_disparity, side_by_side
from ..data.calibration import Intrinsics, Undistorter
from ..data.images import (
    IMAGE_SUFFIXES,
    check_crop_bottom,
    cut_bottom,
    kept_rows,
    natural_order,
    read_image,
    resize_image,
)
from ..data.video import VIDEO_SUFFIXES, iterate_video, video_info
from ..errors import UserError
from ..writing import atomic_path

SCALE_MOMENTUM = 0.9
"""How slowly a video's colour scale follows its frames: without it the colours flicker."""
DEPTH_PNG_SCALE = 256.0
COARSE_BELOW = 10.0
"""Where all depth is below this, steps of 1/256 are a part of it that one can see."""
"""Grey levels per metre of KITTI's 16-bit depth images; 0 means unknown, the largest depth is 255.99 m."""


class DepthPredictor(Protocol):
    """Any model that turns images into depth; an implementation is in evaluation mode and knows its own device."""

    height: int
    width: int
    min_depth: float
    max_depth: float

    def disparity(self, image: Tensor) -> Tensor:
        """Inverse depth (1 / depth), (B, 1, height, width), of RGB images (B, 3, height, width) in [0, 1].

        Images come on the CPU and the model moves them; the result may be on any device.
        """


def resize_map(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w) to (height, width), bilinear, float32."""
    return cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


@torch.no_grad()
def predict_disparities(model: DepthPredictor, images: Sequence[np.ndarray]) -> np.ndarray:
    """Inverse depth, float32 (B, model.height, model.width), of uint8 RGB images (h, w, 3) of any sizes."""
    batch = np.stack([resize_image(image, model.height, model.width) for image in images])
    disparity = model.disparity(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255.0)
    if disparity.shape != (len(images), 1, model.height, model.width):
        raise ValueError(f"disparity of shape {tuple(disparity.shape)} for {len(images)} images: expected (B, 1, H, W)")
    return disparity[:, 0].float().cpu().numpy()


def disparity_to_depth(disparity: np.ndarray, min_depth: float, max_depth: float) -> np.ndarray:
    """1 / disparity, clipped to the model's depth limits; float32."""
    return (1.0 / np.clip(disparity, 1.0 / max_depth, 1.0 / min_depth)).astype(np.float32)


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
                disparities = _checked(predict_disparities(model, [image for image, _ in readable]))
                for disparity, (image, paths) in zip(disparities, readable, strict=True):
                    disparity = resize_map(disparity, *image.shape[:2])
                    depth = scale_factor * disparity_to_depth(disparity, model.min_depth, model.max_depth)
                    farthest = max(farthest, float(depth.max()))
                    written += _write_image(disparity, depth, paths)
            bar.update(len(images[start : start + batch_size]))
    for source, paths in videos:
        with _noted(source, unreadable):
            info = video_info(source.path)
            predictor = model if for_video is None else for_video(info.width, info.height)
            frames = (cut_bottom(undistort(frame), crop_bottom) for frame in iterate_video(source.path))
            size = (info.width, kept_rows(info.height, crop_bottom))
            with tqdm(frames, source.path.name, info.frames, unit="frame", disable=not progress) as bar:
                _write_video(predictor, bar, size, info.fps, source.path, paths["video"], batch_size)
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


class SpoiltWeightsError(UserError):
    """The model is at fault, and no input."""


class InputFile(NamedTuple):
    """A file to predict; `named` is True where the user gave its very path."""

    path: Path
    is_video: bool
    named: bool


def find_inputs(inputs: Sequence[str | Path]) -> list[InputFile]:
    """The image and video files that paths, folders and glob patterns stand for, each once, folders and patterns
    sorted, frame_9 before frame_10.

    Raises:
        UserError: a path that does not exist, a named file of another kind, or a folder or pattern with nothing to
            predict.
    """
    found: dict[Path, InputFile] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            visible = (member for member in path.iterdir() if not member.name.startswith("."))
            members = sorted((member for member in visible if member.is_file()), key=natural_order)
        elif path.exists():
            members = [path]
        elif glob.has_magic(str(given)):
            matches = map(Path, glob.glob(str(given), recursive=True))
            members = sorted((match for match in matches if match.is_file()), key=natural_order)
        else:
            raise UserError(f"no such file or folder: {given}")
        usable = [member for member in members if member.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
        if not usable:
            known = " ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
            raise UserError(f"{given}: no image or video among {len(members)} files; known kinds are {known}")
        for member in usable:
            is_video = member.suffix.lower() in VIDEO_SUFFIXES
            found.setdefault(member.resolve(), InputFile(member, is_video, named=member == path))
    if not found:
        raise UserError("nothing to predict: name an image, a folder, a pattern or a video")
    return list(found.values())


def output_stems(paths: Sequence[Path]) -> list[str]:
    """One name per path, all different (also where upper and lower case are one): the stem where it is unique.

    Paths of one stem are told apart by their suffix ("a_jpg", "a_png"), else by as many parent folders as it takes
    ("drive1_0000", "drive2_0000"), else by both; a number is the last resort.
    """
    stems = [path.stem for path in paths]
    for stem in set(map(str.casefold, stems)):
        group = [index for index, path in enumerate(paths) if path.stem.casefold() == stem]
        if len(group) > 1:
            for index, name in zip(group, _telling_names([paths[index].absolute() for index in group]), strict=True):
                stems[index] = name
    taken: set[str] = set()
    for index, stem in enumerate(stems):
        number = 2
        while stems[index].casefold() in taken:
            stems[index] = f"{stem}_{number}"
            number += 1
        taken.add(stems[index].casefold())
    return stems


def _telling_names(paths: Sequence[Path]) -> list[str]:
    names: list[str] = []
    for parents in range(max(len(path.parts) for path in paths)):
        for with_suffix in (False, True):
            names = []
            for path in paths:
                folders = path.parts[1:-1][-parents:] if parents else ()
                names.append("_".join([*folders, path.stem, *([path.suffix[1:]] if with_suffix else [])]))
            if len(set(map(str.casefold, names))) == len(names):
                return names
    return names


@contextmanager
def _noted(source: InputFile, unreadable: list[str]) -> Iterator[None]:
    """Let errors of named files through; keep those of files found in a folder for the end."""
    try:
        yield
    except SpoiltWeightsError:
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


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """uint8 RGB (H, W, 3) or uint16 grey (H, W), written whole or not at all."""
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    with atomic_path(path) as partial:
        if not cv2.imwrite(str(partial), pixels):
            raise UserError(f"cannot write {path}")


def write_depth_png(path: str | Path, depth: np.ndarray) -> None:
    """Depth in metres, (H, W), 0 where unknown, as KITTI's 16-bit PNG; known depths stay within 1/256 and 255.99 m."""
    grey = np.clip(np.round(depth * DEPTH_PNG_SCALE), 1, 65535)
    write_png(path, np.where(depth > 0, grey, 0).astype(np.uint16))


def _checked(disparities: np.ndarray) -> np.ndarray:
    if not np.isfinite(disparities).all():
        raise SpoiltWeightsError(
            "the model's inverse depth is not finite: its weights are damaged, or their training went wrong"
        )
    return disparities


def _write_image(disparity: np.ndarray, depth: np.ndarray, paths: dict[str, Path]) -> list[Path]:
    write_png(paths["disp"], colorize_disparity(disparity))
    write_depth_png(paths["depth"], depth)
    if "npy" in paths:
        with atomic_path(paths["npy"]) as partial:
            np.save(partial, depth)
    return list(paths.values())


def _write_video(
    model: DepthPredictor,
    frames: Iterable[np.ndarray],
    size: tuple[int, int],
    fps: float,
    source: Path,
    target: Path,
    batch_size: int,
) -> None:
    """Frames (H, W, 3), and their disparities beside them; `size` is (W, H)."""
    limits: np.ndarray | None = None
    stream = iter(frames)
    with atomic_path(target) as partial:
        writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*"mp4v"), fps, (2 * size[0], size[1]))
        try:
            if not writer.isOpened():
                raise UserError(
                    f"cannot write the video {target}: the folder cannot be written, no room is left, or this OpenCV "
                    "has no MPEG-4 encoder"
                )
            while batch := list(islice(stream, batch_size)):
                for frame, small in zip(batch, _checked(predict_disparities(model, batch)), strict=True):
                    disparity = resize_map(small, *frame.shape[:2])
                    now = np.array(color_range(disparity))
                    limits = now if limits is None else SCALE_MOMENTUM * limits + (1 - SCALE_MOMENTUM) * now
                    picture = side_by_side(frame, colorize_disparity(disparity, (limits[0], limits[1])))
                    writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        finally:
            writer.release()
        if limits is None:
            raise UserError(f"{source} has no frame that can be read")
