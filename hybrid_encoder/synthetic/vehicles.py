"""Random vehicles of a street: parked, stopped and driving ones."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from .scene import CABIN, VEHICLE, Box, Dice, Pattern, Place, Road, Solid

PARKED = ("car", "car", "van")
DRIVEN = ("car", "car", "van", "lorry")


class Course(NamedTuple):
    """The position and motion of a vehicle."""

    lateral: float
    """Metres to the right of the road's centre."""
    z: float
    """z in frame 0, metres."""
    facing: int = 1
    """1: forward along the road, -1: backward."""
    speed: float = 0.0
    """Metres per frame along z."""


def vehicle(dice: Dice, road: Road, course: Course, sizes: tuple[str, ...] = DRIVEN) -> list[Solid]:
    """The solids of a vehicle: two boxes for a car, one for a van, lorry or bus."""
    colour = dice.choice([dice.colour(0.15, 0.95, 0.05), dice.colour(0.3, 0.8, 0.75)])
    seed = dice.uniform(0, 1)
    yaw = 0.0 if course.facing > 0 else math.pi
    if not course.speed:
        yaw += road.heading(course.z) + dice.uniform(-0.02, 0.02)
    place = Place(road.centre(course.z) + course.lateral, course.z, yaw)

    def part(box: Box, kind: int = VEHICLE, duty: float = 0.0, ahead: float = 0.0) -> Solid:
        pattern = Pattern(1.3, 1.0, duty, seed)
        return Solid(kind, place, box, colour, pattern, course.speed, course.lateral, ahead)

    size = dice.choice(sizes)
    if size == "car":
        long, waist = dice.uniform(1.8, 2.3), dice.uniform(0.8, 0.95)
        roof = waist + dice.uniform(0.5, 0.75)
        cabin = Box(0.74, long * dice.uniform(0.5, 0.62), waist, roof)
        return [part(Box(0.88, long, 0.17, waist)), part(cabin, CABIN, ahead=-0.15 * long)]
    if size == "van":
        box = Box(0.98, dice.uniform(2.2, 2.9), 0.2, dice.uniform(1.8, 2.5))
    else:
        box = Box(1.22, dice.uniform(3, 5), 0.35, dice.uniform(2.8, 3.5))
    return [part(box, duty=dice.choice([0.0, 1.0]))]


def draw_parked(dice: Dice, road: Road, side: int, end: float, filled: float) -> list[Solid]:
    """Parked vehicles along one edge of the road; `filled` is the share of occupied places."""
    solids: list[Solid] = []
    z = dice.uniform(-6, 4)
    while z < end - 6:
        long = 2.9  # half the length of a van: no parked vehicle is longer
        if dice.chance(filled):
            parked = vehicle(dice, road, Course(side * (road.half_width + 1.25), z, facing=side), PARKED)
            solids, long = solids + parked, parked[0].box.half_z
        z += long + 2.9 + dice.uniform(0.4, 2.5)
    return solids


def draw_traffic(dice: Dice, road: Road, ego: float, poses: Tensor, end: float) -> list[Solid]:
    """Vehicles on the lanes: in some scenes one in the camera's lane, stopped ahead or driving in front, and stopped or
    driving ones on the other lanes."""
    solids: list[Solid] = []
    frames, travel = len(poses), float(poses[-1, 2, 3])
    lanes = [line.offset + road.lane / 2 for line in road.lines[:-1]]
    lanes[0] -= 0.1
    own = min(lanes, key=lambda lane: abs(lane - ego))
    if dice.chance(0.5) and end > travel + 15:
        lateral = own + dice.uniform(-0.2, 0.2)
        solids += vehicle(dice, road, Course(lateral, travel + dice.uniform(8, min(28, end - travel - 5))))
    elif dice.chance(0.45):
        speed = travel / max(1, frames - 1) + dice.uniform(-0.15, 0.4) if frames > 1 else 0.8
        start = dice.uniform(10, 25) + max(0.0, travel - speed * frames)
        if start + speed * frames < end - 5:
            solids += vehicle(dice, road, Course(own, start, speed=max(0.1, speed)))
    for lane in lanes:
        towards = -1 if lane < own - 0.1 and road.lines[0].offset < lane else 1
        if lane == own or not dice.chance(0.45):
            continue
        if dice.chance(0.4):
            speed = dice.uniform(0.4, 1.1) * towards
            start = dice.uniform(12, 60) + max(0.0, -speed * frames * 0.5)
            if start < end - 6 and start + speed * frames < end - 6:
                solids += vehicle(dice, road, Course(lane, start, towards, speed))
        else:
            z = dice.uniform(-2, 25)
            while z < end - 6:
                solids += vehicle(dice, road, Course(lane + dice.uniform(-0.2, 0.2), z, towards))
                z += dice.uniform(11, 40)
    return solids
