"""The description of a synthetic street: the road, solids on and beside it, and the camera's poses, all from one seed.

World axes are those of a camera: x to the right, y down, z forward along the street. The ground is y = 0; heights count
upwards. All lengths are in metres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

BUILDING, WALL, VEHICLE, CABIN, POLE, CROWN = range(6)
"""Kinds of solid. All are upright boxes with a yaw, except CROWN, which is the ellipsoid inside such a box."""

X, Z, COS, SIN, HALF_X, HALF_Z, BOTTOM, TOP, KIND, RED, GREEN, BLUE, PERIOD, STOREY, DUTY, SEED = range(16)
"""Columns of `Scene.solids_at`."""

T = TypeVar("T")
Colour = tuple[float, float, float]


class Dice:
    """Random numbers of a scene, from a torch generator of its own."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def chance(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability

    def integer(self, low: int, high: int) -> int:
        """Both ends included."""
        return min(high, low + int(self.uniform(0, 1) * (high - low + 1)))

    def choice(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def colour(self, low: float, high: float, saturation: float) -> Colour:
        """A colour whose brightest channel lies in [low, high]."""
        value = self.uniform(low, high)
        drop = [1 - saturation * self.uniform(0, 1) for _ in range(3)]
        return value * drop[0] / max(drop), value * drop[1] / max(drop), value * drop[2] / max(drop)


@dataclass(frozen=True)
class Line:
    """A painted line along the road: its offset to the right of the road's centre, and its style."""

    offset: float
    dashed: bool
    yellow: bool


@dataclass(frozen=True)
class Road:
    """A road whose centre is a sine curve, x = amplitude * (sin(frequency * z + phase) - sin(phase)).

    Attributes:
        half_width: of the asphalt, to the outer edge of the lanes.
        walkway, lane: widths.
        dash: period of a dashed line, and the painted share of it.
        lines: from left to right.
    """

    amplitude: float
    frequency: float
    phase: float
    half_width: float
    walkway: float
    lane: float
    dash: tuple[float, float]
    lines: tuple[Line, ...]

    def centre(self, z: float) -> float:
        """x of the road's centre at z."""
        return self.amplitude * (math.sin(self.frequency * z + self.phase) - math.sin(self.phase))

    def heading(self, z: float) -> float:
        """Yaw of the road at z, to the right, radians."""
        return math.atan(self.amplitude * self.frequency * math.cos(self.frequency * z + self.phase))


@dataclass(frozen=True)
class SideStreet:
    """A street that leaves the road at a right angle to the z axis, along x."""

    z: float
    """z of its middle line."""
    side: int
    """-1 to the left, 1 to the right."""
    half_width: float
    walkway: float
    reach: float
    """Distance of its end from the road's centre."""


class Place(NamedTuple):
    """A point on the ground, and the yaw of the object there, to the right, radians."""

    x: float
    z: float
    yaw: float = 0.0


class Box(NamedTuple):
    """Half the width and half the length of a solid, and its lower and upper ends above the ground."""

    half_x: float
    half_z: float
    bottom: float
    top: float


class Pattern(NamedTuple):
    """Parameters of a solid's texture; their meaning depends on the kind of solid (`shading`)."""

    period: float = 1.0
    storey: float = 1.0
    duty: float = 0.0
    seed: float = 0.0


@dataclass(frozen=True)
class Solid:
    """A box or ellipsoid. If `speed` (metres per frame along z) is not 0, it follows the road, `lateral` metres to the
    right of its centre."""

    kind: int
    place: Place
    box: Box
    colour: Colour
    pattern: Pattern
    speed: float = 0.0
    lateral: float = 0.0
    ahead: float = 0.0
    """Offset from `place` in the direction that the solid faces."""

    def row(self, road: Road, frame: int) -> list[float]:
        """Its columns X to SEED in a frame."""
        x, z, yaw = self.place
        if self.speed:
            z += self.speed * frame
            x = road.centre(z) + self.lateral
            yaw += road.heading(z)
        x, z = x + self.ahead * math.sin(yaw), z + self.ahead * math.cos(yaw)
        return [x, z, math.cos(yaw), math.sin(yaw), *self.box, float(self.kind), *self.colour, *self.pattern]


@dataclass
class Scene:
    """A street and a drive along it; colours are RGB in [0, 1]."""

    road: Road
    solids: list[Solid]
    poses: Tensor
    """(F, 4, 4) float64, world from camera. For a rig, the camera is a virtual one at the ego origin on the ground."""
    light: Colour
    """Unit vector from the ground to the sun, in world axes."""
    ambient: float
    haze: float
    """Attenuation per metre."""
    sky: tuple[Colour, Colour]
    """Colours at the horizon and high above it."""
    asphalt: Colour
    pavement: Colour
    verge: Colour
    slab: float
    gain: float
    noise: float
    """Standard deviation of sensor noise, where white is 1."""
    texture: Tensor
    """(1, 1, 257, 257), a periodic tile of white noise in [-1, 1]; the last row and column repeat the first."""
    side_streets: tuple[SideStreet, ...] = ()
    all_round: bool = False
    """Whether cameras look in all directions, not only along the road."""
    rows: list[list[float]] = field(default_factory=list)
    """Columns of all solids in frame 0; `solids_at` fills them."""

    def solids_at(self, frame: int) -> tuple[Tensor, Tensor]:
        """The solids in a frame: their columns, (N, 16) float64, and whether they move, (N,) bool."""
        if not self.rows:
            self.rows = [solid.row(self.road, 0) for solid in self.solids]
        rows = [s.row(self.road, frame) if s.speed else row for s, row in zip(self.solids, self.rows, strict=True)]
        return torch.tensor(rows, dtype=torch.float64), torch.tensor([bool(s.speed) for s in self.solids])
