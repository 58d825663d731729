"""Writes predicted depth: coloured pictures, 16-bit depth, arrays, and videos with frame and depth side by side."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from ..colormap import color_range, colorize_disparity, side_by_side
from ..errors import UserError
from ..model.predictor import DepthPredictor, check_finite, predict_disparities, resize_map
from ..writing import atomic_path

SCALE_MOMENTUM = 0.9
"""How slowly a video's colour scale follows its frames: without it the colours flicker."""


DEPTH_PNG_SCALE = 256.0


COARSE_BELOW = 10.0
"""Where all depth is below this, steps of 1/256 are a part of it that one can see."""


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


def write_image(disparity: np.ndarray, depth: np.ndarray, paths: dict[str, Path]) -> list[Path]:
    write_png(paths["disp"], colorize_disparity(disparity))
    write_depth_png(paths["depth"], depth)
    if "npy" in paths:
        with atomic_path(paths["npy"]) as partial:
            np.save(partial, depth)
    return list(paths.values())


def write_video(
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
                for frame, small in zip(batch, check_finite(predict_disparities(model, batch)), strict=True):
                    disparity = resize_map(small, *frame.shape[:2])
                    now = np.array(color_range(disparity))
                    limits = now if limits is None else SCALE_MOMENTUM * limits + (1 - SCALE_MOMENTUM) * now
                    picture = side_by_side(frame, colorize_disparity(disparity, (limits[0], limits[1])))
                    writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        finally:
            writer.release()
        if limits is None:
            raise UserError(f"{source} has no frame that can be read")
