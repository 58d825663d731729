"""Digests of what a stage-1 run reads: by them the engine tells whether a command resumes the same run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..data.velodyne import scan_path
from ..engine.same_run import folder_digests, lines_digest
from .depth_maps import DepthMapSource
from .lanes import TuSimpleSource
from .mixing import MixedSource
from .ordered_points import KittiDepthSource
from .sequences import OrderedPatchSource


def stage1_inputs(parts: Iterable[tuple[str, OrderedPatchSource]]) -> dict[str, str]:
    """Labels, split lines and files of the parts: a digest of the content by the name of the input.

    Args:
        parts: the names "train" and "val", each with its source.
    """
    found: dict[str, str] = {}
    files: dict[Path, list[Path]] = {}
    for part, source in parts:
        sources = source.sources if isinstance(source, MixedSource) else [source]
        for number, one in enumerate(sources, 1):
            name = f"{part} lines of source {number}"
            if isinstance(one, TuSimpleSource):
                found[name] = lines_digest(f"{image} {lanes.tolist()}" for image, lanes in one.entries)
                files.setdefault(one.root, []).extend(one.root / image for image, _ in one.entries)
            elif isinstance(one, KittiDepthSource):
                found[name] = lines_digest(map(str, one.entries))
                files.setdefault(one.data_path, []).extend(_kitti_files(one))
            elif isinstance(one, DepthMapSource):
                found[name] = lines_digest(one.name(index) for index in range(len(one)))
                files.setdefault(one.images, []).extend(one.entries)
                files.setdefault(one.depths, []).extend(one.depth_path(image) for image in one.entries)
    for number, (root, paths) in enumerate(files.items(), 1):
        found |= {f"source {number}: {name}": text for name, text in folder_digests(paths, root).items()}
    return found


def _kitti_files(source: KittiDepthSource) -> Iterable[Path]:
    for entry in source.entries:
        drive = source.data_path / entry.folder
        image = source.image_path(entry)
        yield from (image, image.with_suffix(".png"), scan_path(source.data_path, entry.folder, entry.frame))
        yield from (drive.parent / "calib_cam_to_cam.txt", drive.parent / "calib_velo_to_cam.txt")
