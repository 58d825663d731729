"""How a training run loads its data."""

from __future__ import annotations

from ..data.loader import LoaderOptions
from .options import TrainingOptions
from .processes import Processes


def loader_options(options: TrainingOptions, processes: Processes) -> LoaderOptions:
    """The loader's part of a run's options, for this process's share of the samples."""
    return LoaderOptions(
        num_workers=options.num_workers,
        seed=options.seed,
        rank=processes.rank,
        world_size=processes.world_size,
        skip_bad=options.skip_bad,
        pin_memory=processes.device.type == "cuda",
    )
