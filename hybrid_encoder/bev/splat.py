"""Splat: adds up the features of all cameras' points in their cells (arXiv 2008.05711, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def splat(features: Tensor, weights: Tensor, cells: Tensor, count: int) -> Tensor:
    """The sum of weighted features over the points of each cell.

    A pixel has one point for each depth, and all its points share its features:

        out[cell] = sum of weights[m, d, i, j] * features[m, :, i, j] over all (m, d, i, j) with this cell

    The product of features and weights, (M, D, h, w, C), is never stored. The points, sorted by cell, are the bags of
    `torch.nn.functional.embedding_bag`, and the features of the pixels are its table. So the memory grows with the
    number of points, not with points times channels; this holds in the backward pass, too.

    >>> features = torch.tensor([[[[1.0, 10.0]], [[2.0, 20.0]]]])  # one image, two channels, a row of two pixels
    >>> weights = torch.tensor([[[[0.5, 0.1]], [[0.5, 0.9]]]])  # two depths
    >>> cells = torch.tensor([[[[2, 0]], [[0, -1]]]])
    >>> splat(features, weights, cells, 3)
    tensor([[1.5000, 3.0000],
            [0.0000, 0.0000],
            [0.5000, 1.0000]])

    Args:
        features: (M, C, h, w) of M images.
        weights: (M, D, h, w), of the same type.
        cells: int64 (M, D, h, w), the cell of each point, from 0 to count - 1, or -1 for none.
        count: number of cells.

    Returns:
        (count, C).
    """
    bins, height, width = cells.shape[1:]
    kept = (cells >= 0).flatten().nonzero()[:, 0]
    sorted_cells, order = cells.flatten()[kept].sort(stable=True)
    points = kept[order]
    image, pixel = points // (bins * height * width), points % (height * width)
    table = features.movedim(1, -1).flatten(0, 2)
    starts = torch.searchsorted(sorted_cells, torch.arange(count, device=cells.device))
    own = weights.flatten()[points]
    return F.embedding_bag(image * (height * width) + pixel, table, starts, mode="sum", per_sample_weights=own)
