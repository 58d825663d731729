"""Health of a run, read off its validation: whether depth is flat, at a limit or upside down, and how far it moves.

A self-supervised run may end in constant or inverted depth while its loss still falls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.sample import FrameId
from ..model.disparity import FLAT_SPREAD

AT_LIMIT = 1.05
"""Depth within this factor of a limit counts as being there."""


class Range(NamedTuple):
    """A metric's healthy range, and what it means to leave it.

    Attributes:
        name: of the metric.
        low, high: the range.
        fault: what is wrong outside, in words.
        remedy: what helps, in words; {prevent} stands for --prevent_collapse, where the run can take it.
    """

    name: str
    low: float
    high: float
    fault: str
    remedy: str


_RESTART = "train again from the start, with {prevent}another --seed or a lower --learning_rate"
HEALTHY = (
    Range(
        "limit_share", 0, 0.8, "almost all depth is at --min_depth or --max_depth",
        f"{_RESTART}; with --use_stereo, whose cameras are 0.1 apart, limits between which the scenes lie",
    ),
    Range("log_depth_spread", FLAT_SPREAD, math.inf, "depth is flat", _RESTART),
    Range("row_correlation", -1, 0.5, "depth is upside down, far below and near above", _RESTART),
    Range(
        "translation", 1e-3, math.inf, "the camera hardly moves",
        "take frames that lie farther apart (--frame_ids 0 -2 2), or leave out clips in which it stands still",
    ),
    Range("translation", 0, 1, "the camera moves farther than the scene is deep", _RESTART),
)  # fmt: skip
"""In the order in which they are told: of a flat map, the rows mean nothing."""


@torch.no_grad()
def health_metrics(
    depth: Tensor, poses: Mapping[FrameId, Tensor], min_depth: float, max_depth: float
) -> dict[str, Tensor]:
    """The metrics of a batch that `HEALTHY` has ranges for, as scalars, averaged over images.

    Args:
        depth: (B, 1, H, W).
        poses: (B, 4, 4) from frame 0 to each source; the other camera's, "s", is no motion and is left out.
        min_depth, max_depth: its limits.

    Returns:
        "log_depth_spread": standard deviation of log depth within an image. "limit_share": share of pixels at a limit.
        "row_correlation": of log depth with image rows, from -1 (far above, near below) to 1. "translation": distance
        between frames in mean depths of the image; absent without motion.
    """
    log = depth.float().log()
    rows = log.mean((1, 3))
    rows = rows - rows.mean(1, keepdim=True)
    down = torch.linspace(-1, 1, rows.shape[1], device=rows.device)
    at_limit = (depth < AT_LIMIT * min_depth) | (depth > max_depth / AT_LIMIT)
    metrics = {
        "log_depth_spread": log.std((1, 2, 3), correction=0).mean(),
        "limit_share": at_limit.float().mean(),
        "row_correlation": ((rows @ down) / (rows.norm(dim=1) * down.norm() + 1e-6)).mean(),
    }
    moves = [pose[:, :3, 3].norm(dim=1) for frame_id, pose in poses.items() if frame_id != "s"]
    if moves:
        metrics["translation"] = (torch.stack(moves) * (1 / depth.float()).mean((1, 2, 3))).mean()
    return metrics


def unhealthy(metrics: Mapping[str, float], preventable: bool = False) -> str:
    """The first fault of a validation and what helps, in one line; empty where all is well or not known.

    Args:
        preventable: whether the run could be trained with `--prevent_collapse`, and is not.

    >>> unhealthy({"log_depth_spread": 0.8, "limit_share": 0.3, "row_correlation": -0.9, "translation": 0.05})
    ''
    >>> unhealthy({"log_depth_spread": 0.8, "row_correlation": 0.9}).partition(";")[0]
    'depth is upside down, far below and near above (row_correlation 0.9, healthy from -1 to 0.5)'
    """
    for name, low, high, fault, remedy in HEALTHY:
        value = metrics.get(name, math.nan)
        if value < low or value > high:
            healthy = f"from {low:g}" + (f" to {high:g}" if high < math.inf else "")
            helps = remedy.format(prevent="--prevent_collapse, " if preventable else "")
            return f"{fault} ({name} {value:.3g}, healthy {healthy}); what helps: {helps}"
    return ""
