"""Trains a lift-splat model on labelled rigs.

hybrid-encoder train bev --data_path NUSCENES --weights runs/mdp --out runs/bev
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..config import SIZE_MULTIPLE
from ..data.splits import evenly_spaced
from ..engine.bars import progress_bar
from ..engine.loading import load_part
from ..engine.loop import LoopOptions, fit
from ..engine.processes import Processes
from ..engine.same_run import fixed_options, options_text
from ..engine.step import one_cycle, optimizer_steps
from ..engine.task import PlainTask
from ..model.resnet import ResnetEncoder
from .checkpoint import BEST_FILE, LAST_FILE, save_bev, weights_file
from .dataset import RigAugmentation, RigDataset, to_batch
from .evaluate import draw
from .maps import MapSettings
from .model import BevBatch, BevModel
from .nets import BevNets
from .options import FREE_OPTIONS, BevOptions
from .overlap import iou, overlap
from .rigs import Part, open_rigs, run_inputs
from .start import starting_encoder
from .views import ViewAugmentation

MAX_MEAN_SAMPLES = 2000
"""Largest number of training samples whose maps are averaged; they are evenly spaced."""
_BEV_STRIDE = 8
"""Stride of the BEV decoder's smallest map, in cells."""


class BevTask(PlainTask):
    """The lift-splat model for the training loop.

    Args:
        mean_maps: as in `SavedBev`.
    """

    schedule_per_step = True

    def __init__(
        self,
        options: BevOptions,
        steps_per_epoch: int,
        val_loader: DataLoader[Any],
        mean_maps: np.ndarray,
        processes: Processes,
    ) -> None:
        self.options, self.val_loader = options, val_loader
        self.mean_maps = torch.from_numpy(mean_maps)
        self.model = build_model(options)
        processes.place(self.model)
        groups = parameter_groups(self.model, options)
        self.optimizer = torch.optim.AdamW(groups, lr=options.lr, weight_decay=options.weight_decay, fused=True)
        steps = optimizer_steps(options.epochs, steps_per_epoch, options.accumulate)
        self.scheduler = one_cycle(self.optimizer, steps)

    def to_device(self, batch: Any, device: torch.device) -> BevBatch:
        return to_batch(batch, device)

    def validate(self, processes: Processes) -> dict[str, float]:
        """IoU of each class over all validation samples together, and their mean."""
        classes = self.model.nets.classes
        counts = np.zeros((2, len(classes), 1), dtype=np.int64)
        for collated in self.val_loader:
            batch = to_batch(collated, processes.device)
            counts += overlap(draw(self.model, batch), batch.maps.bool().cpu().numpy())
        found = iou(processes.total(torch.from_numpy(counts)).numpy())[:, 0]
        # A class that is neither labelled nor predicted has no IoU.
        values = {
            f"{name}_iou": float(value) for name, value in zip(classes, found, strict=True) if math.isfinite(value)
        }
        return {**values, "mean_iou": sum(values.values()) / len(values)} if values else {}

    def save(self, epoch: int, metrics: dict[str, float], best: bool) -> None:
        """`bev.pth` is the best epoch's model by mean IoU, `bev_last.pth` the last one's."""
        for name in (LAST_FILE, *([BEST_FILE] if best or not metrics else [])):
            save_bev(weights_file(self.options.out, name), self.model, self.mean_maps, metrics)


def train(options: BevOptions, processes: Processes) -> dict[str, float]:
    """Trains; leaves weights, metrics and TensorBoard events in `options.out`.

    Returns:
        The last validation's metrics.

    Raises:
        UserError: bad options or data, before anything is written; or a run that cannot be resumed.
    """
    options.check()
    torch.manual_seed(options.seed)
    loader, val_loader = (open_loader(options, part, processes) for part in ("train", "val"))
    dataset, held_out = loader.dataset, val_loader.dataset
    assert isinstance(dataset, RigDataset)
    assert isinstance(held_out, RigDataset)
    task = BevTask(options, len(loader), val_loader, mean_maps(dataset, processes), processes)
    along, across = dataset.maps.grid.shape
    cells = (-(-along // _BEV_STRIDE)) * (-(-across // _BEV_STRIDE))
    pixels = len(dataset.cameras) * (options.height // SIZE_MULTIPLE) * (options.width // SIZE_MULTIPLE)
    loop = LoopOptions.of(
        options,
        folder=options.out,
        epochs=options.epochs,
        clip_grad=options.clip_grad,
        validate_first=True,
        best=("mean_iou", "max"),
        smallest_map=(loader.batch_size or 1) * min(pixels, cells),
        same_run=fixed_options(options, FREE_OPTIONS),
        inputs=run_inputs(options, {"train": dataset, "val": held_out}),
        notes={"opt.json": options_text(options)},
    )
    return fit(task, loader, loop, processes)


def build_model(options: BevOptions) -> BevModel:
    """The nets with the weights that the options name.

    Raises:
        UserError: as `starting_encoder`; or nets that cannot be built.
    """
    encoder, maps = starting_encoder(options), MapSettings.of(options)
    nets = BevNets(
        config=encoder.config,
        num_layers=encoder.num_layers if isinstance(encoder, ResnetEncoder) else 18,
        height=options.height,
        width=options.width,
        stride=options.stride,
        near=options.near,
        far=options.far,
        bins=options.bins,
        channels=options.channels,
        bev_channels=options.bev_channels,
        grid=maps.grid,
        classes=maps.classes,
    )
    if options.freeze_encoder:
        encoder.freeze()
    weights = {"vehicle": options.vehicle_weight, "road": 1.0}
    return BevModel(nets, encoder, tuple(weights[name] for name in nets.classes))


def parameter_groups(model: BevModel, options: BevOptions) -> list[dict[str, Any]]:
    """Parameter groups for the optimiser: those of the encoder, whose learning rate may differ, and the other nets."""
    groups = model.encoder.parameter_groups(options.lr if options.encoder_lr is None else options.encoder_lr)
    for group in groups:
        group.setdefault("weight_decay", 0.0)
    others = [*model.lift.parameters(), *model.decoder.parameters()]
    return [*groups, {"params": others, "lr": options.lr}]


def open_loader(options: BevOptions, part: Part, processes: Processes) -> DataLoader[Any]:
    """The samples of one part, in batches.

    Raises:
        UserError: what the source finds wrong, or fewer training samples than a batch holds.
    """
    source, trains = open_rigs(options, part, options.skip_bad), part == "train"
    indices = evenly_spaced(len(source), options.train_samples if trains else options.val_samples)
    if processes.is_main:
        print(f"found {len(source)} samples in the {part} part, of which {len(indices)} are used")
    least, largest = options.scale_range
    view = ViewAugmentation((least, largest), options.turn_degrees, options.mirror_probability)
    augmentation = RigAugmentation(view, options.jitter_probability, options.mirror_scene_probability)
    size = (options.height, options.width)
    dataset = RigDataset(source, indices, size, MapSettings.of(options), augmentation if trains else None, options.seed)
    return load_part(dataset, options.batch_size, part, options, processes)


def mean_maps(dataset: RigDataset, processes: Processes) -> np.ndarray:
    """For each class and cell, the share of samples in which the cell is of the class: float32 (K, X, Y).

    No image is read.
    """
    chosen = evenly_spaced(len(dataset), MAX_MEAN_SAMPLES)
    total = np.zeros((len(dataset.maps.classes), *dataset.maps.grid.shape), np.float32)
    for index in progress_bar(chosen, "drawing maps", shown=processes.is_main):
        total += dataset.maps.draw(dataset.rig(index))
    return total / np.float32(len(chosen))
