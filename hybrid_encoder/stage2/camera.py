"""The camera's focal length, learnt together with depth and motion (`--learn_intrinsics`; "Depth from Videos in the
Wild", https://arxiv.org/abs/1904.04998).

One number is learnt: a factor on the focal lengths that the run starts from. One camera is taken to have made all
clips, with pixels as wide and high as they were said to be, and the principal point stays: it trades places with small
rotations.

Rotation alone tells a focal length (section 4.1 there). Where the camera moves straight on, another focal length with
another sideways motion gives the same pixels, and the same depth. Where it turns by w, pixels shift by f w, which tells
nothing of f alone, and beyond that by w x^2 / f at x pixels from the centre: `bend`. So motions are counted in pixels
here: rotation about x and y and translation along x and y are divided by the factor, so that the shift stays as it is
while the factor moves, and the loss sees the bend alone.

Lens distortion bends pictures, too: what is learnt from a lens whose straight lines are curved is not its focal length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data.calibration import intrinsics_text
from ..data.dataset import FrameSource
from ..data.sample import FrameId
from ..engine.record import read_metrics
from .geometry import pose_matrix

CAMERA_FILE = "intrinsics.json"
"""Beside the weights of an epoch: what was learnt by then, as `--intrinsics` takes it."""
RATE = 5.0
"""Learning rate of the factor's logarithm, as a multiple of the run's."""
HELD = 0.4
"""Share of a run's epochs in which the factor is held, while depth and motion are learnt."""
LIMIT = math.log(4.0)
"""Farthest that the factor's logarithm gets from its start."""
PROBE = 1.25
"""Factor by which validation tries shorter and longer focal lengths."""
MIN_BEND = 0.15
"""Pixels that rotation has to bend the edge of a frame by, on average; a tenth of them is what 10 % of focal length
make."""
MIN_EVIDENCE = 0.002
"""How much larger the photometric loss of held-out frames has to be with focal lengths `PROBE` times longer and
shorter, as a share of it."""
MAX_DRIFT = 0.05
"""How far the value may move in the second half of a run, as a share of it."""


class LearntCamera(nn.Module):
    """The focal length as a factor on the one that a run starts from."""

    def __init__(self) -> None:
        super().__init__()
        self.log_factor = nn.Parameter(torch.zeros(()))

    @property
    def factor(self) -> Tensor:
        """Scalar, differentiable."""
        return self.log_factor.clamp(-LIMIT, LIMIT).exp()

    def forward(self, K: Tensor) -> Tensor:
        """(B, 3, 3) intrinsics to start from -> those learnt."""
        return with_focal_factor(K, self.factor)


def with_focal_factor(K: Tensor, factor: Tensor) -> Tensor:
    """(..., 3, 3) intrinsics with both focal lengths times a scalar.

    >>> with_focal_factor(torch.tensor([[60.0, 0, 32], [0, 50, 24], [0, 0, 1]]), torch.tensor(2.0)).tolist()
    [[120.0, 0.0, 32.0], [0.0, 100.0, 24.0], [0.0, 0.0, 1.0]]
    """
    return K * torch.diag_embed(_across(factor) - 1).add(1)


def in_pixels(motion: Tensor, factor: Tensor) -> Tensor:
    """(B, 3) axis-angle or translation, its x and y counted in pixels -> in radians or lengths.

    >>> in_pixels(torch.tensor([[2.0, 4.0, 6.0]]), torch.tensor(2.0)).tolist()
    [[1.0, 2.0, 6.0]]
    """
    return motion / _across(factor)


def recounted(pose: Tensor, factor: Tensor) -> Tensor:
    """(B, 4, 4) pose of small rotation, as it is with a focal length that is longer by a factor: equal in pixels."""
    skew = (pose[:, :3, :3] - pose[:, :3, :3].transpose(1, 2)) / 2
    axis_angle = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], dim=1)
    return pose_matrix(in_pixels(axis_angle, factor), in_pixels(pose[:, :3, 3], factor))


def learnt_camera(camera: LearntCamera, source: FrameSource) -> str:
    """The intrinsics learnt as JSON that `read_intrinsics` takes, in pixels of the source's frames."""
    height, width = source.read(0, 0).shape[:2]
    K = with_focal_factor(torch.from_numpy(source.intrinsics(0)).double(), camera.factor.detach().cpu().double())
    return intrinsics_text(K.numpy(), (width, height))


def describe_camera(run: Path) -> str:
    """What a run has found, and whether to trust it, in two lines."""
    validations = [line for line in read_metrics(run) if line["kind"] == "val"]
    share, reason = validations[-1]["focal_length"], doubt(validations)
    degrees = 2 * math.degrees(math.atan(0.5 / share))
    found = f"focal length learnt: {share:.3f} of the width, {degrees:.0f} degrees ({CAMERA_FILE} beside the weights)"
    return f"{found}\nthe focal length is refused: {reason}" if reason else found


def _across(factor: Tensor) -> Tensor:
    """(3,): the scalar for x and y, 1 for z."""
    return torch.stack([factor, factor, torch.ones_like(factor)])


@torch.no_grad()
def bend(K: Tensor, poses: Mapping[FrameId, Tensor], size: tuple[int, int]) -> Tensor:
    """How far rotation moves the edge of a frame beyond a shift, in pixels, averaged: scalar.

    Args:
        K: (B, 3, 3).
        poses: (B, 4, 4) from frame 0 to each source.
        size: (height, width) of the frames.
    """
    height, width = size
    found = []
    for frame_id, pose in poses.items():
        if frame_id != "s":
            about_x, about_y = (pose[:, 2, 1] - pose[:, 1, 2]) / 2, (pose[:, 0, 2] - pose[:, 2, 0]) / 2
            down, across = about_x * (height / 2) ** 2 / K[:, 1, 1], about_y * (width / 2) ** 2 / K[:, 0, 0]
            found.append((down.square() + across.square()).sqrt())
    return torch.stack(found).mean()


def doubt(validations: Sequence[Mapping[str, float]]) -> str:
    """Why the focal length of a run is not to be trusted, in one line; empty: nothing speaks against it.

    >>> seen = {"focal_length": 0.8, "bend": 0.4, "focal_evidence": 0.01}
    >>> doubt([seen] * 4)
    ''
    >>> doubt([{**seen, "bend": 0.05}] * 4).partition(":")[0]
    'the camera hardly turns in these clips'
    >>> doubt([seen, {**seen, "focal_length": 0.7}, seen, seen]).partition(":")[0]
    ''
    >>> doubt([seen, seen, {**seen, "focal_length": 0.7}, seen]).partition(":")[0]
    'the value did not settle'

    Args:
        validations: metrics of all validations of the run, oldest first: "focal_length", "bend", "focal_evidence".
    """
    last = validations[-1]
    if last["bend"] < MIN_BEND:
        return (
            f"the camera hardly turns in these clips: rotation bends the frames by {last['bend']:.2f} pixels at their "
            f"edges, and {MIN_BEND:g} is the least that tells a focal length. Add clips with curves, or larger frames"
        )
    if last["focal_evidence"] < MIN_EVIDENCE:
        return (
            f"held-out frames fit almost as well with other focal lengths: with one {PROBE:g} times longer or shorter "
            f"the loss is {100 * last['focal_evidence']:.2f} % higher, and {100 * MIN_EVIDENCE:g} % is the least"
        )
    later = [metrics["focal_length"] for metrics in validations[len(validations) // 2 :]]
    drift = max(later) / min(later) - 1
    if drift > MAX_DRIFT:
        return f"the value did not settle: it moved by {100 * drift:.0f} % in the second half of the run. Train longer"
    return ""
