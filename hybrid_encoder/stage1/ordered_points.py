"""Where ordered patches come from: lanes of TuSimple, LiDAR depth of KITTI, exact depth of rendered scenes.

One abstraction: an image, and sequences of seven points ordered NEAR to FAR.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..config import DEPTH_WORDS, SEED_OFFSETS
from ..data.calibration import CAMERAS, MAX_SIDE
from ..data.splits import find_split, read_split, stays_inside
from ..data.velodyne import read_scan_depth, scan_path
from ..errors import UserError
from ..images import read_image
from ..synthetic.sequence import SyntheticSource

NUM_POINTS = len(DEPTH_WORDS)
"""Points of a sequence, one for each word."""
SEQUENCES_PER_DEPTH_MAP = 8
MIN_DEPTH_RATIO = 1.08
"""Neighbours in a sequence drawn from a depth map differ at least by this factor: more than a scanner's noise."""
HOLD_OUT = 10
"""Where a source has no validation part, every tenth image is held out."""


RENDERED_SCENES = 480
VALIDATION_SEED = SEED_OFFSETS["val"]
"""Added to the seed of rendered validation scenes."""


class OrderedPatchSource(Protocol):
    """Images with sequences of points ordered near to far."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Names the image in messages."""
        ...

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """uint8 RGB (H, W, 3), and points (S, 7, 2), x and y in its pixels; S may be 0 where depth does not suffice."""
        ...


class TuSimpleSource:
    """Lanes of TuSimple label files: points along a lane are ordered by distance without any depth label.

    Args:
        root: folder that raw_file is relative to.
        part: "train" or "val". Label files with "val" in their name are for validation, the others for training; where
            either has none, every tenth image of all label files is held out for "val".
        label: one label file of the folder, by name without .json, in place of all; every tenth image is held out.

    Raises:
        UserError: no label file, a line of the wrong form, or no lane with seven points.
    """

    def __init__(self, root: Path, part: str, label: str | None = None) -> None:
        self.root = root
        if not root.is_dir():
            raise UserError(f"{root}: no such folder, expected TuSimple's clips and label_data_*.json")
        if label and not (stays_inside(label) and "/" not in label):
            raise UserError(f"{label!r} is no name of a label file in {root}: expected it without folder and .json")
        files = [root / f"{label}.json"] if label else sorted(root.glob("label_data*.json"))
        if not files or not files[0].is_file():
            raise UserError(f"{root} has no {label or 'label_data_*'}.json: expected TuSimple's label files")
        val = [file for file in files if "val" in file.stem]
        if 0 < len(val) < len(files):
            files = val if part == "val" else [file for file in files if file not in val]
            entries = [entry for file in files for entry in read_labels(file)]
        else:
            entries = held_out([entry for file in files for entry in read_labels(file)], part)
        self.entries = [(image, lanes) for image, lanes in entries if len(lanes)]
        if not self.entries:
            raise UserError(
                f"{', '.join(f.name for f in files)} in {root}: no lane with {NUM_POINTS} points ({part} part)"
            )

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        return str(self.entries[index][0])

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        name, lanes = self.entries[index]
        path = self.root / name
        image = read_image(path)
        height, width = image.shape[:2]
        if not ((lanes >= 0) & (lanes < (width, height))).all():
            raise UserError(
                f"{path} is {width}x{height}, but its label has lane points outside: it is the label of another image"
            )
        return image, lanes


class KittiDepthSource:
    """KITTI raw frames whose points are ordered by LiDAR depth; every reading draws new points.

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
            lines = read_split(find_split(split, data_path) / f"{part}_files.txt")
            frames = [(line.folder, line.frame, line.side) for line in lines]
            self.frames = [f for f in frames if scan_path(data_path, f[0], f[1]).is_file()]
        else:
            found = sorted(data_path.glob("*/*/velodyne_points/data/*.bin"))
            scans = [scan for scan in found if re.fullmatch("[0-9]{10}", scan.stem)]
            folders = [scan.parents[2].relative_to(data_path).as_posix() for scan in scans]
            self.frames = held_out(
                [(folder, int(scan.stem), "l") for folder, scan in zip(folders, scans, strict=True)], part
            )
        if not self.frames:
            raise UserError(
                f"{data_path}: no frame with a velodyne scan in the {part} part: expected KITTI raw's layout"
            )

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        folder, frame, side = self.frames[index]
        return f"{folder} {frame} {side}"

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        folder, frame, side = self.frames[index]
        camera = self.data_path / folder / f"image_0{CAMERAS[side]}" / "data"
        path = camera / f"{frame:010d}.jpg"
        image = read_image(path if path.exists() else path.with_suffix(".png"))
        depth = read_scan_depth(self.data_path, folder, frame, side)
        if depth.shape != image.shape[:2]:
            height, width = min(depth.shape[0], image.shape[0]), min(depth.shape[1], image.shape[1])
            depth, image = depth[:height, :width], image[:height, :width]
        return image, sequences_from_depth(depth, SEQUENCES_PER_DEPTH_MAP, rng)


class SyntheticDepthSource:
    """Rendered scenes with exact depth; training and validation scenes have different seeds."""

    def __init__(self, part: str, seed: int, height: int, width: int) -> None:
        offset, count = (0, RENDERED_SCENES) if part == "train" else (VALIDATION_SEED, RENDERED_SCENES // 8)
        self.scenes = SyntheticSource(
            seed=seed + offset, sequences=count, frames=1, height=height, width=width, margin=0
        )

    def __len__(self) -> int:
        return len(self.scenes)

    def name(self, index: int) -> str:
        return self.scenes.name(index)

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        depth = self.scenes.depth(index)
        return self.scenes.read(index, 0), sequences_from_depth(depth, SEQUENCES_PER_DEPTH_MAP, rng)


class MixedSource:
    """Several sources as one, one after the other."""

    def __init__(self, sources: list[OrderedPatchSource]) -> None:
        self.sources = sources
        self.ends = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def _locate(self, index: int) -> tuple[OrderedPatchSource, int]:
        which = int(np.searchsorted(self.ends, index, side="right"))
        return self.sources[which], index - int(self.ends[which - 1] if which else 0)

    def name(self, index: int) -> str:
        source, inner = self._locate(index)
        return source.name(inner)

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        source, inner = self._locate(index)
        return source.read(inner, rng)


def open_sources(specs: list[str], part: str, size: tuple[int, int], seed: int = 0) -> OrderedPatchSource:
    """The sources of `--data SOURCE:PATH[:SPLIT]`, mixed.

    "tusimple:FOLDER[:LABEL]", "kitti:FOLDER[:SPLIT]", "synthetic:" or "synthetic:SEED" (rendered in memory), and
    "synthetic:FOLDER" (written by `hybrid-encoder synth`: both of its layouts). `size` is the height and width of
    what is rendered in memory.

    Raises:
        UserError: unknown source, or what the source itself finds wrong.
    """
    sources: list[OrderedPatchSource] = []
    for spec in specs:
        kind, _, rest = spec.partition(":")
        path, _, split = rest.partition(":")
        if kind not in ("tusimple", "kitti", "synthetic"):
            raise UserError(f"--data {spec}: expected tusimple:FOLDER, kitti:FOLDER or synthetic:[FOLDER or seed]")
        if kind == "synthetic" and re.fullmatch("[0-9]{0,9}", path):
            sources.append(SyntheticDepthSource(part, int(path or seed), *size))
            continue
        folder = Path(os.path.expanduser(path))  # which shells do only at the beginning of a word
        if not path:
            raise UserError(f"--data {spec}: no folder given")
        if not os.path.isdir(folder):  # Path.is_dir raises for names that are too long
            raise UserError(f"--data {spec}: {path}: no such folder")
        if kind == "tusimple":
            sources.append(TuSimpleSource(folder, part, split or None))
        elif kind == "kitti":
            sources.append(KittiDepthSource(folder, part, split or None))
        else:
            sources.append(TuSimpleSource(folder / "tusimple", part))
            sources.append(KittiDepthSource(folder / "kitti", part, split or "synthetic"))
    return MixedSource(sources)


def lane_points(xs: list[float], ys: list[float]) -> np.ndarray | None:
    """Seven evenly spaced points of a TuSimple lane, near to far: (7, 2), or None where fewer are valid.

    TuSimple's y ascends, from the horizon down to the bumper: its first valid point is the FARTHEST.
    """
    valid = [(x, y) for x, y in zip(xs, ys, strict=True) if x >= 0]
    if len(valid) < NUM_POINTS:
        return None
    interval = (len(valid) - 1) // (NUM_POINTS - 1)
    far_to_near = np.array(valid[:: interval or 1][:NUM_POINTS], dtype=np.float32)
    return far_to_near[::-1].copy()


def sequences_from_depth(depth: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Up to `count` sequences of seven points whose depths ascend by at least `MIN_DEPTH_RATIO` from one to the next.

    Args:
        depth: (H, W) metres, 0 where unknown.
        count: how many to draw; fewer come back where depth varies too little.
        rng: makes the choice.

    Returns:
        (S, 7, 2) float32, x and y, near to far.
    """
    rows, columns = np.nonzero(np.isfinite(depth) & (depth > 0))
    empty = np.zeros((0, NUM_POINTS, 2), np.float32)
    if len(rows) < NUM_POINTS:
        return empty
    order = np.argsort(depth[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    log_depth = np.log(depth[rows, columns])
    # One point of each seventh of the range of log depth; three times as many tries as wanted.
    edges = np.linspace(log_depth[0], log_depth[-1], NUM_POINTS + 1)
    first = np.searchsorted(log_depth, edges[:-1])
    last = np.searchsorted(log_depth, edges[1:])
    last[-1] = len(log_depth)
    if (first == last).any():
        return empty
    draws = rng.integers(first, last, size=(3 * count, NUM_POINTS))
    steps = np.diff(log_depth[draws], axis=1)
    kept = draws[(steps >= math.log(MIN_DEPTH_RATIO)).all(1)][:count]
    return np.stack([columns[kept], rows[kept]], axis=-1).astype(np.float32)


def held_out(entries: list[Any], part: str) -> list[Any]:
    """Every tenth entry (at least the last) for "val", the others for "train"; a single entry serves both."""
    if len(entries) < 2:
        return entries
    val = set(range(HOLD_OUT // 2, len(entries), HOLD_OUT)) or {len(entries) - 1}
    return [entry for i, entry in enumerate(entries) if (i in val) == (part == "val")]


def read_labels(file: Path) -> list[tuple[str, np.ndarray]]:
    """[(raw_file, (S, 7, 2) points near to far)] of one TuSimple label file, x and y in pixels, S 0 or more.

    Raises:
        UserError: unreadable file, or a line that is no label, named by its number; raw_file must be a plain path.
    """
    entries = []
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read the label file {file}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            label = json.loads(line)
            raw_file, lanes, ys = label["raw_file"], label["lanes"], label["h_samples"]
            if not isinstance(raw_file, str) or not all(len(lane) == len(ys) for lane in lanes):
                raise ValueError
            values = [*ys, *(x for lane in lanes for x in lane)]
            if not all(type(value) in (int, float) and abs(value) <= MAX_SIDE for value in values):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f'{where}: expected {{"raw_file": ..., "lanes": [[x, ...], ...], "h_samples": [y, ...]}}, x and y in '
                "pixels"
            ) from None
        if (np.diff(ys) <= 0).any() or min(ys, default=0) < 0:
            raise UserError(f"{where}: h_samples must be rows of the image, from above to below")
        if not stays_inside(raw_file):
            raise UserError(f"{where}: raw_file {raw_file[:100]!r} is no plain path within the folder {file.parent}")
        points = [p for lane in lanes if (p := lane_points(lane, ys)) is not None]
        entries.append((raw_file, np.stack(points) if points else np.zeros((0, NUM_POINTS, 2), np.float32)))
    return entries
