"""Videos and folders of frames: read from start to end for prediction, and at random for training."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from ..errors import UserError
from ..images import IMAGE_SUFFIXES, known_suffixes, natural_order, read_image, resize_image
from ..writing import atomic_path
from .calibration import Intrinsics, Undistorter
from .sample import FrameId

if sys.platform != "win32":
    import fcntl

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})
"""The kinds of video files this package reads, in lower case."""

HELD_OUT = 0.1
"""Part of a video, at its end, that validates."""
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<", b"v=0")
"""How texts begin from which FFmpeg would read other files or addresses."""
MISSING_TOLERANCE = 0.1
"""Part of the announced frames that may be absent: containers often announce a few too many."""
DEFAULT_FPS = 25.0
MAX_FRAMES = 1e8
"""A file that announces more (40 days) does not know."""
CACHE_VARIABLE = "HYBRID_ENCODER_CACHE"
CACHE_FORMAT = 1
"""Changes when the same video would be stored otherwise."""

_log = logging.getLogger(__name__)


class VideoInfo(NamedTuple):
    """What a video file says of itself."""

    width: int
    height: int
    frames: int
    """As announced; 0 where the file does not say. The true number may differ by a few."""
    fps: float


def video_info(path: str | Path) -> VideoInfo:
    """Size, number of frames and rate of a video file; the size is that of its first frame, turned upright.

    Raises:
        UserError: missing file, or no video that can be decoded.
    """
    with _Capture(path) as capture:
        first = capture.next()
        if first is None:
            raise UserError(f"the video {path} has no frame that can be decoded")
        return VideoInfo(first.shape[1], first.shape[0], capture.announced, capture.fps)


def iterate_video(path: str | Path) -> Iterator[np.ndarray]:
    """The frames of a video file in order, each uint8 RGB (H, W, 3).

    Raises:
        UserError: missing or damaged file; after the last frame that could be read, if much of the video is missing.
    """
    with _Capture(path) as capture:
        count, shape = 0, None
        while (frame := capture.next()) is not None:
            shape = shape or frame.shape
            if frame.shape != shape:
                raise UserError(f"the video {path} changes its size at frame {count}: cut it there")
            yield frame
            count += 1
        if not count:
            raise UserError(f"the video {path} has no frame that can be decoded")
        if count < (1 - MISSING_TOLERANCE) * capture.announced:
            raise UserError(
                f"the video {path} ends after {count} of {capture.announced} frames: it is cut off or damaged; copy it "
                f'again, or keep what is there with "ffmpeg -i {Path(path).name} whole.mp4"'
            )


class _Capture:
    """cv2.VideoCapture that closes itself and says what is wrong."""

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise UserError(f"no video at {path}")
        try:
            with Path(path).open("rb") as file:
                start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        except OSError as error:
            raise UserError(f"cannot read the video {path}: {error.strerror}") from error
        if start.startswith(_PLAYLISTS):
            raise UserError(f"{path} is a text that names other files, no video: give the videos themselves")
        self.capture = cv2.VideoCapture(str(path))
        if not self.capture.isOpened():
            raise UserError(f"{path} cannot be opened as a video: it is damaged, cut off, or of an unknown kind")
        announced, fps = self.capture.get(cv2.CAP_PROP_FRAME_COUNT), self.capture.get(cv2.CAP_PROP_FPS)
        self.announced = round(announced) if 0 < announced < MAX_FRAMES else 0
        self.fps = fps if 0.1 <= fps <= 1e4 else DEFAULT_FPS

    def next(self) -> np.ndarray | None:
        """The next frame, RGB; None after the last, or the last that can be read."""
        ok, frame = self.capture.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if ok else None

    def __enter__(self) -> _Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.capture.release()


class VideoSource:
    """Frames of a video file, or of a folder with one image a frame (in natural order: 9 before 10), for training.

    A video file is decoded once, to plain pixels in `cache_folder()`, from which frames are read at random; a folder's
    images are read as they are. Where lens distortion is known, frames come out free of it, with the same K.
    """

    def __init__(
        self,
        path: str | Path,
        intrinsics: Intrinsics,
        frame_ids: Sequence[FrameId] = (0, -1, 1),
        part: Literal["train", "val", "test"] = "train",
        size: tuple[int, int] | None = None,
        progress: bool = True,
    ) -> None:
        """
        Args:
            path: a video file, or a folder of images.
            intrinsics: of the source frames, or of the same camera at another size.
            frame_ids: neighbours that will be asked for; frames that lack one are neighbours only.
            part: "train" is the beginning, "val" and "test" are the last tenth; the parts share no frame.
            size: (height, width) that samples will have: a video file's frames are stored no larger than that needs,
                their proportions kept. None stores them as they are.
            progress: show a bar while a video is decoded.

        Raises:
            UserError: missing or damaged input, too few frames, intrinsics that do not fit, no room for the pixels.
        """
        if "s" in frame_ids:
            raise UserError(f"{path}: a video has no second camera, so there is no frame s")
        self.path = Path(path)
        opened = _FrameFolder if self.path.is_dir() else _DecodedVideo
        self._frames: _FrameFolder | _DecodedVideo = opened(self.path, intrinsics, size, progress)
        self._targets = _targets(len(self._frames), frame_ids, part, self.path)

    def __len__(self) -> int:
        return len(self._targets)

    def name(self, index: int) -> str:
        """The file and the frame's number, counted from 0."""
        return f"{self.path.name} frame {self._targets[index]}"

    def read(self, index: int, frame_id: FrameId) -> np.ndarray:
        """uint8 RGB (h, w, 3), without lens distortion where it is known.

        Raises:
            UserError: an image of the folder is missing, unreadable, cut off or of another size; names it.
        """
        if frame_id == "s":
            raise UserError(f"{self.path}: a video has no second camera, so there is no frame s")
        return self._frames.read(self._targets[index] + frame_id)

    def intrinsics(self, index: int) -> np.ndarray:
        """(3, 3) float32, pixels of the frames that `read` returns; the same for all."""
        return self._frames.K.astype(np.float32)

    def stereo_sign(self, index: int) -> int:
        """-1: there is but one camera, and it counts as the left one."""
        return -1


def cache_folder() -> Path:
    """Where decoded videos are kept for the next run; it may be deleted at any time.

    $HYBRID_ENCODER_CACHE, else hybrid-encoder in $XDG_CACHE_HOME or ~/.cache, or in the folder of temporary files for
    a user who has no home.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    home = os.path.expanduser("~")
    usual = os.path.join(home, ".cache") if os.path.isabs(home) else tempfile.gettempdir()
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "hybrid-encoder"


def _images_in(folder: Path) -> Iterator[Path]:
    """Hidden files, such as macOS leaves beside every image on other systems' disks, are no frames."""
    files = (file for file in folder.iterdir() if not file.name.startswith("."))
    return (file for file in files if file.suffix.lower() in IMAGE_SUFFIXES)


class _FrameFolder:
    """Images of a folder, read on demand."""

    def __init__(self, path: Path, intrinsics: Intrinsics, size: tuple[int, int] | None, progress: bool) -> None:
        self.files = sorted(_images_in(path), key=natural_order)
        kinds = sorted({file.suffix.lower() for file in self.files})
        if len(kinds) != 1:
            found = f"images of several kinds ({', '.join(kinds)})" if kinds else "no image"
            raise UserError(f"{path} holds {found}: expected one image a frame, all of one kind of {known_suffixes()}")
        self.shape = read_image(self.files[0]).shape
        self.K = intrinsics.for_image(self.shape[1], self.shape[0]).K
        self._undistort = Undistorter(intrinsics)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, number: int) -> np.ndarray:
        image = read_image(self.files[number])
        if image.shape != self.shape:
            raise UserError(
                f"{self.files[number]} is {image.shape[1]}x{image.shape[0]}, but {self.files[0].name} is "
                f"{self.shape[1]}x{self.shape[0]}: all frames must have one size"
            )
        return self._undistort(image)


class _DecodedVideo:
    """A video file's frames as plain pixels, one after the other in a file of the cache folder."""

    def __init__(self, path: Path, intrinsics: Intrinsics, size: tuple[int, int] | None, progress: bool) -> None:
        info = video_info(path)
        fitting = intrinsics.for_image(info.width, info.height)
        cover = max(size[0] / info.height, size[1] / info.width) if size else 1.0
        factor = min(1.0, cover)
        self.shape = (max(1, round(info.height * factor)), max(1, round(info.width * factor)), 3)
        self.K = fitting.K * np.array([[self.shape[1] / info.width], [self.shape[0] / info.height], [1.0]])
        status = path.stat()
        parts = [CACHE_FORMAT, path.absolute(), status.st_size, status.st_mtime_ns, self.shape]
        if fitting.distortion is not None:
            parts += [fitting.K.tolist(), fitting.distortion.tolist()]
        key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        readable = re.sub(r"[^A-Za-z0-9_-]", "_", path.stem)[:40]
        self.file = cache_folder() / f"{readable}-{key}-{self.shape[1]}x{self.shape[0]}.rgb"
        if not self.file.is_file():
            with _alone(self.file):
                if not self.file.is_file():  # else another process has decoded it by now
                    self._decode(path, info, Undistorter(intrinsics), progress)
        self.count, rest = divmod(self.file.stat().st_size, self.frame_bytes)
        if rest or not self.count:
            raise UserError(f"the decoded video {self.file} is damaged: delete it")

    @property
    def frame_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def __len__(self) -> int:
        return self.count

    def read(self, number: int) -> np.ndarray:
        try:
            pixels = np.fromfile(self.file, np.uint8, self.frame_bytes, offset=number * self.frame_bytes)
        except OSError as error:
            raise UserError(f"the decoded video {self.file} cannot be read ({error}): start again") from error
        if len(pixels) != self.frame_bytes:
            raise UserError(f"the decoded video {self.file} has become too short: delete it and start again")
        return pixels.reshape(self.shape)

    def _decode(self, path: Path, info: VideoInfo, undistort: Undistorter, progress: bool) -> None:
        remedy = f"make room, or set {CACHE_VARIABLE} to a folder that has it"
        needed = info.frames * self.frame_bytes
        with atomic_path(self.file) as partial:
            free = shutil.disk_usage(self.file.parent).free
            if needed > free:
                raise UserError(
                    f"decoding {path} takes {needed / 1e9:.1f} GB, {self.file.parent} has {free / 1e9:.1f} GB left: "
                    + remedy
                )
            frames = tqdm(iterate_video(path), f"decoding {path.name}", info.frames, unit="frame", disable=not progress)
            try:
                with partial.open("wb") as file:
                    for frame in frames:
                        file.write(resize_image(undistort(frame), *self.shape[:2]).tobytes())
            except OSError as error:
                raise UserError(f"cannot write to {self.file.parent} ({error.strerror}): {remedy}") from error
        _log.info("decoded %s to %s", path, self.file)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """One process at a time makes a file, the others wait; what a killed one left half written is cleared away."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_name(f".{file.stem}.lock").open("w")
    except OSError as error:
        raise UserError(
            f"{file.parent} cannot be written ({error.strerror}): set {CACHE_VARIABLE} to a folder that can"
        ) from error
    with lock:
        if sys.platform != "win32":
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                print(f"waiting for the process that decodes {file.name}", file=sys.stderr)
                fcntl.lockf(lock, fcntl.LOCK_EX)
            except OSError:  # a file system without locks: every process decodes for itself
                yield
                return
            for left in file.parent.glob(f".{file.stem}.*.partial{file.suffix}"):
                left.unlink(missing_ok=True)
        yield


def _targets(count: int, frame_ids: Sequence[FrameId], part: str, path: Path) -> range:
    """The frames of a part that have all their neighbours within the part."""
    offsets = [frame_id for frame_id in frame_ids if frame_id != "s"]
    before, after = -min(0, *offsets), max(0, *offsets)
    span = before + 1 + after
    if count < 2 * span:
        raise UserError(
            f"{path} has {count} frames, too few: expected at least {2 * span}, so that a frame of training and one of "
            f"validation have the neighbours {offsets}"
        )
    border = count - max(round(count * HELD_OUT), span)
    return range(before, border - after) if part == "train" else range(border + before, count - after)
