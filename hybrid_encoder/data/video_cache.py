"""A video file decoded once to plain pixels, from which training reads frames at random."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..engine.bars import progress_bar
from ..errors import UserError
from ..images import resize_image
from ..writing import atomic_path
from .cache_space import SUFFIX, held_open, make_room
from .calibration import Intrinsics, Undistorter
from .video import VideoInfo, check_video_suffix, iterate_video, video_info

if sys.platform != "win32":
    import fcntl

CACHE_VARIABLE = "HYBRID_ENCODER_CACHE"
CACHE_FORMAT = 1
"""Changes when the same video would be stored otherwise."""

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where decoded videos are kept for the next run, within the limit that `cache_space` keeps; `hybrid-encoder cache`
    lists and empties it.

    $HYBRID_ENCODER_CACHE, else hybrid-encoder in $XDG_CACHE_HOME or ~/.cache, or in the folder of temporary files for
    a user who has no home.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    home = os.path.expanduser("~")
    usual = os.path.join(home, ".cache") if os.path.isabs(home) else tempfile.gettempdir()
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "hybrid-encoder"


class DecodedVideo:
    """A video file's frames as plain pixels, one after the other in a file of the cache folder.

    Attributes:
        K: (3, 3) intrinsics, pixels of the stored frames.
    """

    def __init__(self, path: Path, intrinsics: Intrinsics, size: tuple[int, int] | None, progress: bool) -> None:
        """
        Args:
            path, intrinsics, size, progress: as `VideoSource` takes them.

        Raises:
            UserError: missing or damaged video, intrinsics that do not fit, no room for the pixels.
        """
        check_video_suffix(path)
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
        self.file = cache_folder() / f"{readable}-{key}-{self.shape[1]}x{self.shape[0]}{SUFFIX}"
        while (held := held_open(self.file)) is None:
            with _alone(self.file):
                if not self.file.is_file():  # else another process has decoded it by now
                    self._decode(path, info, Undistorter(intrinsics), progress)
        self._held: IO[bytes] | None = held
        self.count, rest = divmod(self.file.stat().st_size, self.frame_bytes)
        if rest or not self.count:
            raise UserError(f"the decoded video {self.file} is damaged: delete it")

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes, which leave it to the first one to hold the file."""
        return {**self.__dict__, "_held": None}

    @property
    def frame_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def __len__(self) -> int:
        return self.count

    def read(self, number: int) -> np.ndarray:
        """uint8 RGB (h, w, 3)."""
        try:
            pixels = np.fromfile(self.file, np.uint8, self.frame_bytes, offset=number * self.frame_bytes)
        except OSError as error:
            raise UserError(f"the decoded video {self.file} cannot be read ({error}): start again") from error
        if len(pixels) != self.frame_bytes:
            raise UserError(f"the decoded video {self.file} has become too short: delete it and start again")
        return pixels.reshape(self.shape)

    def _decode(self, path: Path, info: VideoInfo, undistort: Undistorter, progress: bool) -> None:
        """Room on the disk is not checked beforehand: the number of frames is an estimate."""
        make_room(self.file.parent, info.frames * self.frame_bytes)
        frames = progress_bar(iterate_video(path), f"decoding {path.name}", info.frames, "frame", progress)
        with atomic_path(self.file) as partial:
            try:
                with partial.open("wb") as file:
                    for frame in frames:
                        file.write(resize_image(undistort(frame), *self.shape[:2]).tobytes())
            except OSError as error:
                raise UserError(
                    f"cannot write to {self.file.parent} ({error.strerror}): make room, or set {CACHE_VARIABLE} to a "
                    f"folder that has it. {path} takes about {info.frames * self.frame_bytes / 1e9:.1f} GB"
                ) from error
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
