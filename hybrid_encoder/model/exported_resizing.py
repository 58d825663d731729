"""Resizing as exported programs are to do it: in operations that all runtimes understand alike, at any size.

onnxruntime's nearest resizing divides by a rounded scale: from 56 to 16 rows (the paper's size) it takes a row too
early. OpenVINO's cubic resizing knows no antialiasing: the ViT's position embedding was another one, and inverse depth
differed by up to 0.8%. torch.export makes a constant of a scale that is a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .exporting import length
from .precision import without_autocast

_CUBIC, _CUBIC_ANTIALIASED = -0.75, -0.5
"""Coefficients of the cubic kernel: PyTorch's, and with antialiasing Pillow's."""


def resizing_decompositions() -> dict[Any, Callable[..., Any]]:
    """What `ExportedProgram.run_decompositions` takes: nearest resizing as a choice of rows and columns, antialiased
    bicubic resizing as two products of matrices."""
    from torch._decomp import get_decompositions  # slow to import, and not needed by predictions

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
    rows, columns = (_antialiased(maps, dim, made) for dim, made in zip((-2, -1), size, strict=True))
    return rows @ maps @ columns.transpose(0, 1)


def bicubic_with_offset(maps: Tensor, size: Sequence[int], offset: float) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), as `F.interpolate` by the scales (size + offset) / (h, w), mode="bicubic"; maps of
    that size already stay as they are.

    >>> maps = torch.rand(1, 1, 6, 8)
    >>> scale = (3.1 / 6, 11.1 / 8)
    >>> expected = torch.nn.functional.interpolate(maps, scale_factor=scale, mode="bicubic")
    >>> torch.allclose(bicubic_with_offset(maps, (3, 11), 0.1), expected, atol=1e-6)
    True
    >>> torch.equal(bicubic_with_offset(maps, (6, 8), 0.1), maps)
    True
    """
    pairs = [(_places(maps, given), _places(maps, wanted)) for given, wanted in zip(maps.shape[-2:], size, strict=True)]
    same = torch.stack([length(given) == length(wanted) for given, wanted in pairs]).all()
    with without_autocast(maps.device):  # as in F.interpolate
        offset_of_others = torch.where(same, 0.0, offset)
        rows, columns = (
            _interpolating(given, (wanted + 0.5) * length(given) / (length(wanted) + offset_of_others) - 0.5)
            for given, wanted in pairs
        )
        return rows @ maps @ columns.transpose(0, 1)


def _places(maps: Tensor, size: int) -> Tensor:
    """0 to size - 1, of the maps' type."""
    return torch.arange(size, dtype=maps.dtype, device=maps.device)


def _antialiased(maps: Tensor, dim: int, size: int) -> Tensor:
    """(size, n): the weights of a dimension's n values in each of the resized ones."""
    given, wanted = _places(maps, maps.shape[dim]), _places(maps, size)
    scale = length(given) / length(wanted)
    distance = (given + 0.5 - (wanted[:, None] + 0.5) * scale).abs() / scale.clamp_min(1)
    weights = _kernel(distance, _CUBIC_ANTIALIASED)
    return weights / weights.sum(1, keepdim=True)


def _interpolating(given: Tensor, wanted: Tensor) -> Tensor:
    """(m, n): the weights of values at the places `given`, 0 to n - 1, at the places `wanted`; beyond the border its
    value goes on."""
    last = given[-1]
    weights = torch.zeros_like(wanted[:, None] + given)
    for tap in range(-1, 3):
        place = wanted.floor() + tap
        hit = place.clamp_min(0).minimum(last)[:, None] == given
        weights = weights + hit * _kernel((wanted - place).abs(), _CUBIC)[:, None]
    return weights


def _kernel(distance: Tensor, cubic: float) -> Tensor:
    """The cubic kernel at distances in pixels (Keys 1981)."""
    near = ((cubic + 2) * distance - (cubic + 3)) * distance * distance + 1
    far = cubic * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
