"""A sweep of a LiDAR scanner with 32 beams on the vehicle's roof, by casting rays into the scene."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .camera import Rays
from .casting import GROUND, Rectangle, cast
from .scene import HALF_X, HALF_Z, KIND, X, Z

ELEVATIONS = torch.deg2rad(torch.linspace(-30.67, 10.67, 32, dtype=torch.float64))
"""Elevations of nuScenes' scanner, an HDL-32E, in radians; ring 0 is the lowest."""
STEPS = 1080
"""Azimuths of a sweep."""
RANGE = 80.0
"""Metres."""
INTENSITY = torch.tensor([12.0, 40, 50, 35, 35, 30, 15])
"""Intensity, 0 to 255, of the ground and of each kind of solid."""


class Sweep(NamedTuple):
    """The points of a sweep."""

    points: np.ndarray
    """(N, 5) float32: x to the right, y ahead, z up in metres from the scanner, intensity, ring; as in nuScenes."""
    solids: np.ndarray
    """(N,) index of the solid of each point; GROUND on the ground."""


def scan(solids: Tensor, pose: Tensor) -> Sweep:
    """Casts the rays of one sweep.

    Args:
        solids: (N, 16), of `Scene.solids_at`.
        pose: (4, 4) float64, world from LiDAR.
    """
    azimuth = (torch.arange(STEPS, dtype=torch.float64) + 0.5) * (2 * math.pi / STEPS) - math.pi
    level, up = ELEVATIONS.cos()[:, None], ELEVATIONS.sin()[:, None]
    local = torch.stack([level * azimuth.sin(), level * azimuth.cos(), up.expand(-1, STEPS)])
    direction = torch.einsum("ij,jhw->ihw", pose[:3, :3], local).float()
    hits = cast(solids, sectors(solids, pose), Rays(pose[:3, 3].tolist(), direction))
    met = (hits.seen >= GROUND) & (hits.depth < RANGE)
    ring = torch.arange(len(ELEVATIONS))[:, None].expand(-1, STEPS)
    kinds = torch.cat([torch.tensor([0]), solids[:, KIND].long() + 1])[hits.seen.clamp(min=GROUND).long() + 1]
    points = torch.cat([local.float() * hits.depth, INTENSITY[kinds][None], ring[None].float()])
    return Sweep(points[:, met].T.contiguous().numpy(), hits.seen[met].numpy())


def sectors(solids: Tensor, pose: Tensor) -> list[Rectangle]:
    """For each solid, the azimuths at which rays may hit it, as a rectangle of the sweep; empty beyond RANGE."""
    away = torch.stack([solids[:, X] - pose[0, 3], solids[:, Z] - pose[2, 3]])
    right, ahead = pose[[0, 2], 0], pose[[0, 2], 1]
    azimuth = torch.atan2(right @ away, ahead @ away)
    distance, radius = away.norm(dim=0), torch.hypot(solids[:, HALF_X], solids[:, HALF_Z])
    half = torch.asin((radius / distance).clamp(max=1)) + math.radians(1.5)
    ends = (torch.stack([azimuth - half, azimuth + half]) + math.pi) * (STEPS / (2 * math.pi))
    rectangles: list[Rectangle] = []
    for first, last, near, far in zip(*ends.tolist(), (distance - radius).tolist(), distance.tolist(), strict=True):
        wraps = first < 0 or last > STEPS or near < 0.1 * far
        columns = (0, STEPS) if wraps else (int(first), min(STEPS, int(last) + 1))
        rectangles.append((0, len(ELEVATIONS) if near < RANGE else 0, *columns))
    return rectangles
