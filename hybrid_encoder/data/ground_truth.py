"""Ground-truth depth of a split in one file, one plain array per image. The original trainers' file is read, too."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from ..config import MAX_PIXELS, MAX_SIDE
from ..engine.bars import progress_bar
from ..errors import UserError
from ..writing import atomic_path
from .depth_files import read_depth
from .safe_npy import NpyFile
from .splits import SplitEntry
from .velodyne import DepthReference, improved_depth_path, read_scan_depth

NAMES_KEY = "names"
SOURCE_KEY = "source"
FIELD_KEY = "data"
MAX_NAMES_BYTES = 1 << 26
"""Largest size of a file's names, in bytes; the names of a hundred thousand frames take 16 million."""
MAX_STORED_BYTES = 1 << 32
"""Largest size of maps that are held in memory together, in bytes, as an object array is; the Eigen split takes 1.3
billion."""
MAX_METRES = 1e5
"""Larger values are no depth, neither a measured nor a rendered one."""


def export_ground_truth(
    data_path: str | Path,
    entries: Sequence[SplitEntry],
    out: str | Path,
    source: Literal["velodyne", "improved"] = "velodyne",
    reference: DepthReference = "scanner",
    progress: bool = True,
) -> None:
    """Writes the depth maps of a split's frames to `out` (.npz), in the split's order; `GroundTruth` reads them.

    Args:
        data_path: KITTI raw.
        entries: what `read_split` returns.
        source: "velodyne" projects the raw scans; "improved" reads the 16-bit PNGs of KITTI's depth benchmark.
        reference: where velodyne depth is measured from. "scanner": along the scanner's forward axis (0.27 m more than
            the camera's z), as in published metrics on the Eigen split; see `DepthReference`.
        progress: whether to show a progress bar.

    Raises:
        UserError: an empty split, or a scan, image or calibration that is missing or damaged; `out` is not written
            then.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise UserError(f"ground truth is stored as .npz, not as {out.name}")
    if not entries:
        raise UserError("the split has no frame to export ground truth for")
    with atomic_path(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive:
        for index, entry in enumerate(progress_bar(entries, "ground truth", unit="map", shown=progress)):
            if source == "improved":
                depth = read_depth(improved_depth_path(data_path, entry.folder, entry.frame, entry.side))
            else:
                depth = read_scan_depth(data_path, entry.folder, entry.frame, entry.side, reference)
            _write(archive, _key(index), depth)
        _write(archive, NAMES_KEY, np.array([str(entry) for entry in entries]))
        _write(archive, SOURCE_KEY, np.array([source]))


class GroundTruth:
    """Depth maps of a file, float32 (H, W) each, metres, 0 where unknown; read one at a time, in the split's order.

    Attributes:
        names: of the frames, as split files write them; None in the originals' files.
        source: "velodyne" or "improved"; "velodyne" for the originals' files, which do not state it.
    """

    def __init__(self, path: str | Path) -> None:
        """Opens `path`: an .npz of `export_ground_truth`, or the original trainers' gt_depths.npz (key "data").

        Raises:
            UserError: a missing, damaged or foreign file, or one whose pickle asks for anything but plain arrays.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"no ground truth at {self.path}: make it with `hybrid-encoder export-gt`")
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = {name.removesuffix(".npy") for name in archive.namelist()}
        except Exception as error:  # zipfile raises many classes; all mean a damaged file
            raise UserError(f"{self.path} is no .npz file of depth maps: {error}") from error
        self.names: tuple[str, ...] | None = None
        self.source = "velodyne"
        self._stored: list[np.ndarray] | None = None
        if NAMES_KEY in members:
            self._open_named(members)
        elif FIELD_KEY in members:
            self._open_field()
        else:
            found = ", ".join(sorted(members)[:5]) or "nothing"
            raise UserError(f"{self.path} holds no ground truth: expected arrays `names` or `data`, found {found}")

    def _open_named(self, members: set[str]) -> None:
        names = self._read(NAMES_KEY, MAX_NAMES_BYTES)
        if not isinstance(names, np.ndarray) or names.ndim != 1 or names.dtype.kind != "U":
            raise UserError(f"{self.path}: the array {NAMES_KEY} holds no list of names")
        self.names = tuple(names.tolist())
        if SOURCE_KEY in members and np.array_equal(self._read(SOURCE_KEY, MAX_NAMES_BYTES), ["improved"]):
            self.source = "improved"
        missing = [key for key in map(_key, range(len(self.names))) if key not in members]
        if missing:
            raise UserError(f"{self.path} is incomplete: it names {len(self.names)} maps and lacks {missing[0]}")
        self._count = len(self.names)

    def _open_field(self) -> None:
        """The originals' `data`: a plain stack (N, H, W), whose maps are read one at a time, or an object array."""
        with self._member(FIELD_KEY) as member:
            if not member.dtype.hasobject and len(member.shape) != 3:
                raise UserError(f"{self.path}: the array {FIELD_KEY} is {member.shape}, expected depth maps (N, H, W)")
            if not member.dtype.hasobject:
                self._check_map(0, member.shape[1:], member.dtype)
            if member.dtype.hasobject or member.is_fortran:
                stored = self._data(member, FIELD_KEY, MAX_STORED_BYTES)
                if isinstance(stored, np.ndarray) and stored.ndim != 3:
                    raise UserError(
                        f"{self.path}: the array {FIELD_KEY} is {stored.shape}, expected depth maps (N, H, W)"
                    )
                self._stored = list(stored)
            self._count = member.shape[0] if self._stored is None else len(self._stored)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        index = range(len(self))[index]
        return next(islice(self._maps(), index, None)) if self.names is None else self._named(index)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._maps() if self.names is None else map(self._named, range(len(self)))

    def _named(self, index: int) -> np.ndarray:
        with self._member(_key(index)) as member:
            if not member.dtype.hasobject:
                self._check_map(index, member.shape, member.dtype)
            return self._checked(index, self._data(member, _key(index), MAX_STORED_BYTES))

    def _maps(self) -> Iterator[np.ndarray]:
        """The maps of an original's file."""
        if self._stored is not None:
            yield from (self._checked(index, depth) for index, depth in enumerate(self._stored))
            return
        with self._member(FIELD_KEY) as member:
            for index, depth in enumerate(member.read_each()):
                yield self._checked(index, depth)

    def _check_map(self, index: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        if len(shape) != 2 or dtype.kind not in "fiu" or not math.prod(shape):
            raise UserError(f"{self.path}: map {index} is {dtype} {shape}, expected depths of shape (H, W)")
        if max(shape) > MAX_SIDE or math.prod(shape) > MAX_PIXELS:
            raise UserError(
                f"{self.path}: map {index} states a size of {shape[1]}x{shape[0]}: expected at most {MAX_SIDE} pixels "
                f"a side and {MAX_PIXELS // 10**6} million in all"
            )

    def _checked(self, index: int, depth: np.ndarray | list[np.ndarray]) -> np.ndarray:
        if isinstance(depth, list):
            raise UserError(f"{self.path}: map {index} is {len(depth)} arrays, expected depths of shape (H, W)")
        self._check_map(index, depth.shape, depth.dtype)
        if not ((depth >= 0) & (depth <= MAX_METRES)).all():
            raise UserError(
                f"{self.path}: map {index} holds values that are no depth: expected metres, 0 where unknown"
            )
        return depth.astype(np.float32, copy=False)

    def _read(self, key: str, limit: int) -> np.ndarray | list[np.ndarray]:
        with self._member(key) as member:
            return self._data(member, key, limit)

    def _data(self, member: NpyFile, key: str, limit: int) -> np.ndarray | list[np.ndarray]:
        if member.data_size > limit:
            raise UserError(
                f"{self.path}: the array {key} states {member.data_size / 2**30:.1f} GiB of data, expected at most "
                f"{limit / 2**30:.2g}: export the ground truth in parts"
            )
        return member.read()

    @contextmanager
    def _member(self, key: str) -> Iterator[NpyFile]:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{key}.npy") as stream:
                yield NpyFile(stream, archive.getinfo(f"{key}.npy").file_size)  # type: ignore[arg-type]
        except UserError:
            raise
        except Exception as error:  # zipfile and the decompressors raise many classes
            raise UserError(f"{self.path}: the array {key} cannot be read: {error}") from error


def _write(archive: zipfile.ZipFile, key: str, array: np.ndarray) -> None:
    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _key(index: int) -> str:
    return f"depth_{index:06d}"
