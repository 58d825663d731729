"""Writes videos of frames with their depth beside them: codecs, sizes, rates and moments."""

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
"""Pixels; MPEG-4 ends at 8191, and players of H.264 and VP9 at 8192."""
MAX_PAUSE = 60.0
"""Seconds for which a picture is shown at most: clocks in damaged files jump by hours."""
_LARGEST_RATE = 65535
"""MPEG-4 stores a rate as a fraction, with 16 bits for the numerator."""
_CODECS = {"browser": ("avc1", "vp09", "mp4v"), "mpeg4": ("mp4v",)}
_PROBE_SECONDS = 60


def write_video(
    model: DepthPredictor, frames: Iterable[VideoFrame], info: VideoInfo, target: Path, shown: ShownFrames
) -> None:
    """Predicts frames and writes each with the colours of its depth beside it.

    A pair wider than `MAX_SIDE` is shrunk. Each pair is shown at the moment of its frame. If reading fails after some
    frames, these are written all the same.

    Args:
        info: width, height and rate of the frames.
        shown: makes the pictures.

    Raises:
        UserError: the frames' own, with what was written; the video cannot be encoded or written.
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
    """A video of pairs of pictures that OpenCV writes at a constant rate; a picture is repeated for as long as it is
    shown.

    Args:
        name: of the file, as `opencv_path` gives it.
        info: width, height and rate of the left pictures.
        target: what the file will be called, for messages.
        codec: a key of `_CODECS`.
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
        """A picture, uint8 RGB (H, W, 3), and the moment from which it is shown."""
        if (picture.shape[1], picture.shape[0]) != self.size:
            picture = cv2.resize(picture, self.size, interpolation=cv2.INTER_AREA)
        if self._last is None:
            self._start = seconds
        else:
            self._show_until(seconds)
        self._last = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), seconds

    def _show_until(self, seconds: float) -> None:
        """Writes the last picture once, and again until the next one is due."""
        assert self._last is not None
        picture, since = self._last
        self._start += max(seconds - since - MAX_PAUSE, 0.0)
        for _ in range(max(1, round((seconds - self._start) * self.fps) - self._written)):
            self._writer.write(picture)
            self._written += 1

    def check_written(self) -> None:
        """Raises UserError if the closed file lacks pictures: OpenCV says nothing of a full disk."""
        capture = cv2.VideoCapture(self.name)
        found = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found != self._written:
            raise UserError(
                f"{self.target} could not be written ({found} of {self._written} pictures are in it): free some space, "
                "then run again"
            )

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last is not None:
            self._show_until(self._last[1])
        self._writer.release()


def bounded_rate(fps: float) -> float:
    """The nearest rate that MPEG-4 can store and OpenCV writes exactly: with up to three decimals.

    >>> bounded_rate(230.562), bounded_rate(29.97), bounded_rate(30.000187)
    (230.56, 29.97, 30.0)
    """
    digits = next(digits for digits in (3, 2, 1, 0) if fps * 10**digits <= _LARGEST_RATE or not digits)
    return max(round(min(fps, _LARGEST_RATE), digits), 0.001)


def pair_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of two pictures side by side, shrunk so that a codec takes them.

    >>> pair_size(1280, 720), pair_size(4096, 128)
    ((2560, 720), (8190, 127))
    """
    factor = min(1.0, MAX_SIDE / (2 * width), MAX_SIDE / height)
    return 2 * max(1, int(width * factor)), max(2, int(height * factor))


@lru_cache
def usable_codec(codecs: tuple[str, ...], fps: float, size: tuple[int, int]) -> str:
    """The first codec with which OpenCV writes such a video, tried in a process of its own; else the last one."""
    if len(codecs) > 1:
        probe = [sys.executable, str(Path(__file__).with_name("codec_probe.py")), str(fps), *map(str, size), *codecs]
        try:
            done = subprocess.run(probe, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return codecs[-1]  # it is written, if not for browsers
        if done.stdout.strip() in codecs:
            return done.stdout.strip()
    return codecs[-1]
