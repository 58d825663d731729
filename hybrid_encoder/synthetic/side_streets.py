"""Side streets on the ground: the share of each pixel that they cover, and where a map has road."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .scene import Scene
from .texture import Surface, pulses, stripe

GUTTER = 0.2
"""Width of the asphalt beyond the road's outer lines, metres."""


class SideCover(NamedTuple):
    """The shares of n pixels that side streets cover, (n,) each in [0, 1]."""

    road: Tensor
    walkway: Tensor
    """Walkway and road together."""
    mouth: Tensor
    """The part in which the main road's lines are not painted."""
    line: Tensor
    """Dashes of the side streets' middle lines."""


def side_cover(scene: Scene, surface: Surface, lateral: Tensor) -> SideCover | None:
    """The cover of all side streets; None if the scene has none.

    Args:
        surface: `along` is the world's z.
        lateral: (n,) metres from the road's centre to the right.
    """
    if not scene.side_streets:
        return None
    long, wide = surface.footprint_along, surface.footprint_across
    period, duty = scene.road.dash
    covers = []
    for street in scene.side_streets:
        offset, distance = surface.along - street.z, lateral * street.side
        reached = ((distance > 0) & (distance < street.reach)).to(offset.dtype)
        road = covered(street.half_width - offset.abs(), long) * reached
        walkway = covered(street.half_width + street.walkway - offset.abs(), long) * reached
        beyond = (distance > scene.road.half_width + 1.0).to(offset.dtype)
        dashes = pulses(distance / period, duty, wide / period)
        covers.append(SideCover(road, walkway, road, stripe(offset, 0.075, long) * dashes * reached * beyond))
    return SideCover(*(torch.stack(shares).amax(0) for shares in zip(*covers, strict=True)))


def covered(inside: Tensor, footprint: Tensor) -> Tensor:
    """The share of each pixel (n,) inside an edge; `inside` is the distance of its centre from the edge, metres."""
    return (inside / footprint + 0.5).clamp(0, 1)


def is_road(scene: Scene, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Whether points of the ground are road: bool, of the shape to which x and z broadcast."""
    road = scene.road
    lateral = x - road.amplitude * (np.sin(road.frequency * z + road.phase) - np.sin(road.phase))
    found = np.abs(lateral) <= road.half_width + GUTTER
    for street in scene.side_streets:
        distance = lateral * street.side
        found |= (np.abs(z - street.z) <= street.half_width) & (distance > 0) & (distance < street.reach)
    return found
