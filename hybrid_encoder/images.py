"""Reads and resizes images: a damaged, cut-off, missing or ambiguous file is named, never half-decoded."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from .config import MAX_CROP_BOTTOM, MAX_PIXELS, MAX_SIDE, Resize
from .errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
"""The kinds of image files this package reads, in lower case."""

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"
LEAST_16_BIT_PEAK = 1 << 14
"""A 16-bit picture whose brightest value is below this holds 14 bits or fewer, as 10- and 12-bit cameras write them."""
_MOST_OF_16_BITS = (1 << 16) - 1

_SIZE_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_TABLES, _SCAN, _END = 0xC4, 0xDA, 0xD9
_BETWEEN_SCANS = frozenset({_TABLES, _SCAN, _END, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)})
"""JPEG markers that may follow the compressed data of a scan."""
_HOLE = bytes(32)
"""So many zeros in a JPEG's compressed data are a hole, such as an interrupted download leaves."""
_PADDING = b"\x00\xff"
"""Bytes that some cameras put between a JPEG's data and its end."""
_ONES = b"\xff\x00" * 8
"""Eight bytes of ones, as JPEG's compressed data spells them: no code, and as many as a decoder looks ahead."""
_EXACT_DECODER = int(cv2.__version__.split(".")[0]) >= 5
"""Whether OpenCV refuses a JPEG whose data end before the picture does; before version 5 it filled the rest with
grey."""


class _Jpeg(NamedTuple):
    """What a walk over a JPEG's segments finds."""

    size: tuple[int, int] | None
    """Width and height."""
    end: int | None
    """Where its end marker begins, which need not be in the file's last bytes (cameras append to it); None: cut off."""
    sequential: bool
    """One scan that holds the blocks in their order, as nearly all cameras write it."""
    damage: str | None
    """What its compressed data hold that no encoder writes."""


def read_image(path: str | Path) -> np.ndarray:
    """An image file as uint8 (H, W, 3), RGB; grey images get three equal channels, transparency is dropped.

    Of 16 bits a channel the upper 8 are kept. Which bits a picture uses cannot be told from one dark picture, so one
    that leaves the two upper bits unused is refused: every picture of a folder is scaled alike, or named.

    Raises:
        UserError: as `read_pixels`; values that are no 8-bit picture nor the upper part of a 16-bit one.
    """
    image = read_pixels(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image.dtype == np.uint16:
        image = upper_bits(image, f"the image {path}")
    if image.dtype != np.uint8:
        raise UserError(f"the image {path} holds {image.dtype} values: convert it to 8 bits a channel")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def upper_bits(image: np.ndarray, name: str) -> np.ndarray:
    """The upper 8 of 16 bits a channel, uint8 of the same shape.

    >>> upper_bits(np.array([0, 255, 256, 65535]), "a picture").tolist()
    [0, 0, 1, 255]

    Args:
        image: whole numbers from 0 to 65535.
        name: of the image, for messages.

    Raises:
        UserError: it leaves the two upper bits unused: values of another range would come out nearly black.
    """
    low, peak = int(image.min(initial=0)), int(image.max(initial=0))
    if low < 0 or peak > _MOST_OF_16_BITS:
        raise UserError(f"{name} has values from {low} to {peak}: expected 0 to {_MOST_OF_16_BITS}")
    if 0 < peak < LEAST_16_BIT_PEAK:
        raise UserError(
            f"{name} has 16 bits a channel, of which it uses {peak.bit_length()} (its largest value is {peak}): it "
            "would come out nearly black. Convert the whole folder to 8 bits with one factor, e.g. 255/4095 for a "
            "12-bit camera"
        )
    return (image >> 8).astype(np.uint8)


def read_pixels(path: str | Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """An image file as OpenCV decodes it under `flags`: uint8 (H, W, 3) in the order BGR where none are given.

    Raises:
        UserError: the file is missing, cut off, damaged or no image, or it states a size beyond `MAX_SIDE` or
            `MAX_PIXELS`; the size is read before the pixels take memory.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            identity = os.fstat(file.fileno())
            data = file.read()
    except OSError as error:
        raise UserError(f"cannot read the image {path}: {error.strerror or error}") from error
    if not data:
        raise UserError(f"the image {path} is empty (0 bytes): copy or extract it again")
    jpeg = _walk_jpeg(data) if data.startswith(JPEG_START) else None
    _check_size(path, jpeg.size if jpeg else _stated_size(data))
    if jpeg is not None:
        data = _checked_jpeg(path, data, jpeg, (identity.st_dev, identity.st_ino, identity.st_mtime_ns))
    elif data.startswith(PNG_START) and PNG_END not in data:
        raise UserError(f"the image {path} is cut off after {len(data)} bytes: copy or extract it again")
    image = _decode(path, data, flags)
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


def resize_image(image: np.ndarray, height: int, width: int, resize: Resize = "area") -> np.ndarray:
    """(h, w) or (h, w, C) -> (height, width[, C]), without aliasing when it shrinks.

    "area" is a bilinear step to the next whole multiple of the size sought and an average over whole blocks: as good as
    cv2.INTER_AREA, which is slow at factors that are no whole numbers, in less than half the time. "lanczos", for
    uint8 images, is Pillow's filter.
    """
    if image.shape[:2] == (height, width):
        return image
    if resize == "lanczos":
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    blocks_y, blocks_x = -(-image.shape[0] // height), -(-image.shape[1] // width)
    image = cv2.resize(image, (blocks_x * width, blocks_y * height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def known_suffixes() -> str:
    """The kinds of images in words, for messages."""
    return ", ".join(sorted(IMAGE_SUFFIXES))


def _decode(path: Path, data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UserError(f"the image {path} cannot be decoded: {error.err or error}") from error


def _check_size(path: Path, size: tuple[int, int] | None) -> None:
    if size is not None and (max(size) > MAX_SIDE or size[0] * size[1] > MAX_PIXELS):
        raise UserError(
            f"the image {path} states a size of {size[0]}x{size[1]}: expected at most {MAX_SIDE} pixels a side and "
            f"{MAX_PIXELS // 10**6} million in all; make it smaller"
        )


def _stated_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a PNG, BMP or WebP; None of what is too short or another kind."""
    if data.startswith(PNG_START) and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data.startswith(b"BM") and len(data) >= 26:
        sides = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
        width, height = map(abs, sides)  # a negative height is of rows from above to below
        return width, height
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp_size(data)
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if data[12:16] == b"VP8 ":
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        return width, height
    return None


def _walk_jpeg(data: bytes) -> _Jpeg:
    """Walks a JPEG's segments to its end marker.

    A search for the marker alone would find that of the thumbnail, which lies within a segment near the start.
    """
    stream = np.frombuffer(data, np.uint8)
    size, scans, sequential, zeros_are_flat, damage = None, 0, False, True, None
    at = len(JPEG_START)
    while at + 2 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:  # a fill byte
            at += 1
            continue
        if kind == _END:
            return _Jpeg(size, at, sequential and scans == 1, damage)
        start, at = at + 4, at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in _SIZE_MARKERS:
            size = (
                int.from_bytes(data[start + 3 : start + 5], "big"),
                int.from_bytes(data[start + 1 : start + 3], "big"),
            )
            sequential = kind in (0xC0, 0xC1)
        elif kind == _TABLES:
            zeros_are_flat = zeros_are_flat and _zeros_are_flat(data[start:at])
        elif kind == _SCAN:
            scans, start, at = scans + 1, at, _next_marker(stream, at)
            if data[at + 1 : at + 2] and data[at + 1] not in _BETWEEN_SCANS:
                damage = f"the marker FF{data[at + 1]:02X}"
            elif sequential and not zeros_are_flat and _HOLE in data[start:at].rstrip(_PADDING):
                damage = f"a hole of {len(_HOLE)} zeros or more"
            if damage:
                return _Jpeg(size, at, False, damage)
    if scans == 0 and data.endswith(JPEG_END):  # a header that the decoder has to judge
        return _Jpeg(size, len(data) - len(JPEG_END), False, None)
    return _Jpeg(size, None, False, damage)


def _next_marker(stream: np.ndarray, start: int) -> int:
    """Where the compressed data that begin at `start` end: at a marker that is neither a stuffed byte nor a restart."""
    escapes = start + np.flatnonzero(stream[start:-1] == 0xFF)
    kinds = stream[escapes + 1]
    markers = escapes[(kinds != 0) & (kinds != 0xFF) & ((kinds & 0xF8) != 0xD0)]
    return int(markers[0]) if len(markers) else len(stream)


def _zeros_are_flat(tables: bytes) -> bool:
    """Whether zeros spell "no change" in all of a segment's Huffman tables: a flat picture may then be all zeros."""
    at = 0
    while at + 17 < len(tables):
        if tables[at + 17] != 0:  # the symbol of the first code, which consists of zeros
            return False
        at += 17 + sum(tables[at + 1 : at + 17])
    return True


_filled: set[tuple[int, int, int]] = set()
"""JPEG files, by device, inode and time, whose data were found to end with the picture."""


def _checked_jpeg(path: Path, data: bytes, jpeg: _Jpeg, identity: tuple[int, int, int]) -> bytes:
    """What to decode of a JPEG.

    A decoder that loses its place in damaged data warns and continues, and the rest of the picture is shifted or has
    wrong colours. It shows at the end of the data. Where the decoder took too much, they do not suffice: codes of ones
    stand in the place of the end marker, at which a decoder would fill up with grey, so that it refuses. Where it took
    too little, they suffice without their last two bytes. That is tried once for each file, as it takes a decoder run,
    in an eighth of the size.

    Raises:
        UserError: it is cut off or damaged.
    """
    if jpeg.end is None:
        raise UserError(f"the image {path} is cut off after {len(data)} bytes: copy or extract it again")
    if jpeg.damage is not None:
        raise UserError(f"the image {path} is damaged: its data hold {jpeg.damage}: copy or extract it again")
    if not (jpeg.sequential and _EXACT_DECODER):
        return data
    body = data[: jpeg.end]
    if identity not in _filled:
        shortened = body.rstrip(_PADDING)[:-2]
        if _decode(path, shortened, cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None:
            raise UserError(f"the image {path} is damaged: its data exceed the picture: copy or extract it again")
        _filled.add(identity)
    return body + _ONES
