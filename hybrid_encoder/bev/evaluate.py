"""Evaluates a BEV model: IoU by class and distance, beside the IoU of the best constant map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data.loader import LoaderOptions, make_loader
from ..data.splits import evenly_spaced
from .checkpoint import SavedBev
from .dataset import RigDataset, to_batch
from .grid import BevGrid
from .maps import MapSettings
from .model import BevBatch, BevModel
from .options import BevEvaluateOptions
from .overlap import best_constant, iou, overlap, ring_masks
from .rigs import open_rigs

DRAWN = 0.5
"""A cell belongs to the prediction if its probability is higher."""


@dataclass(frozen=True)
class BevResult:
    """IoU over all samples of a part together.

    Attributes:
        classes: names.
        ranges: names of the columns: all cells, then each range of distances.
        model, constant: (K, len(ranges)), IoU of the model, and of the best map that is the same for all samples
            (`best_constant`); NaN where truth and prediction are both empty.
        samples: number of samples.
    """

    classes: tuple[str, ...]
    ranges: tuple[str, ...]
    model: np.ndarray
    constant: np.ndarray
    samples: int

    def table(self) -> str:
        """Two lines for each class: the model, and the best constant map."""
        lines = [" ".join(["IoU".ljust(26), *(name.rjust(9) for name in self.ranges)])]
        for name, *found in zip(self.classes, self.model, self.constant, strict=True):
            for label, values in zip((name, f"{name}, without an image"), found, strict=True):
                lines.append(" ".join([label.ljust(26), *(f"{value:9.3f}" for value in values)]))
        return "\n".join([*lines, f"{self.samples} samples"])


def draw(model: BevModel, batch: BevBatch) -> np.ndarray:
    """The predicted cells of each class: bool (B, K, X, Y)."""
    logits = model.logits(batch.images, batch.intrinsics, batch.camera_to_ego)
    found: np.ndarray = (logits.sigmoid() > DRAWN).cpu().numpy()
    return found


def evaluate(options: BevEvaluateOptions, saved: SavedBev, device: torch.device) -> BevResult:
    """Predicts the maps of a part and compares them with the truth.

    Args:
        saved: with the model on the device.

    Raises:
        UserError: as `open_rigs`.
    """
    nets = saved.model.nets
    source = open_rigs(options, options.part)
    indices = evenly_spaced(len(source), options.samples)
    maps = MapSettings(nets.grid, nets.classes, options.least_visibility)
    dataset = RigDataset(source, indices, nets.size, maps)
    ends = reached(options.ranges, nets.grid)
    masks = np.concatenate([np.ones((1, *nets.grid.shape), dtype=bool), ring_masks(nets.grid, ends)])
    constant = np.stack([best_constant(mean) for mean in saved.mean_maps.numpy()])
    counts = np.zeros((2, 2, len(nets.classes), len(masks)), dtype=np.int64)
    for collated in make_loader(dataset, options.batch_size, False, LoaderOptions(options.num_workers)):
        batch = to_batch(collated, device)
        truth = batch.maps.bool().cpu().numpy()
        counts[0] += overlap(draw(saved.model, batch), truth, masks)
        counts[1] += overlap(np.broadcast_to(constant, truth.shape), truth, masks)
    starts = (0.0, *ends[:-1])
    ranges = ("all", *(f"{start:g}-{end:g} m" for start, end in zip(starts, ends, strict=True)))
    return BevResult(nets.classes, ranges, iou(counts[0]), iou(counts[1]), len(dataset))


def reached(ends: Sequence[float], grid: BevGrid) -> tuple[float, ...]:
    """The ends of the ranges that start within the grid, in metres.

    >>> reached((10, 20, 30, 50), BevGrid(-25, 25, -25, 25))
    (10, 20, 30)
    """
    reach = max(grid.x_max, grid.y_max)
    return tuple(end for start, end in zip((0.0, *ends[:-1]), ends, strict=True) if start < reach)
