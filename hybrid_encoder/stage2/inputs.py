"""What a stage-2 run reads, so that the engine can tell whether a command resumes the same run."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from ..data.calibration import read_intrinsics
from ..data.dataset import FrameSource
from ..data.input_files import ListedSource, cameras, input_files
from ..data.kitti import KittiRawSource
from ..data.sample import FrameId
from ..data.velodyne import scan_path
from ..engine.same_run import file_digest, folder_digests, lines_digest
from .checkpoint import newest_weights
from .options import DataOptions


def run_inputs(
    options: Any, sources: Mapping[str, FrameSource], frame_ids: tuple[FrameId, ...], weights: Mapping[str, Path | None]
) -> dict[str, str]:
    """Everything that a run reads, by name, each with what tells its content from another's.

    Args:
        options: `DataOptions`.
        sources: by part, "train" and "val".
        frame_ids: the frames of a sample.
        weights: the files and folders of weights that the run starts from, by option.
    """
    found = data_inputs(options, sources, frame_ids)
    for name, path in weights.items():
        if path is not None:
            found |= weights_inputs(name, path)
    return found


def data_inputs(
    options: DataOptions, sources: Mapping[str, FrameSource], frame_ids: tuple[FrameId, ...]
) -> dict[str, str]:
    """Split lines, camera and files of both parts."""
    found: dict[str, str] = {}
    if options.intrinsics is not None:
        camera = read_intrinsics(options.intrinsics)
        distortion = [] if camera.distortion is None else camera.distortion.tolist()
        found["--intrinsics"] = lines_digest([*camera.K.ravel().tolist(), camera.image_size, *distortion])
    for part, source in sources.items():
        if isinstance(source, ListedSource):
            found[f"{part} split"] = lines_digest(source.entries)
        found |= {f"camera of {drive}": " ".join(f"{value:g}" for value in K) for drive, K in cameras(source).items()}
    if options.data_path is not None:
        root = options.data_path if options.data_path.is_dir() else options.data_path.parent
        files = chain.from_iterable(input_files(source, frame_ids) for source in sources.values())
        found |= folder_digests(chain(files, _truths(sources["val"])), root)
    return found


def weights_inputs(name: str, path: Path) -> dict[str, str]:
    """The content of a file of weights, or of the nets' files of a folder."""
    if path.is_file():
        return {f"--{name}": file_digest(path)}
    files = sorted(file for file in newest_weights(path).glob("*.pth") if file.name != "adam.pth")
    return {f"--{name} {file.name}": file_digest(file) for file in files}


def _truths(source: FrameSource) -> list[Path]:
    """The scans that validation compares depth with."""
    if not isinstance(source, KittiRawSource):
        return []
    return [scan_path(source.data_path, entry.folder, entry.frame) for entry in source.entries]
