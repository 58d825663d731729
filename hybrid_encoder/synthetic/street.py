"""Draws a street at random: its road, houses, walls, trees, poles and vehicles, its light, and a drive through it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .scene import BUILDING, CABIN, CROWN, POLE, VEHICLE, WALL, Dice, Line, Road, Scene, Solid, camera_to_world

CAMERA_HEIGHT = 1.65
VIEW = 110.0
"""Solids are drawn this far ahead of the last camera, metres."""

PARKED = ("car", "car", "van")
DRIVEN = ("car", "car", "van", "lorry")


def draw_scene(seed: int, frames: int, pitch: float = 0.0, dead_end: bool = True) -> Scene:
    """A new street for every seed; `pitch` (radians, up) is added to the camera's own; it may end at a wall if
    `dead_end`."""
    dice = Dice(seed)
    road, ego = draw_road(dice)
    poses = draw_drive(dice, road, ego, frames, pitch)
    travel = float(poses[-1, 2, 3])
    closed = dead_end and dice.chance(0.58)
    end = travel + (7 + 38 * dice.uniform(0, 1) ** 2 if closed else VIEW)
    solids = draw_end(dice, road, end, closed)
    for side in (-1, 1):
        solids += draw_side(dice, road, side, end)
    solids += draw_traffic(dice, road, ego, poses, end)
    azimuth, height = dice.uniform(-math.pi, math.pi), dice.uniform(0.5, 1.1)
    light = (math.cos(height) * math.sin(azimuth), -math.sin(height), math.cos(height) * math.cos(azimuth))
    horizon = dice.uniform(0.75, 0.95)
    grey = dice.uniform(0.24, 0.45)
    tile = torch.rand((1, 1, 256, 256), generator=dice.generator) * 2 - 1
    return Scene(
        road=road,
        solids=solids,
        poses=poses,
        light=light,
        ambient=dice.uniform(0.45, 0.7),
        haze=dice.uniform(0.001, 0.006),
        sky=((horizon, horizon, horizon), (dice.uniform(0.4, 0.7), dice.uniform(0.6, 0.8), dice.uniform(0.85, 1))),
        asphalt=(grey, grey, grey * dice.uniform(0.95, 1.05)),
        pavement=dice.colour(0.4, 0.65, 0.15),
        verge=dice.choice([(0.3, 0.42, 0.18), (0.42, 0.44, 0.2), (0.5, 0.45, 0.36), (0.42, 0.42, 0.42)]),
        slab=dice.uniform(0.6, 1.6),
        gain=dice.uniform(0.85, 1.15),
        noise=dice.uniform(0.004, 0.01),
        texture=torch.cat([torch.cat([tile, tile[..., :1]], 3), torch.cat([tile, tile[..., :1]], 3)[:, :, :1]], 2),
    )


def draw_road(dice: Dice) -> tuple[Road, float]:
    """A road of one to five lanes, and the lateral place of the camera's lane on it."""
    lanes = dice.choice([1, 2, 2, 2, 3, 4, 4, 5])
    lane = dice.uniform(2.8, 3.6)
    half = lanes * lane / 2
    two_way = lanes >= 2 and dice.chance(0.7)
    first = lanes // 2 if two_way else 0  # lanes left of this one come towards the camera
    ego = (dice.integer(first, lanes - 1) + 0.5) * lane - half
    yellow = dice.chance(0.3)
    lines = [
        Line(i * lane - half, dashed=i != first or dice.chance(0.5), yellow=yellow and two_way and i == first)
        for i in range(1, lanes)
    ]
    lines = [Line(0.1 - half, False, yellow), *lines, Line(half - 0.1, False, False)]
    frequency = 2 * math.pi / dice.uniform(90, 220)
    slope = dice.choice([0.0, 0.0, 0.08, 0.16, 0.24]) * dice.uniform(0.6, 1.2)
    road = Road(
        amplitude=slope / frequency,
        frequency=frequency,
        phase=dice.uniform(-math.pi, math.pi),
        half_width=half,
        walkway=dice.uniform(1.2, 4.0),
        lane=lane,
        dash=(dice.uniform(5, 11), dice.uniform(0.35, 0.55)),
        lines=tuple(lines),
    )
    return road, ego + dice.uniform(-0.3, 0.3)


def draw_drive(dice: Dice, road: Road, ego: float, frames: int, pitch: float) -> Tensor:
    """(F, 4, 4) float64 camera poses: 0.5 to 1.2 m a frame along the lane, swaying and nodding a little."""
    speed, change = dice.uniform(0.55, 1.15), dice.uniform(-0.01, 0.01)
    height = CAMERA_HEIGHT + dice.uniform(-0.05, 0.05)
    pitch += math.radians(dice.uniform(-0.6, 0.6))
    yaw, roll = math.radians(dice.uniform(-1, 1)), math.radians(dice.uniform(-0.3, 0.3))
    sway, nod, start = dice.uniform(0.3, 0.8), dice.uniform(1.0, 1.8), dice.uniform(0, 2 * math.pi)
    sway_size, nod_size = math.radians(dice.uniform(0.1, 0.6)), math.radians(dice.uniform(0.03, 0.15))
    z, poses = 0.0, []
    for frame in range(frames):
        poses.append(
            camera_to_world(
                x=road.centre(z) + ego,
                z=z,
                height=height + 0.01 * math.sin(nod * frame),
                yaw=road.heading(z) + yaw + sway_size * math.sin(sway * frame + start),
                pitch=pitch + nod_size * math.sin(nod * frame + start),
                roll=roll + 0.3 * nod_size * math.sin(sway * frame),
            )
        )
        z += min(1.2, max(0.5, speed + change * frame)) * math.cos(road.heading(z))
    return torch.stack(poses)


def draw_end(dice: Dice, road: Road, end: float, closed: bool) -> list[Solid]:
    """What the street runs into: a house or a wall across it where it is closed, else a far line of trees or houses."""
    x, yaw = road.centre(end), road.heading(end)
    kind = dice.choice([BUILDING, BUILDING, WALL]) if closed else WALL
    top = dice.uniform(6, 20) if kind == BUILDING else dice.uniform(2.5, 9)
    colour = dice.colour(0.35, 0.85, 0.45) if closed else (0.28, 0.36, 0.22)
    return [facade(dice, x, end + 3, yaw + dice.uniform(-0.15, 0.15), 60 if closed else 150, 3, top, kind, colour)]


def facade(
    dice: Dice,
    x: float,
    z: float,
    yaw: float,
    half_x: float,
    half_z: float,
    top: float,
    kind: int,
    colour: tuple[float, float, float],
) -> Solid:
    """A house or a wall with windows or panels of its own measure."""
    period, storey = dice.uniform(1.3, 4.0), dice.uniform(2.7, 3.8)
    if kind == WALL:
        period, storey = dice.uniform(0.8, 3.0), dice.uniform(0.5, 1.5)
    duty, seed = dice.uniform(0.35, 0.7), dice.uniform(0, 1)
    return Solid(x, z, yaw, half_x, half_z, 0.0, top, kind, colour, period, storey, duty, seed)


def draw_side(dice: Dice, road: Road, side: int, end: float) -> list[Solid]:
    """One side of the street: houses, walls or open land, with parked cars, poles and trees before them."""
    solids: list[Solid] = []
    parking = dice.choice([0.0, 2.3])
    edge = road.half_width + parking + 0.3
    setback = dice.choice([0.4, 0.8, 2.0, 5.0, 12.0, 25.0]) * dice.uniform(0.8, 1.3)
    row = dice.choice([0.0, 0.4, 0.8, 1.0, 1.0])  # how much of the side is built up
    height = dice.choice([4.0, 7.0, 12.0, 18.0])
    z = -12.0
    while z < end:
        length = dice.uniform(6, 24)
        if dice.chance(row):
            depth = dice.uniform(3, 7)
            kind = WALL if dice.chance(0.12) else BUILDING
            top = dice.uniform(1.8, 3.5) if kind == WALL else height * dice.uniform(0.6, 1.5)
            away = edge + setback + dice.uniform(0, 1.5)
            solids.append(beside(dice, road, side, z + length / 2, away, depth, length / 2, top, kind))
        z += length + (dice.uniform(2, 9) if dice.chance(0.35) else 0.0)
    trees = dice.chance(0.45)
    z, step = dice.uniform(-5, 10), dice.uniform(7, 22)
    while (trees or dice.chance(0.6)) and z < end - 3:
        away = side * (edge + dice.uniform(0.3, max(0.4, min(setback, 6.0) - 0.4)))
        x = road.centre(z) + away
        if trees:
            solids += tree(dice, x, z, min(setback, 3.0))
        else:
            top, thin = dice.uniform(3, 8), dice.uniform(0.07, 0.16)
            solids.append(Solid(x, z, 0, thin, thin, 0, top, POLE, dice.colour(0.2, 0.6, 0.2), seed=dice.uniform(0, 1)))
        z += step * dice.uniform(0.7, 1.3)
    filled = dice.choice([0.0, 0.3, 0.7, 1.0]) if parking else 0.0
    z = dice.uniform(-6, 4)
    while z < end - 6:
        long = 2.9  # half the length of a van: no parked vehicle is longer
        if dice.chance(filled):
            parked = vehicle(dice, road, side * (road.half_width + 1.25), z, facing=side, sizes=PARKED)
            solids, long = solids + parked, parked[0].half_z
        z += long + 2.9 + dice.uniform(0.4, 2.5)
    return solids


def beside(
    dice: Dice, road: Road, side: int, z: float, away: float, half_x: float, half_z: float, top: float, kind: int
) -> Solid:
    """A house along the road's edge, turned with the road, its near face `away` metres from the centre."""
    yaw = road.heading(z)
    sagitta = abs(road.amplitude) * road.frequency**2 * half_z**2 / 2  # a straight front cuts into a bend
    lateral = side * (away + half_x + sagitta)
    x, z = road.centre(z) + lateral * math.cos(yaw), z - lateral * math.sin(yaw)
    return facade(dice, x, z, yaw, half_x, half_z, top, kind, dice.colour(0.35, 0.9, 0.45))


def tree(dice: Dice, x: float, z: float, room: float) -> list[Solid]:
    """A trunk and an ellipsoid for the crown, no wider than the room beside the road allows."""
    radius = min(dice.uniform(1.0, 2.4), 0.8 + room / 2)
    bottom = dice.uniform(1.6, 2.6)
    top = bottom + radius * dice.uniform(1.6, 2.6)
    green = (dice.uniform(0.15, 0.35), dice.uniform(0.3, 0.45), dice.uniform(0.1, 0.2))
    trunk = Solid(x, z, 0, 0.14, 0.14, 0, bottom + 0.5, POLE, (0.3, 0.24, 0.18), seed=dice.uniform(0, 1))
    return [trunk, Solid(x, z, 0, radius, radius, bottom, top, CROWN, green, seed=dice.uniform(0, 1))]


def vehicle(
    dice: Dice,
    road: Road,
    lateral: float,
    z: float,
    facing: int = 1,
    speed: float = 0.0,
    sizes: tuple[str, ...] = DRIVEN,
) -> list[Solid]:
    """A car of two boxes, or a van, lorry or bus of one; it faces along the road (1) or against it (-1)."""
    colour = dice.choice([dice.colour(0.15, 0.95, 0.05), dice.colour(0.3, 0.8, 0.75)])
    seed = dice.uniform(0, 1)
    yaw = 0.0 if facing > 0 else math.pi
    if not speed:
        yaw += road.heading(z) + dice.uniform(-0.02, 0.02)
    x = road.centre(z) + lateral

    def part(half_x: float, half_z: float, bottom: float, top: float, kind: int, duty: float, ahead: float) -> Solid:
        return Solid(x, z, yaw, half_x, half_z, bottom, top, kind, colour, 1.3, 1.0, duty, seed, speed, lateral, ahead)

    size = dice.choice(sizes)
    if size == "car":
        long, waist = dice.uniform(1.8, 2.3), dice.uniform(0.8, 0.95)
        roof = waist + dice.uniform(0.5, 0.75)
        cabin = part(0.74, long * dice.uniform(0.5, 0.62), waist, roof, CABIN, 0.0, -0.15 * long)
        return [part(0.88, long, 0.17, waist, VEHICLE, 0.0, 0.0), cabin]
    if size == "van":
        return [part(0.98, dice.uniform(2.2, 2.9), 0.2, dice.uniform(1.8, 2.5), VEHICLE, dice.choice([0.0, 1.0]), 0.0)]
    return [part(1.22, dice.uniform(3, 5), 0.35, dice.uniform(2.8, 3.5), VEHICLE, dice.choice([0.0, 1.0]), 0.0)]


def draw_traffic(dice: Dice, road: Road, ego: float, poses: Tensor, end: float) -> list[Solid]:
    """Vehicles on the lanes: stopped ones ahead, and in some scenes a leading one and one that comes towards the
    camera."""
    solids: list[Solid] = []
    frames, travel = len(poses), float(poses[-1, 2, 3])
    lanes = [line.offset + road.lane / 2 for line in road.lines[:-1]]
    lanes[0] -= 0.1
    own = min(lanes, key=lambda lane: abs(lane - ego))
    taken = dice.chance(0.5) and end > travel + 15
    if taken:
        solids += vehicle(
            dice, road, own + dice.uniform(-0.2, 0.2), travel + dice.uniform(8, min(28, end - travel - 5))
        )
    elif dice.chance(0.45):
        speed = travel / max(1, frames - 1) + dice.uniform(-0.15, 0.4) if frames > 1 else 0.8
        start = dice.uniform(10, 25) + max(0.0, travel - speed * frames)
        if start + speed * frames < end - 5:
            solids += vehicle(dice, road, own, start, speed=max(0.1, speed))
    for lane in lanes:
        towards = -1 if lane < own - 0.1 and road.lines[0].offset < lane else 1
        if lane == own or not dice.chance(0.45):
            continue
        if dice.chance(0.4):
            speed = dice.uniform(0.4, 1.1) * towards
            start = dice.uniform(12, 60) + max(0.0, -speed * frames * 0.5)
            if start < end - 6 and start + speed * frames < end - 6:
                solids += vehicle(dice, road, lane, start, facing=towards, speed=speed)
        else:
            z = dice.uniform(-2, 25)
            while z < end - 6:
                solids += vehicle(dice, road, lane + dice.uniform(-0.2, 0.2), z, facing=towards)
                z += dice.uniform(11, 40)
    return solids
