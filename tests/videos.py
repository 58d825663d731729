"""Small videos, healthy and odd, made with OpenCV's writer and a few bytes changed."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

CODES = {".avi": "MJPG", ".mkv": "MJPG", ".webm": "VP80"}


def write_video(path: Path, frames: int = 12, size: tuple[int, int] = (48, 96), fps: float = 10) -> Path:
    """A video of (H, W) whose right half becomes greener from frame to frame."""
    path.parent.mkdir(exist_ok=True)
    code = cv2.VideoWriter.fourcc(*CODES.get(path.suffix, "mp4v"))
    writer = cv2.VideoWriter(str(path), code, fps, size[::-1])
    assert writer.isOpened()
    for index in range(frames):
        frame = np.zeros((*size, 3), np.uint8)
        frame[:, size[1] // 2 :, 1] = 100 + 3 * index
        writer.write(frame)
    writer.release()
    return path


def announce_longer(path: Path, factor: float) -> Path:
    """Multiplies the duration that an MKV announces, from which OpenCV guesses the number of frames."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    struct.pack_into(">d", data, at, factor * struct.unpack_from(">d", data, at)[0])
    path.write_bytes(data)
    return path


def pause(path: Path, after: int, frames: int, milliseconds: int) -> Path:
    """Shows the frames of an MKV of 10 frames per second from `after` on so much later."""
    data = path.read_bytes()
    for index in range(frames - 1, after - 1, -1):
        old, new = ((100 * index + late).to_bytes(2, "big") for late in (0, milliseconds))
        assert data.count(b"\x81" + old + b"\x80") == 1
        data = data.replace(b"\x81" + old + b"\x80", b"\x81" + new + b"\x80")
    path.write_bytes(data)
    return path


def trim(path: Path, milliseconds: int) -> Path:
    """Lets an MP4 play so long only, as trimming without encoding does: all frames stay in the file."""
    data = bytearray(path.read_bytes())
    movie = data.index(b"mvhd") + 4
    scale = struct.unpack_from(">I", data, movie + 12)[0]
    struct.pack_into(">I", data, movie + 16, milliseconds * scale // 1000)
    edits = data.index(b"elst") + 4
    assert struct.unpack_from(">I", data, edits + 4)[0] == 1
    struct.pack_into(">I", data, edits + 8, milliseconds * scale // 1000)
    path.write_bytes(data)
    return path
