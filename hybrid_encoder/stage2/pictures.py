"""Pictures of one validation sample for TensorBoard: what the nets see and find, and what the loss compares."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from ..colormap import colorize_depth, colorize_disparity
from ..data.dataset import SelfSupervisedDataset
from ..model.encoder import HybridEncoder
from .geometry import project, warp
from .model import DepthBatch, MonoDepth
from .objective import self_supervised_loss


def middle_sample(dataset: SelfSupervisedDataset, to_device: Callable[[dict[str, object]], DepthBatch]) -> DepthBatch:
    """The sample in the middle of a data set as a batch of one; the next readable one where it cannot be read.

    Raises:
        UserError: more unreadable samples than `--skip_bad` allows.
    """
    return to_device(default_collate(dataset.__getitems__([(0, len(dataset) // 2)])))


@torch.no_grad()
def sample_pictures(model: MonoDepth, batch: DepthBatch) -> dict[str, np.ndarray]:
    """Frame 0, its depth, the first source frame warped into it, the pixels that auto-masking leaves in, and where the
    weights say how stage 1 ranked patches, the closeness by language; uint8 RGB by name.

    Args:
        model: in evaluation mode.
        batch: of which the first sample is shown.
    """
    predicted, view = model.predict(batch), model.view_of(batch)
    objective = self_supervised_loss(predicted.disparities, view, predicted.poses, model.objective)
    source, frame = next(iter(view.sources.items()))
    warped = warp(frame, project(objective.depth, view.K, predicted.poses[source]))
    pictures = {
        "frame": rgb(batch.frames[0]),
        "depth": colorize_depth(objective.depth[0, 0].float().cpu().numpy()),
        f"frame_{source}_warped": rgb(warped),
        "auto_mask": rgb(objective.auto_mask.float().expand(-1, 3, -1, -1)),
    }
    config = model.encoder.config
    if config is not None and config.ranking != "unknown":
        cells = cast(HybridEncoder, model.encoder).closeness(batch.augmented[0][:1])
        pictures["closeness_by_language"] = colorize_disparity(cells[0].cpu().numpy())
    return pictures


def rgb(image: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [0, 1] -> the first as uint8 RGB (H, W, 3)."""
    pixels: np.ndarray = (image[0].float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return pixels
