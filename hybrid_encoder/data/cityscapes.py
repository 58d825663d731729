"""Cityscapes: the triples of frames for training ManyDepth, and the sequences for evaluation.

Training data is what SfMLearner's prepare_train_data.py writes (--img_height 512 --img_width 1024 --seq_length 3): per
sample `<city>/<frame>.jpg`, three frames side by side, already without the bonnet (the lower quarter), and
`<city>/<frame>_cam.txt`, the nine numbers of K. Test data is Cityscapes as published.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError, naming
from ..images import read_image
from .calibration import Intrinsics, check_matrix
from .depth_files import read_numbers
from .present import complete_samples
from .sample import FrameId
from .splits import stays_inside
from .text import read_text

KEPT = 0.75
"""Upper share of a published image that is used: the rest shows the car's bonnet."""
PUBLISHED = (2048, 1024)
"""Width and height of a published image."""
EVALUATED = (slice(256, 768), slice(192, 1856))
"""Rows and columns of a published image (1024x2048) that are evaluated: its middle (ManyDepth's README)."""
TEST_STEP = 2
"""Step in published frames from one frame of a sample to the next, as in the triples: Cityscapes has 17 frames a
second, KITTI 10."""
BASELINE_METRES = 0.209313

_PUBLISHED_FRAME = re.compile(r"[^_]+_[0-9]{6}_[0-9]{6}")
FORM = '"city frame", for instance "aachen aachen_000000_000004"'


class CityscapesEntry(NamedTuple):
    """One line of a split file."""

    city: str
    frame: str

    def __str__(self) -> str:
        return f"{self.city} {self.frame}"


def read_cityscapes_split(path: str | Path) -> list[CityscapesEntry]:
    """The frames that a split file lists, in its order; blank lines are skipped.

    Raises:
        UserError: a missing file, no frame in it, or a line of another form (the message gives its number).
    """
    path = Path(path)
    entries = []
    for number, line in enumerate(read_text(path, "split file").split("\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        frame = fields[-1].removesuffix("_leftImg8bit")
        if len(fields) != 2 or not frame or any("/" in field or not stays_inside(field) for field in fields):
            raise UserError(f"{path}, line {number}: {line[:100]!r}; expected {FORM}")
        entries.append(CityscapesEntry(fields[0], frame))
    if not entries:
        raise UserError(f"the split file {path} lists no frame: expected lines of the form {FORM}")
    return entries


class CityscapesSource:
    """The preprocessed triples: frames -1, 0 and 1.

    Args:
        data_path: the folder that holds a folder of each city.
        split_file: lines of city and frame.
        frame_ids: the frames that will be read.
        skip_bad: how many samples may lack files, and are left out; None: none, and the trainer has no such option.

    Raises:
        UserError: a frame id that triples lack, no such folder, a split file of another form, or missing files.
    """

    def __init__(
        self,
        data_path: str | Path,
        split_file: str | Path,
        frame_ids: Sequence[FrameId] = (0, -1, 1),
        skip_bad: int | None = None,
    ) -> None:
        self.data_path = Path(data_path)
        self._sizes: dict[str, tuple[int, int]] = {}
        others = [frame_id for frame_id in frame_ids if frame_id not in (-1, 0, 1)]
        if others:
            raise UserError(f"frame {others[0]}: preprocessed Cityscapes holds frames -1, 0 and 1 only")
        if not self.data_path.is_dir():
            raise UserError(f"data folder {self.data_path}: no such folder")
        self.entries = _complete(self, split_file, skip_bad)

    def image_path(self, entry: CityscapesEntry) -> Path:
        """The image file of an entry: three frames side by side."""
        return self.data_path / entry.city / f"{entry.frame}.jpg"

    def camera_path(self, entry: CityscapesEntry) -> Path:
        """The camera file of an entry."""
        return self.data_path / entry.city / f"{entry.frame}_cam.txt"

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        """The line of the split file."""
        return str(self.entries[index])

    def read(self, index: int, frame_id: FrameId) -> np.ndarray:
        """uint8 RGB (h, w, 3), one third of the file's image.

        Raises:
            UserError: the file is missing, unreadable, truncated or no triple; names it.
        """
        path = self.image_path(self.entries[index])
        triple = read_image(path)
        if frame_id not in (-1, 0, 1):
            raise UserError(f"{path}: has no frame {frame_id}, preprocessed Cityscapes holds frames -1, 0 and 1 only")
        width, rest = divmod(triple.shape[1], 3)
        if rest:
            raise UserError(f"{path} is {triple.shape[1]} pixels wide: expected three frames of one width side by side")
        start = (int(frame_id) + 1) * width
        return np.ascontiguousarray(triple[:, start : start + width])

    def intrinsics(self, index: int) -> np.ndarray:
        """(3, 3) float32, in pixels of a frame.

        Raises:
            UserError: the camera file does not hold the nine numbers of K, or they make no sense for the images of its
                city.
        """
        entry = self.entries[index]
        path = self.camera_path(entry)
        fields = read_text(path, "camera file").replace("\n", ",").split(",")
        try:
            numbers = np.array([float(field) for field in fields if field.strip()])
        except ValueError as error:
            raise UserError(f"cannot read the camera file {path}: {error}") from error
        if numbers.size != 9:
            raise UserError(f"{path}: expected the nine numbers of K, row by row, with commas between them")
        if entry.city not in self._sizes:
            height, width = self.read(index, 0).shape[:2]
            self._sizes[entry.city] = (width, height)
        camera = Intrinsics(check_matrix(numbers.reshape(3, 3), str(path)), origin=str(path))
        return camera.for_image(*self._sizes[entry.city]).K.astype(np.float32)

    def stereo_sign(self, index: int) -> int:
        """-1: all frames are of the left camera."""
        return -1


class CityscapesSequenceSource:
    """Cityscapes as published, for evaluation: leftImg8bit_sequence/test, with camera/test; the bonnet is cut off.

    Frame -n is the published frame 2 n steps before.

    Args:
        data_path: the folder that holds leftImg8bit_sequence and camera.
        split_file: lines of city and frame.
        part: folder within them: test, val or train.

    Raises:
        UserError: no such folder, a split file of another form, or missing files of frame 0.
    """

    def __init__(self, data_path: str | Path, split_file: str | Path, part: str = "test") -> None:
        self.data_path, self.part = Path(data_path), part
        for entry in read_cityscapes_split(split_file):
            if not _PUBLISHED_FRAME.fullmatch(entry.frame):
                raise UserError(
                    f"{split_file}: {str(entry)!r}: expected frames of the form city_sequence_frame, as "
                    "aachen_000000_000019"
                )
        self.entries = _complete(self, split_file, None)

    def image_path(self, entry: CityscapesEntry, frame_id: FrameId = 0) -> Path:
        """The image file of one frame of an entry's sample."""
        city, sequence, frame = entry.frame.split("_")
        number = int(frame) + TEST_STEP * int(frame_id)
        name = f"{city}_{sequence}_{number:06d}_leftImg8bit.png"
        return self.data_path / "leftImg8bit_sequence" / self.part / entry.city / name

    def camera_path(self, entry: CityscapesEntry) -> Path:
        """The camera file of an entry."""
        return self.data_path / "camera" / self.part / entry.city / f"{entry.frame}_camera.json"

    def disparity_path(self, entry: CityscapesEntry) -> Path:
        """The file of an entry's measured disparity."""
        return self.data_path / "disparity" / self.part / entry.city / f"{entry.frame}_disparity.png"

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        """The line of the split file."""
        return str(self.entries[index])

    def read(self, index: int, frame_id: FrameId) -> np.ndarray:
        """uint8 RGB (768, 2048, 3); a neighbour that does not exist is black.

        Raises:
            UserError: the image is unreadable, truncated or of another size; names it.
        """
        path = self.image_path(self.entries[index], frame_id)
        if frame_id != 0 and not path.is_file():
            return np.zeros_like(self.read(index, 0))
        image = read_image(path)
        if image.shape[1::-1] != PUBLISHED:
            raise UserError(
                f"{path} is {image.shape[1]}x{image.shape[0]}: expected Cityscapes as published, "
                f"{PUBLISHED[0]}x{PUBLISHED[1]}, which its cameras are for"
            )
        return image[: round(KEPT * image.shape[0])]

    def intrinsics(self, index: int) -> np.ndarray:
        """(3, 3) float32, in pixels of a published image.

        Raises:
            UserError: the camera file is no JSON with values of fx, fy, u0 and v0 that fit published images.
        """
        path = self.camera_path(self.entries[index])
        try:
            camera = json.loads(path.read_bytes())["intrinsic"]
            fx, fy, u0, v0 = (camera[name] for name in ("fx", "fy", "u0", "v0"))
            if not all(type(value) in (int, float) and abs(value) < 1e6 for value in (fx, fy, u0, v0)):
                raise ValueError("fx, fy, u0 and v0 under intrinsic must be numbers, in pixels")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"cannot read the camera file {path}: {type(error).__name__}: {error}") from error
        K = check_matrix(np.array([[fx, 0, u0], [0, fy, v0], [0, 0, 1.0]]), str(path))
        return Intrinsics(K, PUBLISHED, origin=str(path)).for_image(*PUBLISHED).K.astype(np.float32)

    def stereo_sign(self, index: int) -> int:
        """-1: all frames are of the left camera."""
        return -1

    def depth(self, index: int) -> np.ndarray:
        """float32 (768, 2048), metres, from the measured disparity; 0 where unknown and outside `EVALUATED`.

        Raises:
            UserError: the disparity is missing, damaged, no 16-bit PNG or of another size.
        """
        path = self.disparity_path(self.entries[index])
        raw = read_numbers(path)
        if raw.shape != PUBLISHED[::-1]:
            raise UserError(
                f"{path} is {raw.shape}: expected Cityscapes' disparity of 1024x2048 (disparity_trainvaltest.zip)"
            )
        disparity = (raw.astype(np.float32) - 1) / 256
        focal = self.intrinsics(index)[0, 0]
        depth = np.where(disparity > 0, BASELINE_METRES * focal / np.maximum(disparity, 1e-6), 0)
        return evaluated_part(depth.astype(np.float32))


def read_published_depth(path: Path) -> np.ndarray:
    """A map of the ground truth that ManyDepth's authors provide: float32 (768, 2048), metres, as `evaluated_part`.

    Raises:
        UserError: as `read_numbers`; or a map of another size.
    """
    depth = read_numbers(path).astype(np.float32, copy=False)
    with naming(path):
        return evaluated_part(depth)


def evaluated_part(depth: np.ndarray) -> np.ndarray:
    """(1024, 2048) depth of a published image -> (768, 2048), 0 outside the part that is evaluated.

    Raises:
        UserError: another size.
    """
    if depth.shape != PUBLISHED[::-1]:
        raise UserError(f"a depth map of {depth.shape[0]}x{depth.shape[1]}: Cityscapes' images are 1024x2048")
    kept = np.zeros_like(depth[: round(KEPT * depth.shape[0])])
    kept[EVALUATED] = depth[EVALUATED]
    return kept


def _complete(
    source: CityscapesSource | CityscapesSequenceSource, split_file: str | Path, skip_bad: int | None
) -> list[CityscapesEntry]:
    """The entries of a split whose image and camera files exist."""
    return complete_samples(
        read_cityscapes_split(split_file),
        lambda entry, _: {source.image_path(entry): "", source.camera_path(entry): ""},
        f"files that {split_file} needs are missing",
        skip_bad,
        lambda path, _: "check --data_path and --split",
    )
