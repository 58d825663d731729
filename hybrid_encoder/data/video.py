"""Reads video files from start to end: their frames with time stamps, and whether the file is complete."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..errors import UserError
from .containers import Declared, read_container

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob"}
    | {".flv", ".wmv", ".asf", ".ogv", ".mxf"}
)
"""Suffixes of the video files that this package reads, in lower case."""

_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<", b"v=0")
"""Beginnings of text files that would make FFmpeg read other files or addresses."""
DEFAULT_FPS = 25.0
MAX_FRAMES = 1e8
"""A larger announced number of frames (40 days) is taken as unknown."""
_RATE_FRAMES = 60
"""How many frames at the start are used to measure the rate."""
_MORE_TRIES = 500
"""How many frames are tried after a frame that cannot be decoded: if one of them can be decoded, the file is damaged,
else it has ended."""
_SHORT = 0.9
"""A video that ends before this share of its announced length gets a warning. Many files announce a little too much."""

_log = logging.getLogger(__name__)


class VideoInfo(NamedTuple):
    """What a video file states about its frames."""

    width: int
    height: int
    frames: int
    """The announced number; 0: unknown. It is an estimate: never refuse a video because of it."""
    fps: float
    """Frames per second at the start of the video, as if all its frames were shown equally long."""


class VideoFrame(NamedTuple):
    """A decoded frame and the moment at which it is shown."""

    image: np.ndarray
    """uint8 RGB (H, W, 3)."""
    seconds: float
    """Time stamp; 0 or out of order where the file has none."""


def video_info(path: str | Path) -> VideoInfo:
    """Size, number of frames and rate of a video file; the size is that of its first frame, turned upright.

    Raises:
        UserError: missing file, or no video that can be decoded.
    """
    with _open(path) as capture:
        first = capture.next()
        if first is None:
            raise UserError(f"the video {path} has no frame that can be decoded")
        height, width = first.image.shape[:2]
        return VideoInfo(width, height, capture.announced, capture.rate_from(first.seconds))


def iterate_video(path: str | Path) -> Iterator[np.ndarray]:
    """The frames of a video file in order, each uint8 RGB (H, W, 3); errors as of `read_video`."""
    return (frame.image for frame in read_video(path))


def read_video(path: str | Path) -> Iterator[VideoFrame]:
    """The frames of a video file in order, with their time stamps.

    A file counts as damaged if a frame cannot be decoded and a later one can, or if the file is smaller than it
    declares and frames are missing. The announced number of frames is no proof: WebM has none, and a trimmed MP4 counts
    frames that are not shown.

    Raises:
        UserError: a missing file; a damaged file, after its last readable frame; or frames of several sizes.
    """
    with _open(path) as capture:
        count, shape, last = 0, None, 0.0
        while (frame := capture.next()) is not None:
            shape = shape or frame.image.shape
            if frame.image.shape != shape:
                raise UserError(f"the video {path} changes its size at frame {count}: cut it there")
            yield frame
            count, last = count + 1, frame.seconds
        if not count:
            raise UserError(f"the video {path} has no frame that can be decoded")
        capture.check_end(count, last)


def until_damage(frames: Iterable[VideoFrame], damage: list[UserError]) -> Iterator[VideoFrame]:
    """The frames up to the first error, which is appended to `damage`."""
    try:
        yield from frames
    except UserError as error:
        damage.append(error)


def check_video_suffix(path: Path) -> None:
    """Raises `UserError` for a file without a video's suffix."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"{path} is not named as a video: known kinds are {' '.join(sorted(VIDEO_SUFFIXES))}")


@contextmanager
def opencv_path(path: str | Path) -> Iterator[str]:
    """A name of the file that OpenCV's video functions can use.

    These crash on names that are no UTF-8: such files get a link. They take "12:30.mp4" as an address: so the name is
    absolute.
    """
    path = Path(path).absolute()
    if _is_utf8(path):
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"video{path.suffix if _is_utf8(path.suffix) else ''}"
        if not _is_utf8(link):
            raise UserError(f"{link.parent} has a name that OpenCV cannot read: set TMPDIR to another folder")
        os.symlink(path, link)
        yield str(link)


def _is_utf8(name: str | Path) -> bool:
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _open(path: str | Path) -> Iterator[_Capture]:
    """The video, open until the block ends.

    Raises:
        UserError: missing or unreadable file, a text that names other files, or no video.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no video at {path}")
    try:
        with path.open("rb") as file:
            start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        declared = read_container(path)
    except OSError as error:
        raise UserError(f"cannot read the video {path}: {error.strerror}") from error
    if start.startswith(_PLAYLISTS):
        raise UserError(f"{path} is a text that names other files, no video: give the videos themselves")
    with opencv_path(path) as name:
        capture = cv2.VideoCapture(name)
        try:
            if not capture.isOpened():
                raise UserError(f"{path} cannot be opened as a video: it is damaged, cut off, or of an unknown kind")
            yield _Capture(path, capture, declared)
        finally:
            capture.release()


def _is_rate(fps: float) -> bool:
    """Whether a video can have this frame rate; damaged headers and time stamps give any number."""
    return 0.1 <= fps <= 1e4


class _Capture:
    """An open video: reads its frames one after the other, and checks its end."""

    def __init__(self, path: Path, capture: cv2.VideoCapture, declared: Declared) -> None:
        self.path, self.capture, self.declared = path, capture, declared
        announced, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        self.announced = round(announced) if 0 < announced < MAX_FRAMES else 0
        self.fps = fps if _is_rate(fps) else DEFAULT_FPS
        self._started = self._damaged = False

    def next(self) -> VideoFrame | None:
        """The next frame; None after the last one, or at the first damaged one.

        Frames at the start that cannot be decoded are skipped: recordings of a broadcast begin in the middle of a
            frame.
        """
        pixels = self._decoded()
        if pixels is None:
            tries = (self._decoded() for _ in range(_MORE_TRIES))
            pixels = next((later for later in tries if later is not None), None)
            self._damaged = pixels is not None and self._started
            if self._damaged or pixels is None:
                return None
        self._started = True
        return VideoFrame(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), self._seconds())

    def _decoded(self) -> np.ndarray | None:
        """The next frame, BGR; None where it cannot be decoded, of which OpenCV may make an image without pixels."""
        if not self.capture.grab():
            return None
        found, pixels = self.capture.retrieve()
        return pixels if found and pixels.size else None

    def rate_from(self, first: float) -> float:
        """Frames per second by the time stamps of the next frames; the announced rate, if it agrees with them.

        If frames are shown for different times, the announced rate may be an average or a guess.
        """
        stamps = [first]
        while len(stamps) < _RATE_FRAMES and self.capture.grab():
            stamps.append(self._seconds())
        steps = np.diff(stamps)
        if not len(steps) or steps.min() <= 0:
            return self.fps
        rate = 1 / float(np.quantile(steps, 0.25))
        return rate if _is_rate(rate) and abs(rate / self.fps - 1) >= 0.2 else self.fps

    def check_end(self, count: int, last: float) -> None:
        """Checks a video after its last frame, which is number `count` and has the time stamp `last`.

        Raises:
            UserError: frames are missing because the file is truncated or damaged.
        """
        missing = not self.announced or count < self.announced
        cut_off = self.declared.bytes is not None and self.path.stat().st_size < self.declared.bytes
        if self._damaged or (cut_off and missing):
            raise UserError(
                f"the video {self.path} ends after {count} of {self.announced or 'its'} frames: it is cut off or "
                f'damaged; copy it again, or keep what is there with "ffmpeg -i {self.path.name} whole.mp4"'
            )
        seconds = self.declared.seconds or self.announced / self.fps
        if count < _SHORT * self.announced and last + 1 / self.fps < _SHORT * seconds:
            _log.warning("%s announces %.1f s, but its pictures end at %.1f s", self.path, seconds, last)

    def _seconds(self) -> float:
        return self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
