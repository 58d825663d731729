"""Ground-truth depth of a split in one file, one plain array per image; reads the original trainers' file, too."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from ..errors import UserError
from ..writing import atomic_path
from .safe_npy import read_npy
from .splits import SplitEntry
from .velodyne import DepthReference, improved_depth_path, read_depth_png, read_scan_depth

NAMES_KEY = "names"
SOURCE_KEY = "source"
FIELD_KEY = "data"
MAX_METRES = 1e5
"""Beyond this no depth is measured, nor rendered."""


def export_ground_truth(
    data_path: str | Path,
    entries: Sequence[SplitEntry],
    out: str | Path,
    source: Literal["velodyne", "improved"] = "velodyne",
    reference: DepthReference = "scanner",
    progress: bool = True,
) -> None:
    """Write the depth maps of a split's frames to `out` (.npz), in the split's order; `GroundTruth` reads them.

    Args:
        data_path: KITTI raw.
        entries: what `read_split` returns.
        source: "velodyne" projects the raw scans; "improved" reads the 16-bit PNGs of KITTI's depth benchmark.
        reference: of velodyne depth. "scanner" as in published figures on the Eigen split, which count depth along the
            scanner's forward axis (0.27 m more than the camera's z); see `DepthReference`.

    Raises:
        UserError: empty split, or a scan, image or calibration that is missing or damaged; then `out` is not written.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise UserError(f"ground truth is stored as .npz, not as {out.name}")
    if not entries:
        raise UserError("the split has no frame to export ground truth for")
    with atomic_path(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=4) as archive:
        for index, entry in enumerate(tqdm(entries, desc="ground truth", unit="map", disable=not progress)):
            if source == "improved":
                depth = read_depth_png(improved_depth_path(data_path, entry.folder, entry.frame, entry.side))
            else:
                depth = read_scan_depth(data_path, entry.folder, entry.frame, entry.side, reference)
            _write(archive, _key(index), depth)
        _write(archive, NAMES_KEY, np.array([str(entry) for entry in entries]))
        _write(archive, SOURCE_KEY, np.array([source]))


class GroundTruth:
    """Depth maps of a file, float32 (H, W) each, metres, 0 where unknown; read one at a time, in the split's order.

    Attributes:
        names: of the frames, as split files write them; None in the originals' files.
        source: "velodyne" or "improved"; the originals' files are taken for the former.
    """

    def __init__(self, path: str | Path) -> None:
        """Open `path`: an .npz of `export_ground_truth`, or the original trainers' gt_depths.npz (key "data").

        Raises:
            UserError: missing, damaged or foreign file, or one whose pickle asks for anything but plain arrays.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"no ground truth at {self.path}: make it with `hybrid-encoder export-gt`")
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = {name.removesuffix(".npy") for name in archive.namelist()}
        except Exception as error:  # zipfile raises errors of many kinds, each of them a damaged file
            raise UserError(f"{self.path} is no .npz file of depth maps: {error}") from error
        self._stored: list[np.ndarray] | None = None
        self.names: tuple[str, ...] | None = None
        self.source = "velodyne"
        if NAMES_KEY in members:
            names = self._read(NAMES_KEY)
            if not isinstance(names, np.ndarray) or names.ndim != 1 or names.dtype.kind != "U":
                raise UserError(f"{self.path}: the array {NAMES_KEY} holds no list of names")
            self.names = tuple(names.tolist())
            if SOURCE_KEY in members and np.array_equal(self._read(SOURCE_KEY), ["improved"]):
                self.source = "improved"
            missing = [key for key in map(_key, range(len(self.names))) if key not in members]
            if missing:
                raise UserError(f"{self.path} is incomplete: it names {len(self.names)} maps and lacks {missing[0]}")
        elif FIELD_KEY in members:
            stored = self._read(FIELD_KEY)
            if isinstance(stored, np.ndarray) and stored.ndim != 3:
                raise UserError(f"{self.path}: the array {FIELD_KEY} is {stored.shape}, expected depth maps (N, H, W)")
            self._stored = list(stored)
        else:
            found = ", ".join(sorted(members)[:5]) or "nothing"
            raise UserError(f"{self.path} holds no ground truth: expected arrays `names` or `data`, found {found}")

    def __len__(self) -> int:
        return len(self._stored if self.names is None else self.names)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> np.ndarray:
        index = range(len(self))[index]
        depth = self._read(_key(index)) if self._stored is None else self._stored[index]
        if not isinstance(depth, np.ndarray) or depth.ndim != 2 or depth.dtype.kind not in "fiu" or not depth.size:
            found = f"{depth.dtype} {depth.shape}" if isinstance(depth, np.ndarray) else f"{len(depth)} arrays"
            raise UserError(f"{self.path}: map {index} is {found}, expected depths of shape (H, W)")
        if not ((depth >= 0) & (depth <= MAX_METRES)).all():
            raise UserError(
                f"{self.path}: map {index} holds values that are no depth: expected metres, 0 where unknown"
            )
        return depth.astype(np.float32)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def _read(self, key: str) -> np.ndarray | list[np.ndarray]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return read_npy(archive.read(f"{key}.npy"))
        except Exception as error:  # zipfile and the decompressors raise errors of many kinds
            raise UserError(f"{self.path}: the array {key} cannot be read: {error}") from error


def _write(archive: zipfile.ZipFile, key: str, array: np.ndarray) -> None:
    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _key(index: int) -> str:
    return f"depth_{index:06d}"
