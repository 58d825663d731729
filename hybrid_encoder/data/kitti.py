"""KITTI's frames: the raw drives in the layout of Monodepth2, and the odometry benchmark."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..images import IMAGE_SUFFIXES, read_image
from .calibration import CAMERAS, Intrinsics, Undistorter, default_kitti_intrinsics, kitti_intrinsics
from .present import Folders, complete_samples
from .sample import FrameId
from .splits import SplitEntry

OTHER_SIDE = {"l": "r", "r": "l"}

_log = logging.getLogger(__name__)


class KittiSource(ABC):
    """The base of raw drives and odometry sequences: entries of a split, all of whose files exist."""

    def __init__(
        self,
        data_path: str | Path,
        entries: Sequence[SplitEntry],
        frame_ids: Sequence[FrameId] = (0, -1, 1),
        png: bool = False,
        camera: Intrinsics | None = None,
        skip_bad: int | None = None,
    ) -> None:
        """
        Args:
            data_path: the data set's folder.
            entries: what `read_split` returns.
            frame_ids: the frames that will be read; the constructor checks that their files exist.
            png: whether the images are .png rather than .jpg.
            camera: of all frames, in place of the calibration files; if its lens distortion is known, it is removed.
            skip_bad: how many entries may lack files, and are left out; None: none, and the command has no such option.

        Raises:
            UserError: no such folder, no entry, or more missing files than allowed; gives their number and the first.
        """
        self.data_path, self.frame_ids = Path(data_path), tuple(frame_ids)
        self.suffix = ".png" if png else ".jpg"
        self.camera, self._undistort = camera, Undistorter(camera)
        self._cameras: dict[tuple[str, str], Intrinsics] = {}
        if not self.data_path.is_dir():
            raise UserError(f"data folder {self.data_path}: no such folder")
        if not entries:
            raise UserError(f"no frame of {self.data_path} is listed: the split is empty")
        what = f"images that the split needs are missing from {self.data_path}"
        self.entries = complete_samples(entries, self._files, what, skip_bad, self._remedy)

    @abstractmethod
    def path(self, entry: SplitEntry, frame_id: FrameId) -> Path:
        """The image file of one frame of an entry's sample."""

    @abstractmethod
    def calibrated(self, entry: SplitEntry) -> Intrinsics | None:
        """Intrinsics from the calibration file of an entry's camera; None where there is no such file."""

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        """The line of the split file."""
        return str(self.entries[index])

    def read(self, index: int, frame_id: FrameId) -> np.ndarray:
        """uint8 RGB (h, w, 3).

        Raises:
            UserError: the file is missing, unreadable or truncated; names it.
        """
        return self._undistort(read_image(self.path(self.entries[index], frame_id)))

    def intrinsics(self, index: int) -> np.ndarray:
        """(3, 3) float32, in pixels of the image as read.

        They are those of the given camera, else of the calibration file, else of KITTI's average camera; scaled to the
        size of the first image that is read of the same drive and side.
        """
        entry = self.entries[index]
        key = entry.folder, entry.side
        if key not in self._cameras:
            height, width = read_image(self.path(entry, 0)).shape[:2]
            calibrated = self.camera or self.calibrated(entry)
            if calibrated is None:
                _log.warning(
                    "%s has no calibration file: using KITTI's average intrinsics; --intrinsics gives other ones",
                    entry.folder,
                )
                calibrated = default_kitti_intrinsics(width, height)
            self._cameras[key] = calibrated.for_image(width, height)
        return self._cameras[key].K.astype(np.float32)

    def stereo_sign(self, index: int) -> int:
        """-1 for a frame of the left camera, +1 for one of the right."""
        return -1 if self.entries[index].side == "l" else 1

    def _files(self, entry: SplitEntry, folders: Folders) -> dict[Path, str]:
        return {self.path(entry, i): f"frame {i} of {str(entry)!r}" for i in self.frame_ids}

    def _remedy(self, path: Path, folders: Folders) -> str:
        other = ".jpg" if self.suffix == ".png" else ".png"
        if folders.has(path.with_suffix(other)):
            return f"the folder holds {other} files: " + ("add --png" if other == ".png" else "leave out --png")
        return missing_image_remedy(path, folders)


def missing_image_remedy(path: Path, folders: Folders) -> str:
    """What to do about a missing image, by the files that its folder holds."""
    names = folders.names(path.parent)
    if not names:
        return f"there is no folder {path.parent}, or it is empty: check --data_path and --split"
    found = min((name for name in names if _is_image_of(name, path.stem)), default=None)
    if found is None:
        return "take the lines whose neighbour frames do not exist out of the split file, or copy the missing images"
    return (
        f"the folder holds {Path(found).suffix} files: {found} in place of {path.name}; rename its images to "
        f"{len(path.stem)} digits and {path.suffix}"
    )


def _is_image_of(name: str, frame: str) -> bool:
    """Whether a file is an image with a frame's number, with other leading zeros or another suffix."""
    path = Path(name)
    number = path.stem.isascii() and path.stem.isdecimal()
    return number and path.suffix.lower() in IMAGE_SUFFIXES and path.stem.lstrip("0") == frame.lstrip("0")


class KittiRawSource(KittiSource):
    """KITTI raw: `<day>/<drive>/image_02|03/data/0000000000.jpg`, calibration in `<day>/calib_cam_to_cam.txt`."""

    def path(self, entry: SplitEntry, frame_id: FrameId) -> Path:
        """The image file of a frame of an entry's sample."""
        frame, side = _frame_and_side(entry, frame_id)
        return self.data_path / entry.folder / f"image_0{CAMERAS[side]}" / "data" / f"{frame:010d}{self.suffix}"

    def calibrated(self, entry: SplitEntry) -> Intrinsics | None:
        """Intrinsics from P_rect_02 or P_rect_03; None without the day's calib_cam_to_cam.txt."""
        file = (self.data_path / entry.folder).parent / "calib_cam_to_cam.txt"
        camera = CAMERAS[entry.side]
        return kitti_intrinsics(file, f"P_rect_0{camera}", f"S_rect_0{camera}") if file.is_file() else None


class KittiOdometrySource(KittiSource):
    """KITTI odometry: `sequences/00/image_2|3/000000.jpg`, calibration in `sequences/00/calib.txt`.

    An entry's `folder` is the number of its sequence.
    """

    def path(self, entry: SplitEntry, frame_id: FrameId) -> Path:
        """The image file of a frame of an entry's sample."""
        frame, side = _frame_and_side(entry, frame_id)
        return self._sequence(entry) / f"image_{CAMERAS[side]}" / f"{frame:06d}{self.suffix}"

    def calibrated(self, entry: SplitEntry) -> Intrinsics | None:
        """Intrinsics from P2 or P3; None without the sequence's calib.txt."""
        file = self._sequence(entry) / "calib.txt"
        return kitti_intrinsics(file, f"P{CAMERAS[entry.side]}") if file.is_file() else None

    def _sequence(self, entry: SplitEntry) -> Path:
        if not (entry.folder.isascii() and entry.folder.isdigit() and len(entry.folder) <= 2):
            raise UserError(
                f"split line {str(entry)!r}: expected the number of an odometry sequence first, as in 9 17 l"
            )
        return self.data_path / "sequences" / f"{int(entry.folder):02d}"


def _frame_and_side(entry: SplitEntry, frame_id: FrameId) -> tuple[int, str]:
    if frame_id == "s":
        return entry.frame, OTHER_SIDE[entry.side]
    return entry.frame + frame_id, entry.side
