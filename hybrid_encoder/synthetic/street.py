"""Makes a random street: its road, light and objects, and a drive through it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .buildings import draw_end, draw_side
from .camera import camera_to_world
from .scene import Dice, Line, Road, Scene, Solid
from .vehicles import draw_traffic

CAMERA_HEIGHT = 1.65
"""Metres above the ground."""
VIEW = 110.0
"""Length of an open street ahead of the last camera, metres."""


def draw_scene(seed: int, frames: int, pitch: float = 0.0, dead_end: bool = True) -> Scene:
    """A random street, different for every seed.

    Args:
        frames: of the drive.
        pitch: upwards, radians; added to the pitch that is drawn.
        dead_end: whether the street may end at a house or wall.
    """
    dice = Dice(seed)
    road, ego = draw_road(dice)
    poses = draw_drive(dice, road, ego, frames, pitch)
    travel = float(poses[-1, 2, 3])
    closed = dead_end and dice.chance(0.58)
    end = travel + (7 + 38 * dice.uniform(0, 1) ** 2 if closed else VIEW)
    solids = [draw_end(dice, road, end, closed)]
    for side in (-1, 1):
        solids += draw_side(dice, road, side, end)
    solids += draw_traffic(dice, road, ego, poses, end)
    return in_daylight(dice, road, solids, poses)


def in_daylight(dice: Dice, road: Road, solids: list[Solid], poses: Tensor) -> Scene:
    """The scene of a street with these solids; light, sky and ground colours are random."""
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
    """A road of one to five lanes, and the camera's lateral position on it, metres to the right of its centre."""
    lanes = dice.choice([1, 2, 2, 2, 3, 4, 4, 5])
    lane = dice.uniform(2.8, 3.6)
    half = lanes * lane / 2
    two_way = lanes >= 2 and dice.chance(0.7)
    first = lanes // 2 if two_way else 0  # lanes to the left of this one carry oncoming traffic
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
    """The camera poses, (F, 4, 4) float64, world from camera: 0.5 to 1.2 m per frame along the lane."""
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
