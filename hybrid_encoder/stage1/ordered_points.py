"""The sources of ordered points: lanes of TuSimple, LiDAR depth of KITTI, exact depth of rendered scenes, depth maps
of any model.

Every source gives images, each with sequences of seven points ordered NEAR to FAR.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import cast, get_args

import numpy as np

from ..config import SEED_OFFSETS
from ..data.calibration import CAMERAS, view_scale
from ..data.kitti import missing_image_remedy
from ..data.present import Folders, complete_samples
from ..data.splits import SplitEntry, find_split, read_split
from ..data.velodyne import read_scan_depth, scan_path
from ..errors import UserError
from ..images import read_image
from ..synthetic.sequence import SyntheticSource
from .depth_maps import DepthKind, DepthMapSource
from .lanes import TuSimpleSource
from .mixing import MixedSource
from .sequences import SEQUENCES_PER_DEPTH_MAP, OrderedPatchSource, held_out, sequences_from_depth

RENDERED_SCENES = 480


class KittiDepthSource:
    """KITTI raw frames whose points are ordered by LiDAR depth; every call of `read` draws new points.

    Args:
        data_path: KITTI raw in Monodepth2's layout.
        part: "train" or "val".
        split: name or folder of split files; None: all frames that have a scan, every tenth held out for "val".

    Raises:
        UserError: no such folder, no frame with a scan.
    """

    def __init__(self, data_path: Path, part: str, split: str | None = None) -> None:
        self.data_path = data_path
        if split is not None:
            self.entries = read_split(find_split(split, data_path) / f"{part}_files.txt")
        else:
            found = sorted(data_path.glob("*/*/velodyne_points/data/*.bin"))
            scans = [scan for scan in found if re.fullmatch("[0-9]{10}", scan.stem)]
            folders = [scan.parents[2].relative_to(data_path).as_posix() for scan in scans]
            entries = [SplitEntry(folder, int(scan.stem), "l") for folder, scan in zip(folders, scans, strict=True)]
            self.entries = held_out(entries, part)
        if not self.entries:
            raise UserError(
                f"{data_path}: no frame with a velodyne scan in the {part} part: expected KITTI raw's layout"
            )

    def leave_out_missing(self, skip_bad: int) -> None:
        """Leaves out frames without an image or a scan, at most `skip_bad` of them.

        Raises:
            UserError: more frames lack files, or all of them; names the first.
        """
        what = f"images and scans are missing from {self.data_path}"
        self.entries = complete_samples(self.entries, self._files, what, skip_bad, self._remedy)

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        return str(self.entries[index])

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        entry = self.entries[index]
        path = self.image_path(entry)
        image = read_image(path if path.exists() else path.with_suffix(".png"))
        depth = read_scan_depth(self.data_path, entry.folder, entry.frame, entry.side)
        remedy = "use the images as KITTI has them, or resized with their proportions kept"
        scale = view_scale(depth.shape[::-1], image.shape[1::-1], f"LiDAR depth of {entry}", remedy)
        points = sequences_from_depth(depth, SEQUENCES_PER_DEPTH_MAP, rng)
        return image, points * np.array(scale, dtype=np.float32)

    def image_path(self, entry: SplitEntry) -> Path:
        """Where a frame's image lies as .jpg; it may lie there as .png instead."""
        camera = self.data_path / entry.folder / f"image_0{CAMERAS[entry.side]}" / "data"
        return camera / f"{entry.frame:010d}.jpg"

    def _files(self, entry: SplitEntry, folders: Folders) -> dict[Path, str]:
        image = self.image_path(entry)
        if not folders.has(image) and folders.has(image.with_suffix(".png")):
            image = image.with_suffix(".png")
        scan = scan_path(self.data_path, entry.folder, entry.frame)
        return {image: f"image of {str(entry)!r}", scan: f"scan of {str(entry)!r}"}

    def _remedy(self, path: Path, folders: Folders) -> str:
        if path.suffix == ".bin":
            return "copy KITTI's velodyne_points beside the images"
        return missing_image_remedy(path, folders)


class SyntheticDepthSource:
    """Rendered scenes with exact depth; training and validation scenes have different seeds."""

    def __init__(self, part: str, seed: int, height: int, width: int) -> None:
        count = RENDERED_SCENES if part == "train" else RENDERED_SCENES // 8
        self.scenes = SyntheticSource(
            seed=seed + SEED_OFFSETS[part], sequences=count, frames=1, height=height, width=width, margin=0
        )

    def __len__(self) -> int:
        return len(self.scenes)

    def name(self, index: int) -> str:
        return self.scenes.name(index)

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        depth = self.scenes.depth(index)
        return self.scenes.read(index, 0), sequences_from_depth(depth, SEQUENCES_PER_DEPTH_MAP, rng)


def open_sources(
    specs: list[str],
    part: str,
    size: tuple[int, int],
    seed: int = 0,
    skip_bad: int = 0,
    mix_ratio: float | None = None,
) -> MixedSource:
    """The sources of all `--data` options, mixed.

    "tusimple:FOLDER[:LABEL]", "kitti:FOLDER[:SPLIT]", "depth:IMAGES:DEPTHS:KIND", "synthetic:" or "synthetic:SEED"
    (rendered in memory), and "synthetic:FOLDER" (written by `hybrid-encoder synth`, in both of its layouts).

    Args:
        size: height and width of images that are rendered in memory.
        skip_bad: how many samples of each source may lack files and are left out.
        mix_ratio: as for `MixedSource`, in training.

    Raises:
        UserError: unknown source, or what the source itself finds wrong.
    """
    sources = [source for spec in specs for source in _sources(spec, part, size, seed, skip_bad)]
    return MixedSource(sources, mix_ratio if part == "train" else None)


def _sources(spec: str, part: str, size: tuple[int, int], seed: int, skip_bad: int) -> list[OrderedPatchSource]:
    kind, _, rest = spec.partition(":")
    if kind not in ("tusimple", "kitti", "synthetic", "depth"):
        raise UserError(
            f"--data {spec}: expected tusimple:FOLDER, kitti:FOLDER, depth:IMAGES:DEPTHS:KIND or synthetic:[FOLDER or "
            "seed]"
        )
    if kind == "synthetic" and re.fullmatch("[0-9]{0,9}", rest):
        return [SyntheticDepthSource(part, int(rest or seed), *size)]
    sources: list[TuSimpleSource | KittiDepthSource | DepthMapSource] = []
    holds = _depth_kind(spec) if kind == "depth" else None
    path, name = _folder_and_name(rest if holds is None else rest.removesuffix(f":{holds}"))
    folder = _existing(spec, path)
    if holds is not None:
        sources = [DepthMapSource(folder, _existing(spec, name), holds, part)]
    elif kind == "tusimple":
        sources = [TuSimpleSource(folder, part, name or None)]
    elif kind == "kitti":
        sources = [KittiDepthSource(folder, part, name or None)]
    else:
        sources = [
            TuSimpleSource(folder / "tusimple", part),
            KittiDepthSource(folder / "kitti", part, name or "synthetic"),
        ]
    for source in sources:
        source.leave_out_missing(skip_bad)
    return [*sources]


def _existing(spec: str, path: str) -> Path:
    folder = Path(os.path.expanduser(path))  # shells expand ~ only at the beginning of a word
    if not path:
        raise UserError(f"--data {spec}: no folder given")
    if not os.path.isdir(folder):  # Path.is_dir raises for names that are too long
        raise UserError(f"--data {spec}: {path}: no such folder")
    return folder


def _depth_kind(spec: str) -> DepthKind:
    """KIND of "depth:IMAGES:DEPTHS:KIND". A map does not show whether its large numbers are near or far."""
    kind = spec.rpartition(":")[2]
    if kind not in get_args(DepthKind):
        raise UserError(
            f"--data {spec}: say what the depth maps hold, depth:IMAGES:DEPTHS:KIND, where KIND is metric (depth in "
            "any unit), relative (depth up to a factor and a shift: larger is farther) or inverse (disparity: larger "
            "is nearer, as Depth Anything and MiDaS predict it)"
        )
    return cast(DepthKind, kind)


def _folder_and_name(text: str) -> tuple[str, str]:
    """The parts of FOLDER[:NAME]. FOLDER is the longest beginning that is a folder, since paths may contain colons.

    A colon after a single letter and before a slash is a Windows drive's.

    >>> _folder_and_name("nowhere:eigen")
    ('nowhere', 'eigen')
    """
    colons = [found.start() for found in re.finditer(":", text)]
    for end in [len(text), *reversed(colons)]:
        if os.path.isdir(os.path.expanduser(text[:end])):
            return text[:end], text[end + 1 :]
    drives = {found.end(1) for found in re.finditer(r"(?:^|:)([A-Za-z]):[\\/]", text)}
    first = next((colon for colon in colons if colon not in drives), len(text))
    return text[:first], text[first + 1 :]
