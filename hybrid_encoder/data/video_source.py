"""Training samples of videos: a video file, a folder of video files, or a folder with one image a frame."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import Literal, Protocol

import numpy as np

from ..errors import UserError, naming
from ..images import IMAGE_SUFFIXES, known_suffixes, natural_order, read_image
from .calibration import Intrinsics, Undistorter
from .sample import FrameId
from .still_frames import moving_frames
from .video import VIDEO_SUFFIXES
from .video_cache import DecodedVideo

HELD_OUT = 0.1
"""Part of all frames, at the end, that validates."""
_GAP = 1.5
"""Frames whose numbers are more than this many usual steps apart are no neighbours."""

_log = logging.getLogger(__name__)


class Frames(Protocol):
    """Frames of one camera that are read at random."""

    K: np.ndarray
    """(3, 3) intrinsics, pixels of the frames that `read` returns."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> np.ndarray:
        """uint8 RGB (h, w, 3)."""
        ...


@dataclass(frozen=True)
class Clip:
    """Frames of a file or folder that follow each other without a gap, by their numbers in it."""

    name: str
    frames: Frames
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)


class VideoSource:
    """Frames of one or several videos for training: each clip is a sequence of its own.

    A video file is decoded once, to plain pixels in `cache_folder()`, from which frames are read at random. The images
    of a folder are read as they are, in natural order (9 before 10); a gap in their numbers ends a clip. Where lens
    distortion is known, frames come out free of it, with the same K. Where frames are left out because the picture has
    hardly moved, the neighbours of a frame are the next ones that are not.

    Attributes:
        left_out: how many frames those are.
    """

    def __init__(
        self,
        path: str | Path,
        intrinsics: Intrinsics,
        frame_ids: Sequence[FrameId] = (0, -1, 1),
        part: Literal["train", "val", "test"] = "train",
        size: tuple[int, int] | None = None,
        progress: bool = True,
        min_motion: float = 0.0,
    ) -> None:
        """
        Args:
            path: a video file, a folder of video files, or a folder of images; images come first where it has both.
            intrinsics: of the source frames, or of the same camera at another size.
            frame_ids: neighbours that will be asked for; frames that lack one are neighbours only.
            part: "train" is the beginning, "val" and "test" are the last tenth; the parts share no frame.
            size: (height, width) that samples will have: a video file's frames are stored no larger than that needs,
                their proportions kept. None stores them as they are.
            progress: show a bar while a video is decoded.
            min_motion: leave out frames whose picture has moved less than that since the last one, as a share of its
                width (`moving_frames`).

        Raises:
            UserError: missing or damaged input, too few frames, intrinsics that do not fit, no room for the pixels.
        """
        if "s" in frame_ids:
            raise UserError(f"{path}: a video has no second camera, so there is no frame s")
        self.path = Path(path)
        clips = (
            _clips_of_folder(self.path, intrinsics, size, progress)
            if self.path.is_dir()
            else [_clip_of_file(self.path, intrinsics, size, progress)]
        )
        total = sum(map(len, clips))
        if min_motion:
            clips = [replace(clip, numbers=[*moving_frames(clip.frames, clip.numbers, min_motion)]) for clip in clips]
        self.left_out = total - sum(map(len, clips))
        offsets = [frame_id for frame_id in frame_ids if frame_id != "s"]
        self._targets = _targets(clips, offsets, part, self._named())

    def __len__(self) -> int:
        return len(self._targets)

    def name(self, index: int) -> str:
        """The file or folder and the frame's number in it, counted from 0."""
        clip, place = self._targets[index]
        return f"{clip.name} frame {clip.numbers[place]}"

    def read(self, index: int, frame_id: FrameId) -> np.ndarray:
        """uint8 RGB (h, w, 3), without lens distortion where it is known.

        Raises:
            UserError: an image of the folder is missing, unreadable, cut off or of another size; names it.
        """
        if frame_id == "s":
            raise UserError(f"{self.path}: a video has no second camera, so there is no frame s")
        clip, place = self._targets[index]
        return clip.frames.read(clip.numbers[place + frame_id])

    def intrinsics(self, index: int) -> np.ndarray:
        """(3, 3) float32, pixels of the frames that `read` returns."""
        return self._targets[index][0].frames.K.astype(np.float32)

    def stereo_sign(self, index: int) -> int:
        """-1: there is but one camera, and it counts as the left one."""
        return -1

    def _named(self) -> str:
        """The path, and how many of its frames were left out, for messages."""
        return f"{self.path}, without {self.left_out} frames that hardly move," if self.left_out else str(self.path)


def runs_without_gap(stems: Sequence[str]) -> list[range]:
    """Splits frames where their numbers leave a gap.

    One number of the names counts the frames. It grows by the same step, or by about the same step where it is a time;
    where it grows by more, or anything else in the name changes, a new run begins. Names without numbers are one run.

    Args:
        stems: file names without suffix, sorted by what they are without numbers, then by numbers.

    >>> runs_without_gap(["f_8", "f_9", "f_10", "f_101", "f_102"])
    [range(0, 3), range(3, 5)]
    >>> runs_without_gap(["0000", "0005", "0010"])
    [range(0, 3)]
    >>> runs_without_gap(["a_1", "a_2", "b_1", "b_2"])
    [range(0, 2), range(2, 4)]
    """
    if not any(re.search(r"\d", stem) for stem in stems):
        return [range(len(stems))]
    steps = [_step(before, after) for before, after in pairwise(stems)]
    known = [step for step in steps if step is not None]
    longest = _GAP * median_low(known) if known else 0
    starts = [0, *(i + 1 for i, step in enumerate(steps) if step is None or step > longest)]
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(stems)], strict=True)]


def _step(before: str, after: str) -> int | None:
    """By how much the only number grows in which two names differ; None where they differ in more than that."""
    left, right = re.split(r"(\d+)", before), re.split(r"(\d+)", after)
    if left[::2] != right[::2]:
        return None
    grown = [int(b) - int(a) for a, b in zip(left[1::2], right[1::2], strict=True) if int(a) != int(b)]
    return grown[0] if len(grown) == 1 else None


def _clip_of_file(path: Path, intrinsics: Intrinsics, size: tuple[int, int] | None, progress: bool) -> Clip:
    video = DecodedVideo(path, intrinsics, size, progress)
    return Clip(path.name, video, range(len(video)))


def _clips_of_folder(folder: Path, intrinsics: Intrinsics, size: tuple[int, int] | None, progress: bool) -> list[Clip]:
    images, videos = sorted(_files(folder, IMAGE_SUFFIXES), key=_by_series), _files(folder, VIDEO_SUFFIXES)
    if images or not videos:
        frames = _FrameFolder(folder, images, intrinsics)
        runs = runs_without_gap([file.stem for file in images])
        if len(runs) > 1:
            _log.warning("%s: gaps in the numbers of its %d frames make %d clips of it", folder, len(images), len(runs))
        return [Clip(folder.name, frames, run) for run in runs]
    clips = []
    for file in sorted(videos, key=natural_order):
        with naming(file.name):
            clips.append(_clip_of_file(file, intrinsics, size, progress))
    return clips


def _by_series(file: Path) -> tuple[list[str], list[tuple[int, str]]]:
    """Sorts by what names are without numbers, then by numbers: 1_left, 2_left, 1_right, 2_right."""
    return re.split(r"\d+", file.stem), natural_order(file)


def _files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Hidden files, such as macOS leaves beside every file on other systems' disks, do not count."""
    files = (file for file in folder.iterdir() if not file.name.startswith("."))
    return [file for file in files if file.suffix.lower() in suffixes]


class _FrameFolder:
    """Images of a folder, read on demand."""

    def __init__(self, folder: Path, files: list[Path], intrinsics: Intrinsics) -> None:
        kinds = sorted({file.suffix.lower() for file in files})
        if len(kinds) != 1:
            found = f"images of several kinds ({', '.join(kinds)})" if kinds else "no image and no video"
            raise UserError(
                f"{folder} holds {found}: expected one image a frame, all of one kind of {known_suffixes()}, or videos"
            )
        self.files = files
        self.shape = read_image(files[0]).shape
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


def _targets(clips: Sequence[Clip], offsets: Sequence[int], part: str, named: str) -> list[tuple[Clip, int]]:
    """The frames of a part that have all their neighbours within their clip and within the part, by their place in it.

    Args:
        offsets: of the neighbours and of the frame itself, 0.
        named: what the clips are of, for messages.

    Raises:
        UserError: no frame of training, or none of validation.
    """
    before, after = -min(0, *offsets), max(0, *offsets)
    span = before + 1 + after
    total = sum(map(len, clips))

    def within(first: int, end: int) -> Iterator[tuple[Clip, int]]:
        begin = 0
        for clip in clips:
            start, stop = max(first - begin, 0), min(end - begin, len(clip))
            yield from ((clip, place) for place in range(start + before, stop - after))
            begin += len(clip)

    border = total - max(round(total * HELD_OUT), span)
    while border > 0 and not any(within(border, total)):
        border -= 1  # the last clips are too short
    train, val = list(within(0, border)), list(within(border, total))
    if not train or not val:
        in_clips = (
            "" if len(clips) == 1 else f" in {len(clips)} clips without a gap, the longest of {max(map(len, clips))}"
        )
        raise UserError(
            f"{named} has {total} frames{in_clips}, too few: expected at least {2 * span}, so that a frame of training "
            f"and one of validation have the neighbours {list(offsets)}"
        )
    return train if part == "train" else val
