"""Writes rendered rigs in the layout of nuScenes: tables, the images of six cameras, LiDAR sweeps and road maps.

`OUT/v1.0-synthetic/*.json`, `OUT/samples/CAM_FRONT/...`, `OUT/samples/LIDAR_TOP/...`, `OUT/maps/SCENE.png`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data.nuscenes import LIDAR
from ..data.rig import MapMask, RigCamera, RigSample
from ..engine.bars import progress_bar
from .files import filled_folder, stopped_at_once
from .nuscenes_tables import TableWriter, Tracked, make_token
from .rig import RigMoment, RigStreet, draw_rig_street, render_moment
from .rig_cameras import ego_from_lidar
from .sequence import SEED_STRIDE
from .settings import RigSettings
from .side_streets import is_road
from .writers import write_bytes, write_image, write_jpeg

VERSION = "v1.0-synthetic"
MAP_MARGIN = 75.0
"""Metres of map around the drive: the corners of a grid of 100 m are 71 m away."""
FIRST_SECOND, SCENE_SECONDS, FRAME_SECONDS = 946_684_800.0, 10_000.0, 0.5
"""Time of the first scene (2000-01-01), and time between scenes and between keyframes, seconds."""


class Ground(NamedTuple):
    """The area of a street's ground that its map shows."""

    west: int
    south: int
    """The world's x and z where the map's x and y are 0, metres."""
    east: int
    north: int

    def global_from_world(self) -> Tensor:
        """(4, 4) float64: x to the east, y (the street's z) to the north, z up."""
        matrix = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
        matrix[:2, 3] = -torch.tensor([self.west, self.south], dtype=torch.float64)
        return matrix


def write_rigs(out: str | Path, settings: RigSettings) -> None:
    """Write all scenes to `out`: when all is written, or nothing.

    Args:
        out: a new or empty folder, or a link to one.

    Raises:
        UserError: the settings are out of range, or `out` is a file or a folder with something in it.
        Interrupted: a signal asked for a stop; what was written is removed.
    """
    settings.check()
    total = settings.scenes * settings.frames
    with (
        stopped_at_once(out),
        filled_folder(out) as folder,
        progress_bar(what="rendering", total=total, unit="rig", shown=settings.progress) as bar,
    ):
        writer = TableWriter(folder)
        names = [write_scene(writer, settings, number, bar) for number in range(settings.scenes)]
        held_out = max(1, round(settings.scenes / 6))
        writer.write(VERSION, {"train": names[:-held_out], "val": names[-held_out:]})


def write_scene(writer: TableWriter, settings: RigSettings, number: int, bar: tqdm[Any]) -> str:
    """Writes the files and records of a scene; returns its name. The bar counts keyframes."""
    name, seed = f"scene-{number + 1:04d}", settings.seed * SEED_STRIDE + number
    street = draw_rig_street(seed, settings.frames, settings.height, settings.width)
    ground, mask = ground_about(street), MapMask(writer.root / "maps" / f"{name}.png")
    write_map(mask, street, ground)
    for frame in range(settings.frames):
        moment = render_moment(street, frame, settings.device)
        sample = rig_sample(street, frame, moment, ground, mask)
        write_moment(sample, moment)
        seconds = FIRST_SECOND + number * SCENE_SECONDS + frame * FRAME_SECONDS
        writer.add(sample, seconds, [Tracked(seen.number, seen.lidar_points) for seen in moment.boxes])
        bar.update()
    return name


def ground_about(street: RigStreet) -> Ground:
    """The ground within `MAP_MARGIN` of a street's drive, rounded outwards to whole metres."""
    places = street.scene.poses[:, [0, 2], 3]
    west, south = (math.floor(value - MAP_MARGIN) for value in places.amin(0).tolist())
    east, north = (math.ceil(value + MAP_MARGIN) for value in places.amax(0).tolist())
    return Ground(west, south, east, north)


def write_map(mask: MapMask, street: RigStreet, ground: Ground) -> None:
    """Writes the street's road seen from above: 255 on road, 0 elsewhere, north at the top."""
    columns, rows = (round(metres / mask.cell) for metres in (ground.east - ground.west, ground.north - ground.south))
    x = ground.west + (np.arange(columns) + 0.5) * mask.cell
    z = ground.south + (np.arange(rows) + 0.5) * mask.cell
    road = is_road(street.scene, x[None], z[::-1, None])
    write_image(mask.path, road.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 0])


def rig_sample(street: RigStreet, frame: int, moment: RigMoment, ground: Ground, mask: MapMask) -> RigSample:
    """The sample of a frame; its files, beside the map's folder, are written later."""
    root, scene = mask.path.parents[1], mask.path.stem
    stem = f"{scene}-{frame:04d}"
    cameras = [
        RigCamera(
            name=name,
            image=root / "samples" / name / f"{stem}.jpg",
            intrinsics=camera.K.numpy(),
            camera_to_ego=camera_to_ego.numpy(),
            size=(camera.width, camera.height),
        )
        for name, camera, camera_to_ego in street.views
    ]
    return RigSample(
        token=make_token("sample", stem),
        scene=scene,
        cameras=tuple(cameras),
        boxes=tuple(seen.box for seen in moment.boxes),
        ego_to_global=(ground.global_from_world() @ street.ego_to_world(frame)).numpy(),
        map_mask=mask,
        lidar=root / "samples" / LIDAR / f"{stem}.pcd.bin",
        lidar_to_ego=ego_from_lidar().numpy(),
    )


def write_moment(sample: RigSample, moment: RigMoment) -> None:
    """Writes a sample's images and its LiDAR sweep."""
    for camera in sample.cameras:
        write_jpeg(camera.image, moment.images[camera.name])
    assert sample.lidar is not None
    write_bytes(sample.lidar, moment.sweep.points.astype("<f4").tobytes())
