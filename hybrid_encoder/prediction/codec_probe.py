"""A separate program that `video.py` starts: prints the first codec with which the installed OpenCV writes a video.

FFmpeg reports on stderr every codec that it lacks. The caller discards the stderr of this process.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

_TRIAL = (320, 240)
"""Width and height of the trial video: hardware encoders refuse smaller ones."""


def main(arguments: list[str]) -> int:
    """Prints the first usable codec and returns 0; returns 1 if there is none.

    Args:
        arguments: frames per second, width, height, and codecs as four-letter codes, in order of preference.
    """
    fps, size, codecs = float(arguments[0]), (int(arguments[1]), int(arguments[2])), arguments[3:]
    with tempfile.TemporaryDirectory() as folder:
        for codec in codecs:
            file = str(Path(folder, f"{codec}.mp4"))
            if _opens(file, codec, fps, size) and _writes(file, codec, fps):
                print(codec)
                return 0
    return 1


def _opens(file: str, codec: str, fps: float, size: tuple[int, int]) -> bool:
    writer = cv2.VideoWriter(file, cv2.VideoWriter.fourcc(*codec), fps, size)
    opened = writer.isOpened()
    writer.release()
    return opened


def _writes(file: str, codec: str, fps: float) -> bool:
    writer = cv2.VideoWriter(file, cv2.VideoWriter.fourcc(*codec), fps, _TRIAL)
    for grey in (0, 128):
        writer.write(np.full((_TRIAL[1], _TRIAL[0], 3), grey, np.uint8))
    writer.release()
    return cv2.VideoCapture(file).read()[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
