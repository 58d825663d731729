"""Writes the files of rendered scenes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from ..data.depth_files import KITTI_PNG_SCALE
from ..writing import not_written

JPEG_QUALITY = 95


def write_jpeg(path: Path, image: Tensor) -> None:
    """Writes an image, uint8 RGB (3, H, W), as JPEG.

    Raises:
        UserError: as `write_bytes`.
    """
    bgr = image.flip(0).permute(1, 2, 0).contiguous().numpy()
    write_image(path, bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def write_depth(path: Path, depth: Tensor) -> None:
    """Writes depth, float32 (1, H, W), metres, 0 where unknown, as a 16-bit PNG in KITTI's scale.

    Raises:
        UserError: as `write_bytes`.
    """
    write_image(path, np.round(depth[0].numpy() * KITTI_PNG_SCALE).clip(0, 65535).astype(np.uint16))


def write_image(path: Path, image: np.ndarray, options: list[int] | None = None) -> None:
    done, data = cv2.imencode(path.suffix, image, options or [])
    if not done:
        raise RuntimeError(f"OpenCV cannot encode {image.shape} as {path.suffix}")
    write_bytes(path, data.tobytes())


def write_lines(path: Path, lines: list[str]) -> None:
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, and creates the folders above it.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise not_written(path, error) from error
