"""Random objects beside a street: houses, walls, trees, poles and parked cars."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .scene import BUILDING, CROWN, POLE, WALL, Box, Colour, Dice, Pattern, Place, Road, Solid
from .vehicles import draw_parked


@dataclass(frozen=True)
class Roadside:
    """One side of a street, from the camera's start to the street's end."""

    road: Road
    side: int
    """-1 left, 1 right."""
    edge: float
    """Distance from the road's centre to the nearest tree or pole, metres."""
    setback: float
    """Distance from there to the houses, metres."""
    end: float
    """z of the street's end, metres."""

    def place(self, z: float, away: float, box: Box) -> Place:
        """The place of a box at z: parallel to the road, its near face `away` metres from the road's centre."""
        yaw = self.road.heading(z)
        # The straight front of a box would reach into a curved road by this much.
        sagitta = abs(self.road.amplitude) * self.road.frequency**2 * box.half_z**2 / 2
        lateral = self.side * (away + box.half_x + sagitta)
        return Place(self.road.centre(z) + lateral * math.cos(yaw), z - lateral * math.sin(yaw), yaw)


def draw_side(dice: Dice, road: Road, side: int, end: float) -> list[Solid]:
    """One side of the street: houses, walls or open land; in front of them parked cars, and poles or trees."""
    parking = dice.choice([0.0, 2.3])
    setback = dice.choice([0.4, 0.8, 2.0, 5.0, 12.0, 25.0]) * dice.uniform(0.8, 1.3)
    roadside = Roadside(road, side, road.half_width + parking + 0.3, setback, end)
    solids = draw_houses(dice, roadside) + draw_trees_or_poles(dice, roadside)
    filled = dice.choice([0.0, 0.3, 0.7, 1.0]) if parking else 0.0
    return solids + draw_parked(dice, road, side, end, filled)


def draw_houses(dice: Dice, roadside: Roadside) -> list[Solid]:
    """Houses and walls with gaps between them, or nothing."""
    solids: list[Solid] = []
    share = dice.choice([0.0, 0.4, 0.8, 1.0, 1.0])  # share of the side with buildings
    height = dice.choice([4.0, 7.0, 12.0, 18.0])
    z = -12.0
    while z < roadside.end:
        length = dice.uniform(6, 24)
        if dice.chance(share):
            depth = dice.uniform(3, 7)
            kind = WALL if dice.chance(0.12) else BUILDING
            top = dice.uniform(1.8, 3.5) if kind == WALL else height * dice.uniform(0.6, 1.5)
            away = roadside.edge + roadside.setback + dice.uniform(0, 1.5)
            box = Box(depth, length / 2, 0.0, top)
            place = roadside.place(z + length / 2, away, box)
            solids.append(building(dice, kind, place, box, dice.colour(0.35, 0.9, 0.45)))
        z += length + (dice.uniform(2, 9) if dice.chance(0.35) else 0.0)
    return solids


def draw_trees_or_poles(dice: Dice, roadside: Roadside) -> list[Solid]:
    """A row of trees, or of poles, between the road and the houses."""
    solids: list[Solid] = []
    trees = dice.chance(0.45)
    z, step = dice.uniform(-5, 10), dice.uniform(7, 22)
    room = max(0.4, min(roadside.setback, 6.0) - 0.4)
    while (trees or dice.chance(0.6)) and z < roadside.end - 3:
        away = roadside.side * (roadside.edge + dice.uniform(0.3, room))
        place = Place(roadside.road.centre(z) + away, z)
        if trees:
            solids += tree(dice, place, min(roadside.setback, 3.0))
        else:
            top, thin = dice.uniform(3, 8), dice.uniform(0.07, 0.16)
            colour, seed = dice.colour(0.2, 0.6, 0.2), dice.uniform(0, 1)
            solids.append(Solid(POLE, place, Box(thin, thin, 0, top), colour, Pattern(seed=seed)))
        z += step * dice.uniform(0.7, 1.3)
    return solids


def draw_end(dice: Dice, road: Road, end: float, closed: bool) -> Solid:
    """The end of the street: a house or wall across a dead end (`closed`), else a wide green wall like far trees."""
    kind = dice.choice([BUILDING, BUILDING, WALL]) if closed else WALL
    top = dice.uniform(6, 20) if kind == BUILDING else dice.uniform(2.5, 9)
    colour = dice.colour(0.35, 0.85, 0.45) if closed else (0.28, 0.36, 0.22)
    place = Place(road.centre(end), end + 3, road.heading(end) + dice.uniform(-0.15, 0.15))
    return building(dice, kind, place, Box(60 if closed else 150, 3, 0.0, top), colour)


def building(dice: Dice, kind: int, place: Place, box: Box, colour: Colour) -> Solid:
    """A house with windows, or a wall with panels, of random proportions."""
    period, storey = dice.uniform(1.3, 4.0), dice.uniform(2.7, 3.8)
    if kind == WALL:
        period, storey = dice.uniform(0.8, 3.0), dice.uniform(0.5, 1.5)
    duty, seed = dice.uniform(0.35, 0.7), dice.uniform(0, 1)
    return Solid(kind, place, box, colour, Pattern(period, storey, duty, seed))


def tree(dice: Dice, place: Place, room: float) -> list[Solid]:
    """A trunk, and an ellipsoid as its crown, which fits into `room` metres beside the road."""
    radius = min(dice.uniform(1.0, 2.4), 0.8 + room / 2)
    bottom = dice.uniform(1.6, 2.6)
    top = bottom + radius * dice.uniform(1.6, 2.6)
    green = (dice.uniform(0.15, 0.35), dice.uniform(0.3, 0.45), dice.uniform(0.1, 0.2))
    trunk, crown = Pattern(seed=dice.uniform(0, 1)), Pattern(seed=dice.uniform(0, 1))
    return [
        Solid(POLE, place, Box(0.14, 0.14, 0, bottom + 0.5), (0.3, 0.24, 0.18), trunk),
        Solid(CROWN, place, Box(radius, radius, bottom, top), green, crown),
    ]
