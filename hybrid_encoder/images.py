"""Reads and resizes images: a damaged, cut-off or missing file is named, never half-decoded."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from .config import MAX_CROP_BOTTOM
from .errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
"""The kinds of image files this package reads, in lower case."""

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
JPEG_SCAN_HEADER = 0xDA
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"

_MARKER_IN_SCAN = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
"""A marker within a JPEG's compressed data that is neither a stuffed byte nor a restart marker."""


def read_image(path: str | Path) -> np.ndarray:
    """An image file as uint8 (H, W, 3), RGB; grey images get three equal channels, transparency is dropped.

    Raises:
        UserError: as `read_pixels`.
    """
    image = read_pixels(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def read_pixels(path: str | Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """An image file as OpenCV decodes it under `flags`: uint8 (H, W, 3) in the order BGR where none are given.

    Raises:
        UserError: the file is missing, cut off or damaged, or no image. OpenCV below 5 fills what is missing of a
            cut-off JPEG with grey and says nothing, so the end of the file is looked at here.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror or error}") from error
    if not data:
        raise UserError(f"the image {path} is empty (0 bytes): copy or extract it again")
    if _is_cut_off(data):
        raise UserError(f"the image {path} is cut off after {len(data)} bytes: copy or extract it again")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UserError(f"the image {path} cannot be decoded: {error.err or error}") from error
    if image is None:
        raise UserError(f"{path} cannot be decoded as an image: it is damaged, or not one of {known_suffixes()}")
    return image


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sorts numbers in paths by value: frame_9 before frame_10."""
    return [(int(run), "") if run.isdecimal() else (-1, run) for run in re.split(r"(\d+)", path.as_posix()) if run]


def cut_bottom(image: np.ndarray, share: float) -> np.ndarray:
    """(h, w) or (h, w, C) without a share of its rows below, such as a bonnet: a view of the rows that stay."""
    return image[: kept_rows(image.shape[0], share)]


def kept_rows(height: int, crop_bottom: float) -> int:
    """How many of an image's rows stay when a share of them is cut off below.

    Raises:
        UserError: as `check_crop_bottom`.
    """
    check_crop_bottom(crop_bottom)
    return max(1, round(height * (1 - crop_bottom)))


def check_crop_bottom(share: float) -> None:
    """Raises UserError for what is no share of an image's height that can be cut off."""
    if not 0 <= share <= MAX_CROP_BOTTOM:
        raise UserError(
            f"crop_bottom {share}: expected a part of the height, from 0 to {MAX_CROP_BOTTOM} (0.07 cuts 7%)"
        )


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w) or (h, w, C) -> (height, width[, C]), without aliasing when it shrinks.

    A bilinear step to the next whole multiple of the size sought and an average over whole blocks: as good as
    cv2.INTER_AREA, which is slow at factors that are no whole numbers, in less than half the time.
    """
    if image.shape[:2] == (height, width):
        return image
    blocks_y, blocks_x = -(-image.shape[0] // height), -(-image.shape[1] // width)
    image = cv2.resize(image, (blocks_x * width, blocks_y * height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def known_suffixes() -> str:
    """The kinds of images in words, for messages."""
    return ", ".join(sorted(IMAGE_SUFFIXES))


def _is_cut_off(data: bytes) -> bool:
    """True for a JPEG or PNG whose end is missing; the decoders of other kinds notice by themselves."""
    if data.startswith(JPEG_START):
        return not data.endswith(JPEG_END) and not _reaches_jpeg_end(data)
    if data.startswith(PNG_START):
        return PNG_END not in data
    return False


def _reaches_jpeg_end(data: bytes) -> bool:
    """Walk a JPEG's segments to its end marker, which need not be the file's last bytes (cameras append to it).

    A search for the marker alone would find that of the thumbnail, which lies within a segment near the start.
    """
    at = len(JPEG_START)
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:  # fill byte
            at += 1
            continue
        if kind == JPEG_END[1]:
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == JPEG_SCAN_HEADER:
            marker = _MARKER_IN_SCAN.search(data, at)
            if marker is None:
                return False
            if marker.group(1) == JPEG_END[1:]:
                return True
            at = marker.end() - 2
    return False
