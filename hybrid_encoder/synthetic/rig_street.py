"""Makes a random street around a rig of cameras: open ahead and behind, with side streets, parked cars and traffic.

The rig's vehicle drives along the road, or comes out of a side street.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor

from .buildings import building, draw_end, draw_side
from .camera import camera_to_world
from .scene import BUILDING, CABIN, VEHICLE, Box, Dice, Place, Road, Scene, SideStreet, Solid
from .street import draw_road, in_daylight
from .vehicles import Course, vehicle

START, AROUND = 80.0, 85.0
"""The vehicle's first z, and the length of the street beyond its last z, metres."""
VERGES = ((0.3, 0.42, 0.18), (0.42, 0.44, 0.2), (0.5, 0.45, 0.36))
"""Colours of open land; none is like asphalt, so that images show where the road ends."""
SPACE = 10.0
"""Free length of the lane before and behind the rig's vehicle, metres."""


class Ego(NamedTuple):
    """The motion of the rig's vehicle."""

    street: SideStreet | None
    """The side street that it comes out of; None: it drives on the road."""
    lateral: float
    """Metres to the right of its street's middle, for a view along the road, or in a side street away from the road."""
    start: float
    """z in frame 0, or in a side street the distance from the road's centre, metres."""
    speed: float
    """Metres per frame."""


def draw_rig_scene(dice: Dice, frames: int) -> Scene:
    """A random street with side streets, and a drive of `frames` keyframes."""
    road, lateral = draw_road(dice)
    sides = draw_side_streets(dice, road)
    ego = draw_ego(dice, road, sides, lateral, frames)
    end = START + ego.speed * frames + AROUND
    solids = [draw_end(dice, road, end, False), draw_end(dice, road, -18.0, False)]
    for side in (-1, 1):
        found = draw_side(dice, road, side, end)
        solids += [solid for solid in found if not blocks(solid, road, side, sides)]
    for street in sides:
        solids += furnish(dice, road, street, ego)
    solids += draw_lanes(dice, road, ego, frames, end)
    scene = in_daylight(dice, road, solids, draw_poses(dice, road, ego, frames))
    return dataclasses.replace(scene, verge=dice.choice(VERGES), side_streets=sides, all_round=True)


def draw_side_streets(dice: Dice, road: Road) -> tuple[SideStreet, ...]:
    """Zero to four side streets: at up to two junctions within 55 m of the start, on one side or both."""
    streets: list[SideStreet] = []
    z = START + dice.uniform(-40, 10)
    for _ in range(dice.choice([0, 1, 1, 2, 2])):
        half_width, walkway = dice.uniform(2.7, 3.6), dice.uniform(1.2, 2.5)
        for side in dice.choice([(-1,), (1,), (-1, 1)]):
            streets.append(SideStreet(z, side, half_width, walkway, dice.uniform(45, 75) + road.half_width))
        z += dice.uniform(28, 45)
    return tuple(streets)


def draw_ego(dice: Dice, road: Road, sides: tuple[SideStreet, ...], lateral: float, frames: int) -> Ego:
    """The motion of the rig; `lateral`: its position on the road, metres to the right of the centre."""
    speed = dice.choice([0.0, dice.uniform(0.5, 5)])
    if sides and dice.chance(0.35):
        street, speed = dice.choice(sides), min(speed, 12 / frames)
        stop = road.half_width + dice.uniform(4.5, 20)
        return Ego(street, -street.half_width / 2, stop + speed * frames, speed)
    return Ego(None, lateral, START, speed)


def draw_poses(dice: Dice, road: Road, ego: Ego, frames: int) -> Tensor:
    """The poses of the rig, (F, 4, 4) float64, world from camera axes at the ego origin, slightly rotated at random."""
    yaw, poses = math.radians(dice.uniform(-3, 3)), []
    for frame in range(frames):
        if ego.street is None:
            z = ego.start + ego.speed * frame
            place = Place(road.centre(z) + ego.lateral, z, road.heading(z))
        else:
            local = Place(ego.lateral, ego.start - ego.speed * frame, math.pi)
            place = from_side_street(road, ego.street, local)
        pitch, roll = (math.radians(dice.uniform(-0.6, 0.6)) for _ in range(2))
        poses.append(camera_to_world(place.x, place.z, 0.0, place.yaw + yaw, pitch, roll))
    return torch.stack(poses)


def from_side_street(road: Road, street: SideStreet, place: Place) -> Place:
    """A place in a side street's axes (z away from the road's centre, x to the right) in world axes."""
    x = road.centre(street.z) + street.side * place.z
    return Place(x, street.z - street.side * place.x, place.yaw + street.side * math.pi / 2)


def blocks(solid: Solid, road: Road, side: int, streets: tuple[SideStreet, ...]) -> bool:
    """Whether a solid beside the road would stand in a side street or its junction."""
    half = 3.5 if solid.kind in (VEHICLE, CABIN) else solid.box.half_z + 0.5
    return any(s.side == side and abs(solid.place.z - s.z) < s.half_width + half for s in streets)


def furnish(dice: Dice, road: Road, street: SideStreet, ego: Ego) -> list[Solid]:
    """The solids in a side street, beside it and at its end."""
    own = Road(0.0, 1.0, 0.0, street.half_width, street.walkway, street.half_width, road.dash, ())
    solids: list[Solid] = []
    for side in (-1, 1):
        for solid in draw_side(dice, own, side, street.reach):
            clear = {VEHICLE: 11.0, CABIN: 11.0, BUILDING: 18.0 + solid.box.half_z}.get(solid.kind, 8.0)
            if solid.place.z > road.half_width + clear:
                solids.append(solid)
    top, colour = dice.uniform(3, 14), dice.colour(0.35, 0.85, 0.45)
    wall = Box(street.half_width + street.walkway + 10, 3, 0.0, top)
    solids.append(building(dice, BUILDING, Place(0.0, street.reach + 3), wall, colour))
    if street is not ego.street and dice.chance(0.5):  # a vehicle that waits at the junction
        at = road.half_width + dice.uniform(6, 9)
        solids += vehicle(dice, own, Course(-street.half_width / 2, at, -1))
    if dice.chance(0.6):  # a vehicle that has turned into the side street
        at = road.half_width + dice.uniform(8, 35)
        solids += vehicle(dice, own, Course(street.half_width / 2, at, 1))
    return [dataclasses.replace(s, place=from_side_street(road, street, s.place)) for s in solids]


def draw_lanes(dice: Dice, road: Road, ego: Ego, frames: int, end: float) -> list[Solid]:
    """Traffic on the road up to its end. All vehicles of a lane have the same speed, so that none collide."""
    lanes = [line.offset + road.lane / 2 for line in road.lines[:-1]]
    lanes[0] -= 0.1
    middle = ego.lateral if ego.street is None else 0.0
    own = min(lanes, key=lambda lane: abs(lane - middle)) if ego.street is None else None
    solids: list[Solid] = []
    for lane in lanes:
        facing = -1 if lane < middle - road.lane / 2 else 1
        speed = ego.speed if lane == own else dice.choice([0.0, dice.uniform(1, 6)]) * facing
        gap = dice.choice([2.0, 6.0, 14.0, 40.0])
        z = dice.uniform(-6, 12)
        while z < end - 6:
            is_free = lane != own or abs(z - ego.start) > SPACE
            if is_free and -8 < z + speed * frames < end - 6:
                solids += vehicle(dice, road, Course(lane + dice.uniform(-0.15, 0.15), z, facing, speed))
            z += SPACE + gap * dice.uniform(0.3, 1.7)
    return solids
