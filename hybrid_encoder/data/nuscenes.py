"""nuScenes (arXiv 1903.11027) as rig samples: six cameras, boxes, a map and a LiDAR sweep at each keyframe.

    source = NuScenesSource("nuscenes", "train")            # nuscenes/v1.0-trainval or v1.0-mini, samples, maps
    source[0].cameras[0].camera_to_ego

A sample's ego frame is the vehicle's at the moment of its LiDAR sweep. The cameras expose up to 50 ms earlier or later;
`camera_to_ego` includes the vehicle's motion in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from .nuscenes_boxes import Annotations, read_annotations
from .nuscenes_splits import Part, scenes_of
from .nuscenes_tables import Pose, Record, Shot, named, read_ego_poses, read_shots, read_table, text
from .present import complete_samples
from .rig import MapMask, RigCamera, RigSample
from .splits import stays_inside

CAMERAS = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
LIDAR = "LIDAR_TOP"


@dataclass(frozen=True, eq=False)
class Moment:
    """A record of sample, with what the other tables say of it."""

    token: str
    scene: str
    map_mask: MapMask | None
    shots: dict[str, Shot]
    """By channel."""
    annotations: Annotations


class NuScenesSource:
    """The keyframes of a part of nuScenes, by scene and time: a `RigSource`.

    Args:
        data_path: holds the folder of the tables, samples/ and maps/.
        part: which scenes, by the lists that the field uses, or by splits.json beside the tables.
        version: the folder of the tables; None: the only one there is.
        cameras: which, in this order.
        skip_bad: how many samples may lack images; None: no option of the user's, and none may.

    Raises:
        UserError: tables that are missing, damaged or do not fit together, a camera without calibration, missing
            images; names the file and what to do.
    """

    def __init__(
        self,
        data_path: str | Path,
        part: Part,
        version: str | None = None,
        cameras: Sequence[str] = CAMERAS,
        skip_bad: int | None = None,
    ) -> None:
        self.data_path, self.part, self.cameras = Path(data_path), part, tuple(cameras)
        self.tables = find_tables(self.data_path, version)
        moments = _read_moments(self.tables, self.data_path, part, {*cameras, LIDAR})
        for moment in moments:
            self._check(moment)
        self._moments = complete_samples(
            moments,
            lambda moment, _: {self.data_path / moment.shots[name].file: "" for name in self.cameras},
            f"images that {self.tables} names are missing",
            skip_bad,
            lambda path, _: "extract the archives of keyframes (v1.0-*_blobs) into the same folder",
        )
        tokens = {shot.ego_pose for moment in self._moments for shot in moment.shots.values()}
        self._poses: dict[str, Pose] = read_ego_poses(self.tables, tokens)

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, index: int) -> RigSample:
        moment = self._moments[index]
        reference = moment.shots.get(LIDAR, moment.shots[self.cameras[0]])
        ego_to_global = self._poses[reference.ego_pose].matrix()
        global_to_ego = np.linalg.inv(ego_to_global)
        sweep = moment.shots.get(LIDAR)
        has_sweep = sweep is not None and (self.data_path / sweep.file).is_file()
        return RigSample(
            token=moment.token,
            scene=moment.scene,
            cameras=tuple(self._camera(moment.shots[name], global_to_ego) for name in self.cameras),
            boxes=moment.annotations.boxes(global_to_ego),
            ego_to_global=ego_to_global,
            map_mask=moment.map_mask,
            lidar=self.data_path / sweep.file if sweep is not None and has_sweep else None,
            lidar_to_ego=sweep.calibration.sensor_to_ego.matrix() if sweep is not None and has_sweep else None,
        )

    def _camera(self, shot: Shot, global_to_ego: np.ndarray) -> RigCamera:
        calibration = shot.calibration
        assert calibration.intrinsics is not None  # `_check` looked
        moved = global_to_ego @ self._poses[shot.ego_pose].matrix()
        return RigCamera(
            name=calibration.channel,
            image=self.data_path / shot.file,
            intrinsics=calibration.intrinsics,
            camera_to_ego=moved @ calibration.sensor_to_ego.matrix(),
            size=shot.size,
        )

    def _check(self, moment: Moment) -> None:
        lacking = [name for name in self.cameras if name not in moment.shots]
        if lacking:
            raise UserError(
                f"{self.tables / 'sample_data.json'}: sample {moment.token} of {moment.scene} has no image of "
                f"{', '.join(lacking)}; it has {', '.join(sorted(moment.shots)) or 'none at all'}"
            )
        for name in self.cameras:
            shot = moment.shots[name]
            if shot.calibration.intrinsics is None:
                raise UserError(
                    f"{self.tables / 'calibrated_sensor.json'}: record {shot.calibration.token} of {name} has no "
                    "calibration: its camera_intrinsic is empty, expected 3 rows of 3 numbers"
                )
            if min(shot.size) < 1:
                raise UserError(
                    f"{self.tables / 'sample_data.json'}: {shot.file} has the size {shot.size}, expected its width and "
                    "height in pixels"
                )


def find_tables(data_path: Path, version: str | None) -> Path:
    """The folder of the tables.

    Raises:
        UserError: it is not there, or no version is named and there are several.
    """
    if version is not None:
        if not (data_path / version / "sample.json").is_file():
            raise UserError(f"{data_path / version} holds no sample.json: expected the tables of nuScenes there")
        return data_path / version
    found = sorted(path.parent for path in data_path.glob("*/sample.json"))
    if len(found) != 1:
        names = ", ".join(folder.name for folder in found) or "none"
        raise UserError(
            f"{data_path}: expected one folder with the tables of nuScenes (v1.0-mini, v1.0-trainval), found {names}"
            + ("; name one as --version" if found else "")
        )
    return found[0]


def _read_moments(tables: Path, data_path: Path, part: Part, channels: set[str]) -> list[Moment]:
    """The part's samples by scene and time, their shots of these channels alone."""
    scenes = {token: (name, log) for token, name, log in read_table(tables, "scene", _scene)}
    wanted = scenes_of(part, tables, {name for name, _ in scenes.values()})
    masks = _read_masks(tables, data_path)

    def sample(record: Record) -> tuple[str, float, str, str] | None:
        scene, log = named(scenes, record, "scene_token", "scene")
        return (scene, float(record["timestamp"]), text(record, "token"), log) if scene in wanted else None

    samples = sorted(read_table(tables, "sample", sample))
    tokens = {token for _, _, token, _ in samples}
    shots: dict[str, dict[str, Shot]] = defaultdict(dict)
    for shot in read_shots(tables, tokens, channels):
        shots[shot.sample][shot.calibration.channel] = shot
    annotations = read_annotations(tables, tokens)
    return [Moment(token, scene, masks.get(log), shots[token], annotations[token]) for scene, _, token, log in samples]


def _scene(record: Record) -> tuple[str, str, str]:
    return text(record, "token"), text(record, "name"), text(record, "log_token")


def _read_masks(tables: Path, data_path: Path) -> dict[str, MapMask]:
    """The map of each log by the log's token."""

    def row(record: Record) -> tuple[str, tuple[str, ...]]:
        file, logs = text(record, "filename"), record["log_tokens"]
        if not stays_inside(file):
            raise ValueError(f"filename {file[:100]!r} is no plain path within the data folder")
        return file, tuple(logs)

    maps = read_table(tables, "map", row)
    return {log: MapMask(data_path / file) for file, logs in maps for log in logs}
