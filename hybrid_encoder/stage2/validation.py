"""Validation of the trainers: mean losses, and depth errors where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ..data.dataset import FrameSource, SelfSupervisedDataset
from ..data.sample import Sample
from ..data.splits import evenly_spaced
from ..errors import UserError
from ..evaluation import EvaluationProtocol, evaluate_depths
from .evaluate import usual_crop
from .frames import ground_truth
from .options import DataOptions

MAX_TRUTHS = 60
"""Validation frames whose depth is compared with the truth; evenly spaced."""


def mean_scalars(batches: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """The mean over batches of each scalar of a model in evaluation; empty for no batch."""
    losses = [{name: float(value) for name, value in scalars.items()} for scalars in batches]
    return {name: float(np.mean([loss[name] for loss in losses])) for name in (losses[0] if losses else ())}


def depth_metrics(
    predict: Callable[[Sample], dict[str, Tensor]],
    dataset: SelfSupervisedDataset,
    source: FrameSource,
    options: Any,
) -> dict[str, float]:
    """AbsRel and a1 (median-scaled, up to 80 m) over validation frames whose depth is known; empty where none is.

    Args:
        predict: from a sample of the data set to 1 / depth, (1, 1, H, W), by the prefix of its metrics' names.
        dataset: the validation part.
        source: whose frames have ground truth.
        options: `DataOptions` and `RunOptions`.
    """
    disparities: dict[str, list[np.ndarray]] = {}
    truths = []
    for index in evenly_spaced(len(dataset), MAX_TRUTHS):
        try:
            truth = ground_truth(options, source, index)
            if truth is None:
                continue
            sample = dataset[index]
        except UserError:
            if not options.skip_bad:  # else the loader counts it
                raise
            continue
        truths.append(truth)
        for prefix, disparity in predict(sample).items():
            disparities.setdefault(prefix, []).append(disparity[0, 0].float().cpu().numpy())
    metrics = {}
    for prefix, predictions in disparities.items():
        errors = depth_errors(predictions, truths, options)
        metrics.update({f"{prefix}{name}": value for name, value in errors.items()})
    return metrics


def depth_errors(disparities: list[np.ndarray], truths: list[np.ndarray], options: DataOptions) -> dict[str, float]:
    """AbsRel and a1 of 1 / depth, median-scaled, in the crop that `evaluate` takes by itself; NaN of broken nets."""
    if not all(np.isfinite(disparity).all() for disparity in disparities):
        return {"abs_rel": math.nan, "a1": math.nan}
    protocol = EvaluationProtocol(crop=usual_crop(options.dataset), crop_bottom=options.crop_bottom)
    errors = evaluate_depths(disparities, truths, protocol).mean
    return {"abs_rel": errors.abs_rel, "a1": errors.a1}
