"""Resizing as ONNX programs are to do it: in operations that all runtimes understand alike.

onnxruntime's nearest resizing divides by a rounded scale: from 56 to 16 rows (the paper's size) it takes a row too
early. OpenVINO's cubic resizing knows no antialiasing: the ViT's position embedding was another one, and inverse depth
differed by up to 0.8%.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions

_CUBIC = -0.5
"""Coefficient of the cubic kernel with antialiasing, as in PyTorch and Pillow."""


def resizing_decompositions() -> dict[Any, Callable[..., Any]]:
    """What `ExportedProgram.run_decompositions` takes: nearest resizing as a choice of rows and columns, antialiased
    bicubic resizing as two products of matrices."""
    table = dict(get_decompositions([torch.ops.aten.upsample_nearest1d, torch.ops.aten.upsample_nearest2d]))
    return table | {torch.ops.aten._upsample_bicubic2d_aa.vec: bicubic_antialiased}


def bicubic_antialiased(
    maps: Tensor, size: Sequence[int], align_corners: bool = False, scale_factors: Sequence[float] | None = None
) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), as `F.interpolate(maps, size, mode="bicubic", antialias=True)`; the arguments are
    those of its operator.

    >>> maps = torch.rand(1, 1, 6, 8)
    >>> expected = torch.nn.functional.interpolate(maps, (3, 11), mode="bicubic", antialias=True)
    >>> torch.allclose(bicubic_antialiased(maps, (3, 11)), expected, atol=1e-6)
    True
    """
    assert not align_corners, "unused by these nets"
    assert scale_factors is None, "the position embedding is resized to a size"
    rows, columns = _weights(maps, -2, size[0]), _weights(maps, -1, size[1])
    return rows @ maps @ columns.transpose(0, 1)


def _weights(maps: Tensor, dim: int, size: int) -> Tensor:
    """(size, n): the weights of a dimension's n values in each of the resized ones."""
    given = torch.arange(maps.shape[dim], dtype=maps.dtype, device=maps.device)
    wanted = torch.arange(size, dtype=maps.dtype, device=maps.device)
    scale = torch.ones_like(given).sum() / torch.ones_like(wanted).sum()
    distance = (given + 0.5 - (wanted[:, None] + 0.5) * scale).abs() / scale.clamp_min(1)
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1
    far = _CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
    return weights / weights.sum(1, keepdim=True)
