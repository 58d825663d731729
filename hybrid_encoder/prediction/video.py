"""Writes videos of frames beside their depth: codec, size, frame rate and frame times."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from ..data.video import VideoFrame, VideoInfo, opencv_path, until_damage
from ..errors import UserError
from ..model.predictor import DepthPredictor
from ..writing import atomic_path
from .batches import predict_batch
from .overlap import Later
from .shown_frames import ShownFrames

MAX_SIDE = 8190
"""Pixels; MPEG-4 allows 8191, and players of H.264 and VP9 allow 8192."""
MAX_PAUSE = 60.0
"""Longest time in seconds that a picture is shown: time stamps of damaged files jump by hours."""
_LARGEST_RATE = 65535
"""MPEG-4 stores the frame rate as a fraction, with 16 bits for the numerator."""
_CODECS = {"browser": ("avc1", "vp09", "mp4v"), "mpeg4": ("mp4v",)}
_PROBE_SECONDS = 60


def write_video(
    model: DepthPredictor, frames: Iterable[VideoFrame], info: VideoInfo, target: Path, shown: ShownFrames
) -> None:
    """Predicts frames, and writes each beside the colours of its depth, at the time of the frame.

    A pair with a side of more than `MAX_SIDE` pixels is shrunk. If a frame cannot be read, the frames before it are
    written.

    Args:
        info: width, height and frame rate.
        shown: makes the pictures.

    Raises:
        UserError: a frame cannot be read (the message says what was written), or the video cannot be encoded or
            written.
    """
    damage: list[UserError] = []
    stream, settings = until_damage(frames, damage), shown.settings
    with atomic_path(target) as partial, opencv_path(partial) as name:
        with VideoWriter(name, info, target, settings.video_codec) as video, Later(settings.batch_size) as later:

            def write(frame: VideoFrame, disparity: np.ndarray) -> None:
                video.write(shown.picture(frame.image, disparity), frame.seconds)

            while batch := list(islice(stream, settings.batch_size)):
                disparities = predict_batch(model, [frame.image for frame in batch], settings)
                for frame, disparity in zip(batch, disparities, strict=True):
                    later(write, frame, disparity)
        if not shown.count:
            raise damage[0] if damage else UserError(f"no frame for the video {target}")
        video.check_written()
    if damage:
        raise UserError(f"{damage[0]}\nThe {shown.count} frames before that are in {target}") from damage[0]


class VideoWriter:
    """Writes pairs of pictures as a video with a constant frame rate; a picture is repeated until the next one is due.

    Args:
        name: of the file, as `opencv_path` gives it.
        info: width, height and frame rate of the left pictures.
        target: the file's final name, for messages.
        codec: a key of `_CODECS`.

    Raises:
        UserError: OpenCV cannot write such a video there.
    """

    def __init__(self, name: str, info: VideoInfo, target: Path, codec: str) -> None:
        self.name, self.target = name, target
        self.fps, self.size = bounded_rate(info.fps), pair_size(info.width, info.height)
        code = usable_codec(_CODECS[codec], self.fps, self.size)
        self._writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*code), self.fps, self.size)
        self._last: tuple[np.ndarray, float] | None = None
        self._written, self._start = 0, 0.0
        if not self._writer.isOpened():
            raise UserError(
                f"cannot write the video {target} ({self.size[0]}x{self.size[1]}, {self.fps} frames per second, codec "
                f"{code}): its folder cannot be written, no room is left, or this OpenCV lacks the encoder"
            )

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """Adds a picture, uint8 RGB (H, W, 3), that is shown from the time `seconds` on."""
        if (picture.shape[1], picture.shape[0]) != self.size:
            picture = cv2.resize(picture, self.size, interpolation=cv2.INTER_AREA)
        if self._last is None:
            self._start = seconds
        else:
            self._show_until(seconds)
        self._last = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), seconds

    def _show_until(self, seconds: float) -> None:
        """Writes the last picture as often as the constant rate needs until `seconds`, at least once."""
        assert self._last is not None
        picture, since = self._last
        self._start += max(seconds - since - MAX_PAUSE, 0.0)
        for _ in range(max(1, round((seconds - self._start) * self.fps) - self._written)):
            self._writer.write(picture)
            self._written += 1

    def check_written(self) -> None:
        """Raises UserError if the closed file lacks pictures: OpenCV does not report a full disk."""
        capture = cv2.VideoCapture(self.name)
        found = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found != self._written:
            raise UserError(
                f"{self.target} could not be written (it holds {found} of {self._written} pictures): free some space, "
                "then run again"
            )

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last is not None:
            self._show_until(self._last[1])
        self._writer.release()


def bounded_rate(fps: float) -> float:
    """The nearest frame rate that MPEG-4 can store and OpenCV writes exactly: it has up to three decimals.

    >>> bounded_rate(230.562), bounded_rate(29.97), bounded_rate(30.000187)
    (230.56, 29.97, 30.0)
    """
    digits = next(digits for digits in (3, 2, 1, 0) if fps * 10**digits <= _LARGEST_RATE or not digits)
    return max(round(min(fps, _LARGEST_RATE), digits), 0.001)


def pair_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of two pictures side by side, shrunk to what codecs allow.

    >>> pair_size(1280, 720), pair_size(4096, 128)
    ((2560, 720), (8190, 127))
    """
    factor = min(1.0, MAX_SIDE / (2 * width), MAX_SIDE / height)
    return 2 * max(1, int(width * factor)), max(2, int(height * factor))


@lru_cache
def usable_codec(codecs: tuple[str, ...], fps: float, size: tuple[int, int]) -> str:
    """The first codec with which OpenCV writes such a video, tried in a process of its own; if none works, the last."""
    if len(codecs) > 1:
        probe = [sys.executable, str(Path(__file__).with_name("codec_probe.py")), str(fps), *map(str, size), *codecs]
        try:
            done = subprocess.run(probe, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return codecs[-1]  # MPEG-4, which players show and browsers do not
        if done.stdout.strip() in codecs:
            return done.stdout.strip()
    return codecs[-1]
