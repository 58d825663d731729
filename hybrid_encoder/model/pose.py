"""Pose heads: the camera's motion between two frames, as axis-angle and translation (docs/METHOD.md, section 4)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .precision import in_own_precision

POSE_SCALE = 0.01
"""Outputs are scaled down so that training starts near standstill."""


class PoseDecoder(nn.Module):
    """Pose from encoder maps: one list of maps (frames stacked in the image) or one list per frame (shared encoder).

    Args:
        channels: channels of the coarsest map.
        num_inputs: how many lists of maps are given.
        num_poses: how many poses are predicted.
    """

    def __init__(self, channels: int, num_inputs: int = 1, num_poses: int = 2) -> None:
        super().__init__()
        self.num_poses = num_poses
        self.net = nn.ModuleList(
            [
                nn.Conv2d(channels, 256, 1),
                nn.Conv2d(256 * num_inputs, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
                nn.Conv2d(256, 6 * num_poses, 1),
            ]
        )

    def forward(self, inputs: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
        """Lists of maps, whose last map (B, C, h, w) is read -> axis-angle and translation, each (B, num_poses, 1,
        3)."""
        squeezed = [F.relu(self.net[0](maps[-1])) for maps in inputs]
        x = torch.cat(squeezed, dim=1)
        x = in_own_precision(self.net[3], F.relu(self.net[2](F.relu(self.net[1](x)))))
        pose = POSE_SCALE * x.float().mean((2, 3)).view(-1, self.num_poses, 1, 6)
        return pose[..., :3], pose[..., 3:]

    @property
    def last(self) -> nn.Conv2d:
        """The layer whose outputs are poses, six numbers each."""
        return cast(nn.Conv2d, self.net[3])


class ClassTokenPose(nn.Module):
    """Pose from DINO's class tokens of both frames, which the encoder computes anyway: one linear layer.

    Args:
        width: length of a class token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, 6)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Class tokens (B, width) of the earlier and the later frame -> axis-angle and translation, each (B, 1, 1,
        3)."""
        pose = POSE_SCALE * in_own_precision(self.linear, torch.cat([first, second], dim=1)).float()[:, None, None]
        return pose[..., :3], pose[..., 3:]

    @property
    def last(self) -> nn.Linear:
        """The layer whose outputs are the pose."""
        return self.linear


class PoseCNN(nn.Module):
    """Pose from two stacked frames by seven convolutions of stride 2 (SfMLearner, https://arxiv.org/abs/1704.07813,
    figure 4), under the tensor names of Monodepth2's `posecnn`."""

    _LAYERS = ((16, 7), (32, 5), (64, 3), (128, 3), (256, 3), (256, 3), (256, 3))
    """Channels and kernel size of each convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleList()
        given = 6
        for channels, kernel in self._LAYERS:
            self.net.append(nn.Conv2d(given, channels, kernel, stride=2, padding=kernel // 2))
            given = channels
        self.pose_conv = nn.Conv2d(given, 6, 1)

    def forward(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 6, H, W) in [0, 1], the earlier frame first -> axis-angle and translation, each (B, 1, 1, 3)."""
        x = pair
        for convolution in self.net:
            x = F.relu(convolution(x))
        pose = POSE_SCALE * in_own_precision(self.pose_conv, x).float().mean((2, 3))[:, None, None]
        return pose[..., :3], pose[..., 3:]

    @property
    def last(self) -> nn.Conv2d:
        """The layer whose outputs are the pose."""
        return self.pose_conv


PoseHead = PoseDecoder | ClassTokenPose | PoseCNN


@torch.no_grad()
def start_forward(head: PoseHead, distance: float) -> None:
    """Makes a head predict, for any input, that the camera moved straight ahead by `distance` (a translation's unit).

    Points come nearer by this motion, so that their z is smaller in the later frame: the translation is negative.
    """
    assert head.last.bias is not None
    nn.init.zeros_(head.last.weight)
    nn.init.zeros_(head.last.bias)
    head.last.bias.view(-1, 6)[:, 5] = -distance / POSE_SCALE


@torch.no_grad()
def with_scaled_motion(head: PoseHead, factors: Tensor) -> PoseHead:
    """A copy of a head that predicts its motions, axis-angle and translation, times six factors."""
    scaled = copy.deepcopy(head)
    assert scaled.last.bias is not None
    for values in (scaled.last.weight, scaled.last.bias):
        numbers = values.unflatten(0, (-1, 6))
        numbers *= factors.to(values).view(6, *[1] * (numbers.ndim - 2))
    return scaled
