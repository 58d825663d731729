"""The lookup frames of a batch: their poses, and how training augments them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..model.contract import DepthEncoder
from ..stage2.geometry import compose
from ..stage2.networks import PoseNetworks

STATIC_SHARE = 0.25
MISSING_SHARE = 0.25
"""Shares of training samples whose camera is made static, and whose lookup frames are removed (ManyDepth, section
3.5)."""


def matching_poses(
    nets: PoseNetworks,
    encoder: DepthEncoder | None,
    frames: dict[int, Tensor],
    known: dict[Any, Tensor],
    unit: Tensor | None = None,
) -> dict[int, Tensor]:
    """Poses from frame 0 to every other frame, composed of steps between neighbours; zeros where a frame is black.

    Pose nets predict motion between neighbours only: the pose to frame -2 is the one to -1 and the one from -1 to -2.

    Args:
        nets, encoder: the pose nets, and the teacher's encoder, which some of them read.
        frames: (B, 3, H, W) by frame id; a black frame does not exist.
        known: poses from frame 0 that need not be predicted again.
        unit: scalar, the unit of the nets' translations; None: the unit of depth.

    Returns:
        (B, 4, 4) by frame id, without gradient.
    """
    poses: dict[int, Tensor] = {}
    exist = {frame_id: image.flatten(1).any(1) for frame_id, image in frames.items()}
    for frame_id in sorted((i for i in frames if i != 0), key=abs):
        nearer = frame_id + 1 if frame_id < 0 else frame_id - 1
        if abs(frame_id) == 1 and frame_id in known:
            pose = known[frame_id].detach()
        else:
            step = -1 if frame_id < 0 else 1
            pose = nets(encoder, {0: frames[nearer], step: frames[frame_id]}, unit=unit)[step]
            if nearer != 0:
                pose = compose(pose, poses[nearer])
        poses[frame_id] = pose * exist[frame_id].view(-1, 1, 1)
    return poses


def augment_matching(current: Tensor, lookup: Tensor, poses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Makes the camera of some samples static (lookup frames become the current one), and takes others' frames away.

    Args:
        current: (B, 3, H, W), not colour-jittered, so that it differs from the current frame that the net sees.
        lookup: (B, F, 3, H, W).
        poses: (B, F, 4, 4).

    Returns:
        Lookup frames and poses; (B,) bool, True where a sample was changed.
    """
    draw = torch.rand(len(current)).to(current.device)
    static = draw < STATIC_SHARE
    missing = (draw >= STATIC_SHARE) & (draw < STATIC_SHARE + MISSING_SHARE)
    lookup = torch.where(static.view(-1, 1, 1, 1, 1), current[:, None], lookup)
    poses = torch.where(missing.view(-1, 1, 1, 1), 0, poses)
    return lookup, poses, static | missing
