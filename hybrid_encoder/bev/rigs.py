"""The rigs that the options name, and digests that identify a run's inputs."""

from __future__ import annotations

from collections.abc import Mapping

from ..data.nuscenes import NuScenesSource, find_tables
from ..data.nuscenes_splits import Part
from ..engine.same_run import file_digest, folder_digests, lines_digest
from .dataset import RigDataset
from .options import BevOptions, RigDataOptions
from .start import encoder_file


def open_rigs(options: RigDataOptions, part: Part, skip_bad: int | None = None) -> NuScenesSource:
    """The samples of a part.

    Args:
        skip_bad: as of `NuScenesSource`.

    Raises:
        UserError: as `NuScenesSource`.
    """
    return NuScenesSource(options.data_path, part, options.version, skip_bad=skip_bad)


def run_inputs(options: BevOptions, datasets: Mapping[str, RigDataset]) -> dict[str, str]:
    """Digests of everything that a run reads, by name.

    Args:
        datasets: by part, "train" and "val".
    """
    files, found = list(find_tables(options.data_path, options.version).glob("*.json")), {}
    for part, dataset in datasets.items():
        rigs = [dataset.rig(index) for index in range(len(dataset))]
        found[f"{part} samples"] = lines_digest(rig.token for rig in rigs)
        files += [camera.image for rig in rigs for camera in rig.cameras]
        files += [rig.map_mask.path for rig in rigs if rig.map_mask is not None]
    found |= folder_digests(files, options.data_path)
    if options.weights is not None:
        found["--weights"] = file_digest(encoder_file(options.weights))
    return found
