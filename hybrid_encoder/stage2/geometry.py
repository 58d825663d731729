"""Geometry of self-supervised depth, as pure functions: poses, intrinsics, and warping one view into another.

Pixel centres lie at integer coordinates; a camera looks along +z, x to the right, y down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

AXIS_MARGIN = 1e-7
"""What the family adds to the angle by which it divides for the axis. At an angle of 0.01 it rotates by one part in
100,000 less than it says; the loss of the released training step (tests/test_parity.py) moves by 3e-5 of itself."""


def axis_angle_to_rotation(axis_angle: Tensor, margin: float = 0.0) -> Tensor:
    """(B, 3) axis times angle in radians -> (B, 3, 3) rotations, by Rodrigues' formula; differentiable at zero.

    Args:
        margin: `AXIS_MARGIN`, for the family's poses.

    >>> quarter = axis_angle_to_rotation(torch.tensor([[0.0, 0.0, torch.pi / 2]]))
    >>> (quarter @ torch.tensor([1.0, 0.0, 0.0])).round().abs().tolist()
    [[0.0, 1.0, 0.0]]
    """
    angle = (axis_angle.square().sum(1) + 1e-14).sqrt()[:, None, None]
    x, y, z = axis_angle.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3) / (angle + margin)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + angle.sin() * cross + (1 - angle.cos()) * cross @ cross


def pose_matrix(axis_angle: Tensor, translation: Tensor, invert: bool = False) -> Tensor:
    """(B, 3) axis-angle and (B, 3) translation -> (B, 4, 4), x -> R x + t, or its inverse; not rounded by autocast.

    Equal to Monodepth2's up to rounding, `AXIS_MARGIN` included.

    >>> pose_matrix(torch.zeros(1, 3), torch.tensor([[1.0, 2.0, 3.0]]), invert=True)[0, :3, 3].tolist()
    [-1.0, -2.0, -3.0]
    """
    with torch.autocast(axis_angle.device.type, enabled=False):
        rotation = axis_angle_to_rotation(axis_angle, AXIS_MARGIN)
        shift = translation[:, :, None]
        if invert:
            rotation = rotation.transpose(1, 2)
            shift = -rotation @ shift
    last = torch.eye(4, dtype=rotation.dtype, device=rotation.device)[3:].expand(len(rotation), 1, 4)
    return torch.cat([torch.cat([rotation, shift], dim=2), last], dim=1)


def compose(second: Tensor, first: Tensor) -> Tensor:
    """(B, 4, 4) transforms -> the first followed by the second; not rounded by autocast."""
    with torch.autocast(first.device.type, enabled=False):
        return second @ first


def invert_intrinsics(K: Tensor) -> Tensor:
    """(..., 3, 3) -> its inverse. `linalg.inv` would let the host wait for a GPU, to say whether there is one."""
    return torch.linalg.inv_ex(K)[0]


def scale_intrinsics(K: Tensor, x: float, y: float) -> Tensor:
    """(..., 3, 3) intrinsics of an image resized by x and y: the first row times x, the second times y.

    >>> scale_intrinsics(torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]), 0.5, 0.25).tolist()
    [[30.0, 0.0, 16.0], [0.0, 15.0, 6.0], [0.0, 0.0, 1.0]]
    """
    return torch.stack([x * K[..., 0, :], y * K[..., 1, :], K[..., 2, :]], dim=-2)


def project(depth: Tensor, K: Tensor, T: Tensor) -> Tensor:
    """Where the pixels of a depth map lie in another camera's image (Monodepth2, section 3.1).

    >>> K = torch.tensor([[[2.0, 0, 1], [0, 2, 1], [0, 0, 1]]])
    >>> still = torch.eye(4)[None]
    >>> project(torch.ones(1, 1, 3, 3), K, still)[0, 0, 2].round(decimals=4).tolist()  # stays in its corner
    [1.0, -1.0]

    Args:
        depth: (B, 1, H, W).
        K: (B, 3, 3), shared by both cameras.
        T: (B, 4, 4), from this camera to the other.

    Returns:
        (B, H, W, 2) x, y in [-1, 1] between the centres of the corner pixels, as `F.grid_sample(align_corners=True)`
        takes.
    """
    batch, _, height, width = depth.shape
    y, x = torch.meshgrid(
        torch.arange(height, dtype=depth.dtype, device=depth.device),
        torch.arange(width, dtype=depth.dtype, device=depth.device),
        indexing="ij",
    )
    pixels = torch.stack([x, y, torch.ones_like(x)]).view(3, -1)
    # K' (R d K^-1 p + t) = d (K' R K^-1) p + K' t, two products of 3 x 3 in place of two per pixel; K' is K for
    # coordinates from 0 to 2.
    projection = scale_intrinsics(K, 2 / (width - 1), 2 / (height - 1)) @ T[:, :3]
    homography = projection[:, :, :3] @ invert_intrinsics(K)
    seen = depth.view(batch, 1, -1) * (homography @ pixels) + projection[:, :, 3:]
    xy, z = seen.split([2, 1], dim=1)
    return (xy * (z + 1e-7).reciprocal() - 1).view(batch, 2, height, width).permute(0, 2, 3, 1)


def warp(source: Tensor, grid: Tensor) -> Tensor:
    """(B, C, H, W) sampled bilinearly at (B, h, w, 2) in [-1, 1] -> (B, C, h, w); the border repeats outside."""
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=True)
