"""The 3D points of a camera's pixels in the ego frame, and their cells of the map.

A camera with camera_to_ego = [R t] projects a point x of the ego frame to K R^-1 (x - t). Pixel centres lie at integer
coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .grid import BevGrid

HEIGHTS = (-10.0, 10.0)
"""Lowest and highest point above the ground that is counted, metres (arXiv 2008.05711, section 5.1)."""


def bin_depths(near: float, far: float, bins: int) -> Tensor:
    """(bins,) float32, metres: evenly spaced depths, from near to far.

    >>> bin_depths(4, 8, 5).tolist()
    [4.0, 5.0, 6.0, 7.0, 8.0]
    """
    return torch.linspace(near, far, bins)


def frustum_points(
    intrinsics: Tensor, camera_to_ego: Tensor, depths: Tensor, size: tuple[int, int], stride: int
) -> Tensor:
    """The points of a feature map's pixels at each depth (arXiv 2008.05711, section 3.1).

    Args:
        intrinsics: (..., 3, 3), pixels of the image; of a view, `View.matrix` times the camera's intrinsics.
        camera_to_ego: (..., 4, 4).
        depths: (D,), metres along the camera's axis.
        size: rows h and columns w of the feature map.
        stride: of the feature map.

    Returns:
        (..., D, h, w, 3), metres in the ego frame.
    """
    rows, columns = (torch.arange(n, device=intrinsics.device) * stride + (stride - 1) / 2 for n in size)
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).to(intrinsics.dtype)
    # The last row of the intrinsics is 0 0 1, also after augmentation: a ray's z is 1.
    to_ray = camera_to_ego[..., :3, :3] @ torch.linalg.inv(intrinsics)
    rays = torch.einsum("...ij,hwj->...hwi", to_ray, pixels)
    origin = camera_to_ego[..., None, None, None, :3, 3]
    return origin + depths[:, None, None, None] * rays[..., None, :, :, :]


def cells_of(points: Tensor, grid: BevGrid) -> Tensor:
    """The cells of points (..., 3): int64 (...), row-major in the grid's shape; -1 outside the grid or `HEIGHTS`.

    >>> grid = BevGrid(0, 2, -1, 1, 1.0)
    >>> cells_of(torch.tensor([[0.5, -0.5, 0.0], [1.5, 0.9, 2.0], [1.5, 1.1, 0.0], [0.5, 0.5, 11.0]]), grid).tolist()
    [0, 3, -1, -1]
    """
    along, across = grid.shape
    x = torch.floor((points[..., 0] - grid.x_min) / grid.cell)
    y = torch.floor((points[..., 1] - grid.y_min) / grid.cell)
    z = points[..., 2]
    inside = (x >= 0) & (x < along) & (y >= 0) & (y < across) & (z >= HEIGHTS[0]) & (z < HEIGHTS[1])
    return torch.where(inside, x * across + y, -1).long()
