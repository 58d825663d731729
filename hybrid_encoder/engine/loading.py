"""How a training run loads its data."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from ..data.loader import LoaderOptions, SampleDataset, make_loader
from ..errors import UserError, naming
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


def load_part(
    dataset: SampleDataset[Any],
    batch_size: int,
    part: str,
    options: TrainingOptions,
    processes: Processes,
) -> DataLoader[Any]:
    """The samples of one part in batches, this process's share of them.

    Raises:
        UserError: fewer samples than processes, or fewer training samples than a batch holds.
    """
    trains = part == "train"
    with naming(f"the {part} part"):
        loader = make_loader(dataset, batch_size, trains, loader_options(options, processes))
    if trains and not len(loader):
        raise UserError(f"{len(dataset)} training samples are fewer than --batch_size {batch_size}: lower it")
    return loader
