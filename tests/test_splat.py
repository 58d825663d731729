"""Splatting equals a plain loop, is much faster, and holds no tensor of points times channels."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hybrid_encoder.bev.splat import splat

Splat = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def plain_loop(features: Tensor, weights: Tensor, cells: Tensor, count: int) -> Tensor:
    """Point by point: the definition."""
    sums = [features.new_zeros(features.shape[1]) for _ in range(count)]
    images, bins, height, width = cells.shape
    for m in range(images):
        for d in range(bins):
            for i in range(height):
                for j in range(width):
                    cell = int(cells[m, d, i, j])
                    if cell >= 0:
                        sums[cell] = sums[cell] + weights[m, d, i, j] * features[m, :, i, j]
    return torch.stack(sums)


def outer_product(features: Tensor, weights: Tensor, cells: Tensor, count: int) -> Tensor:
    """All points with all channels, (M, D, h, w, C), then one addition."""
    points = (weights[..., None] * features.movedim(1, -1)[:, None]).flatten(0, 3)
    kept = cells.flatten() >= 0
    return features.new_zeros(count, features.shape[1]).index_add(0, cells.flatten()[kept], points[kept])


def problem(sizes: tuple[int, ...], channels: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, weights and cells; a fifth of the points lies in no cell."""
    torch.manual_seed(0)
    images, _, height, width = sizes
    cells = torch.randint(-count // 4, count, sizes).clamp(min=-1)
    weights = torch.randn(sizes).softmax(1)
    return torch.randn(images, channels, height, width), weights, cells


def values_and_gradients(method: Splat, features: Tensor, weights: Tensor, cells: Tensor, count: int) -> list[Tensor]:
    features, weights = features.clone().requires_grad_(), weights.clone().requires_grad_()
    found = method(features, weights, cells, count)
    mixed = (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(1))).sum()
    return [found, *torch.autograd.grad(mixed, (features, weights))]


def test_equals_a_plain_loop_in_values_and_gradients() -> None:
    given = problem((2, 5, 3, 4), 6, 20)
    for own, expected in zip(*(values_and_gradients(m, *given, 20) for m in (splat, plain_loop)), strict=True):
        assert torch.allclose(own, expected, rtol=0, atol=1e-6)
    assert all(found.abs().max() > 0.1 for found in values_and_gradients(splat, *given, 20))


def test_cells_without_points_are_zero() -> None:
    features, weights, cells = problem((1, 3, 2, 2), 4, 5)
    nothing = values_and_gradients(splat, features, weights, torch.full_like(cells, -1), 5)
    assert all(found.abs().max() == 0 for found in nothing)
    last = splat(features, weights, torch.where(cells == 4, 4, -1), 5)
    assert last[:4].abs().max() == 0


@pytest.fixture(scope="module")
def rig() -> tuple[Tensor, Tensor, Tensor]:
    """Six cameras of 128 x 352 at stride 16, 41 depths, 64 channels, 200 x 200 cells: Lift-Splat-Shoot's sizes."""
    return problem((6, 41, 8, 22), 64, 200 * 200)


def test_is_twenty_times_as_fast_as_a_loop(rig: tuple[Tensor, Tensor, Tensor]) -> None:
    def seconds(method: Splat, *given: Tensor) -> float:
        started = time.perf_counter()
        method(*given, 200 * 200)
        return time.perf_counter() - started

    features, weights, cells = rig
    own = min(seconds(splat, *rig) for _ in range(3))
    # The loop sees one depth of 41: it takes at least 41 times as long for all of them.
    loop = 41 * seconds(plain_loop, features, weights[:, :1], cells[:, :1])
    assert loop > 20 * own


class Largest(TorchDispatchMode):
    """Keeps the number of values of the largest tensor that an operator makes."""

    values = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operator(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple) else (made,):
            if isinstance(tensor, Tensor):
                self.values = max(self.values, tensor.numel())
        return made


def test_makes_no_tensor_of_points_times_channels() -> None:
    given = problem((6, 41, 8, 22), 256, 1000)
    points = given[2].numel()

    def largest(method: Splat) -> int:
        """Of all tensors of the forward and the backward pass."""
        with Largest() as mode:
            values_and_gradients(method, *given, 1000)
        return mode.values

    assert largest(outer_product) == 256 * points
    assert largest(splat) < 256 * points / 32
