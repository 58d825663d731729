"""What `evaluate` reads besides weights and data sets, and what it writes besides its table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..options import Options, option


@dataclass(frozen=True)
class EvaluationFileOptions(Options):
    """The names are the original's where it has one."""

    pose: bool = option(
        False,
        "odometry in place of depth, error of 5-frame snippets: --dataset kitti_odom --split odom_9, or synthetic",
    )
    eval_out_dir: Path | None = option(None, "--pose: also write the predicted motions, poses.npy", writes="folder")
    vis_dir: Path | None = option(None, "--pose: also write maps of both paths", writes="folder")
