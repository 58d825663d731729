"""Writes rig samples as tables of nuScenes v1.0 (arXiv 1903.11027)."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.nuscenes import LIDAR
from ..data.nuscenes_splits import SPLIT_FILE
from ..data.poses import quaternion
from ..data.rig import RigBox, RigSample
from .writers import write_lines

TABLES = (
    *("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample"),
    *("sample_annotation", "sample_data", "scene", "sensor", "visibility"),
)
VISIBILITY_LEVELS = ("v0-40", "v40-60", "v60-80", "v80-100")
Record = dict[str, Any]


class Tracked(NamedTuple):
    """Data of a box that `RigBox` lacks."""

    instance: int
    """The object's number in its scene."""
    lidar_points: int


class TableWriter:
    """Collects scenes and their samples, then writes all tables.

    Args:
        root: the folder of the data set, which holds the samples' files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records: dict[str, dict[str, Record]] = {table: {} for table in TABLES}
        self.chains: dict[tuple[str, ...], list[Record]] = defaultdict(list)
        """Records in the order of time, by table and owner (a scene, or an instance)."""
        for number, level in enumerate(VISIBILITY_LEVELS, start=1):
            text = f"between {level[1:].replace('-', ' and ')}% of the object is seen"
            self.records["visibility"][str(number)] = {"token": str(number), "level": level, "description": text}

    def add(self, sample: RigSample, seconds: float, tracked: Sequence[Tracked]) -> None:
        """Adds a sample; samples of a scene are added in the order of time.

        Args:
            seconds: time since 1970.
            tracked: data of each box.
        """
        time = round(seconds * 1e6)
        scene = self._scene(sample)
        record = self._put("sample", sample.token, timestamp=time, scene_token=scene)
        self._follow(("sample", scene), record)
        pose = self._put(
            "ego_pose", make_token("pose", sample.token), timestamp=time, **pose_fields(sample.ego_to_global)
        )
        shot = {"sample_token": record, "ego_pose_token": pose, "timestamp": time, "is_key_frame": True}
        for camera in sample.cameras:
            fields = pose_fields(camera.camera_to_ego) | {"camera_intrinsic": camera.intrinsics.tolist()}
            file = self._file(camera.image) | {"width": camera.size[0], "height": camera.size[1]}
            self._shot(camera.name, scene, fields, shot | file)
        if sample.lidar is not None and sample.lidar_to_ego is not None:
            fields = pose_fields(sample.lidar_to_ego) | {"camera_intrinsic": []}
            self._shot(LIDAR, scene, fields, shot | self._file(sample.lidar) | {"width": 0, "height": 0})
        for box, track in zip(sample.boxes, tracked, strict=True):
            self._box(sample, record, box, track)

    def write(self, version: str, parts: dict[str, list[str]]) -> None:
        """Writes all tables, and the scenes of each part, to the folder `version`.

        Raises:
            UserError: the disk is full or the folder cannot be written.
        """
        for chain in self.chains.values():
            tokens = ["", *(record["token"] for record in chain), ""]
            for record, before, after in zip(chain, tokens, tokens[2:], strict=False):
                record |= {"prev": before, "next": after}
        self._count()
        for table, records in self.records.items():
            write_lines(self.root / version / f"{table}.json", [json.dumps(list(records.values()), indent=0)])
        write_lines(self.root / version / SPLIT_FILE, [json.dumps(parts, indent=0)])

    def _count(self) -> None:
        """Adds first token, last token and number of records to scenes and instances."""
        for (table, owner), chain in ((key[:2], chain) for key, chain in self.chains.items()):
            first, last = chain[0]["token"], chain[-1]["token"]
            if table == "sample":
                ends = {"first_sample_token": first, "last_sample_token": last, "nbr_samples": len(chain)}
                self.records["scene"][owner] |= ends
            elif table == "sample_annotation":
                ends = {"first_annotation_token": first, "last_annotation_token": last, "nbr_annotations": len(chain)}
                self.records["instance"][owner] |= ends

    def _scene(self, sample: RigSample) -> str:
        log = self._put(
            "log",
            make_token("log", sample.scene),
            logfile="",
            vehicle="",
            date_captured="2000-01-01",
            location=sample.scene,
        )
        if sample.map_mask is not None:
            file = self._relative(sample.map_mask.path)
            token = make_token("map", sample.scene)
            self._put("map", token, category="semantic_prior", filename=file, log_tokens=[log])
        return self._put("scene", make_token("scene", sample.scene), log_token=log, name=sample.scene, description="")

    def _shot(self, channel: str, scene: str, calibration: Record, shot: Record) -> None:
        modality = "lidar" if channel == LIDAR else "camera"
        sensor = self._put("sensor", make_token("sensor", channel), channel=channel, modality=modality)
        token = make_token(channel, scene, json.dumps(calibration))
        calibrated = self._put("calibrated_sensor", token, sensor_token=sensor, **calibration)
        token = make_token(channel, shot["sample_token"])
        record = self._put("sample_data", token, calibrated_sensor_token=calibrated, **shot)
        self._follow(("sample_data", scene, channel), record)

    def _box(self, sample: RigSample, record: str, box: RigBox, track: Tracked) -> None:
        category = self._put("category", make_token("category", box.category), name=box.category, description="")
        instance = make_token("instance", sample.scene, str(track.instance))
        self._put("instance", instance, category_token=category)
        annotation = self._put(
            "sample_annotation",
            make_token("box", sample.token, str(track.instance)),
            sample_token=record,
            instance_token=instance,
            visibility_token=str(box.visibility or ""),
            attribute_tokens=[],
            size=box.size[[1, 0, 2]].tolist(),
            num_lidar_pts=track.lidar_points,
            num_radar_pts=0,
            **box_fields(sample.ego_to_global, box),
        )
        self._follow(("sample_annotation", instance), annotation)

    def _put(self, table: str, token: str, /, **fields: Any) -> str:
        """Adds a record with a token, unless the table has it; returns the token."""
        self.records[table].setdefault(token, {"token": token} | fields)
        return token

    def _follow(self, chain: tuple[str, ...], token: str) -> None:
        self.chains[chain].append(self.records[chain[0]][token])

    def _file(self, path: Path) -> Record:
        ending = "pcd" if path.suffix == ".bin" else path.suffix[1:]
        return {"filename": self._relative(path), "fileformat": ending}

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def make_token(*parts: str) -> str:
    """A token of 32 hexadecimal digits, as in nuScenes; a function of the parts."""
    return hashlib.md5(" ".join(parts).encode(), usedforsecurity=False).hexdigest()


def pose_fields(pose: np.ndarray) -> Record:
    """A pose (4, 4) in nuScenes' form: translation in metres, and rotation as a quaternion w, x, y, z."""
    x, y, z, w = quaternion(pose[:3, :3]).tolist()
    return {"translation": pose[:3, 3].tolist(), "rotation": [w, x, y, z]}


def box_fields(ego_to_global: np.ndarray, box: RigBox) -> Record:
    """A box's pose in the global frame, in which the box is upright."""
    centre = ego_to_global[:3, :3] @ box.centre + ego_to_global[:3, 3]
    ahead = ego_to_global[:3, :3] @ (math.cos(box.yaw), math.sin(box.yaw), 0.0)
    half = math.atan2(ahead[1], ahead[0]) / 2
    return {"translation": centre.tolist(), "rotation": [math.cos(half), 0.0, 0.0, math.sin(half)]}
