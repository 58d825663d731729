"""Lists the files that a source of frames reads: they identify a data set without reading it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..images import IMAGE_SUFFIXES
from .cityscapes import CityscapesSource
from .dataset import FrameSource
from .kitti import KittiOdometrySource, KittiRawSource
from .sample import FrameId
from .video import VIDEO_SUFFIXES
from .video_source import VideoSource

ListedSource = KittiRawSource | KittiOdometrySource | CityscapesSource
"""Sources whose `entries` are the lines of a split file."""


def input_files(source: FrameSource, frame_ids: Sequence[FrameId]) -> Iterator[Path]:
    """The files of a source's frames; a file may occur several times. Rendered scenes have none.

    Args:
        frame_ids: the frames that are read; some of KITTI's files may not exist.
    """
    if isinstance(source, KittiRawSource | KittiOdometrySource):
        for entry in source.entries:
            for frame_id in frame_ids:
                if frame_id == "s" or entry.frame + frame_id >= 0:
                    yield source.path(entry, frame_id)
    elif isinstance(source, CityscapesSource):
        for line in source.entries:
            yield source.image_path(line)
            yield source.camera_path(line)
    elif isinstance(source, VideoSource):
        for file in source.path.iterdir() if source.path.is_dir() else [source.path]:
            if file.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and not file.name.startswith("."):
                yield file


def cameras(source: FrameSource) -> dict[str, list[float]]:
    """K, row by row, from KITTI's calibration files, by drive and side; empty where no such file is read."""
    if not isinstance(source, KittiRawSource | KittiOdometrySource) or source.camera is not None:
        return {}
    drives = {(entry.folder, entry.side): entry for entry in source.entries}
    found = {f"{folder} {side}": source.calibrated(entry) for (folder, side), entry in sorted(drives.items())}
    return {name: camera.K.ravel().tolist() for name, camera in found.items() if camera is not None}
