"""nuScenes' tables: what the reader makes of them, on a keyframe of nuScenes itself and on damaged tables."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hybrid_encoder.bev.grid import BevGrid
from hybrid_encoder.bev.raster import road_map, vehicle_map
from hybrid_encoder.data.nuscenes import CAMERAS, NuScenesSource
from hybrid_encoder.data.nuscenes_splits import VALIDATION, scene_names
from hybrid_encoder.data.rig import MapMask, RigBox, RigCamera, RigSample
from hybrid_encoder.errors import UserError
from hybrid_encoder.images import read_image
from hybrid_encoder.synthetic.nuscenes_tables import TableWriter, Tracked, pose_fields

Records = list[dict[str, Any]]
VEHICLES = ("car", "truck", "trailer", "bus.rigid", "construction", "bicycle", "motorcycle")
OTHERS = ("human.pedestrian.adult", "movable_object.trafficcone", "movable_object.barrier", "animal")
CATEGORIES = (*(f"vehicle.{name}" for name in VEHICLES), *OTHERS)
"""nuScenes' names for the labels of sample.json; the last for label -1."""
MINI = "v1.0-mini"


def read(folder: Path, table: str) -> Records:
    return json.loads((folder / MINI / f"{table}.json").read_bytes())


def edit(folder: Path, table: str, change: Callable[[Records], object]) -> None:
    records = read(folder, table)
    change(records)
    (folder / MINI / f"{table}.json").write_text(json.dumps(records))


# A keyframe of nuScenes.


@pytest.fixture(scope="module")
def keyframe(real_data: Path) -> dict[str, Any]:
    return json.loads((real_data / "nuscenes_sample" / "sample.json").read_bytes())


def real_boxes(keyframe: dict[str, Any], lidar_to_ego: np.ndarray) -> tuple[RigBox, ...]:
    """The boxes of sample.json, which lie in the scanner's frame with their centres, in the ego frame."""
    boxes = []
    for instance in keyframe["instances"]:
        x, y, z, length, width, height, yaw = instance["bbox_3d"]
        ahead = lidar_to_ego[:3, :3] @ (math.cos(yaw), math.sin(yaw), 0.0)
        centre = (lidar_to_ego @ (x, y, z, 1.0))[:3]
        category, size = CATEGORIES[instance["bbox_label"]], np.array([length, width, height])
        boxes.append(RigBox(category, centre, size, math.atan2(ahead[1], ahead[0]), None))
    return tuple(boxes)


@pytest.fixture(scope="module")
def real(keyframe: dict[str, Any], real_data: Path, module_path: Path) -> Path:
    """The keyframe as data of v1.0-mini; as there, each camera has the vehicle's pose at its own moment."""
    root = module_path / "real"
    ego_to_global = np.array(keyframe["ego2global"])
    lidar_to_ego = np.array(keyframe["lidar_points"]["lidar2ego"])
    lidar = keyframe["lidar_points"]["lidar_path"]
    files = {name: camera["img_path"] for name, camera in keyframe["images"].items()} | {"LIDAR_TOP": lidar}
    for channel, file in files.items():
        (root / "samples" / channel).mkdir(parents=True)
        (root / "samples" / channel / file).symlink_to((real_data / "nuscenes_sample" / file).resolve())
    cameras, poses = [], {}
    for name, camera in keyframe["images"].items():
        camera_to_ego = np.array(camera["cam2ego"])
        path = root / "samples" / name / camera["img_path"]
        cameras.append(RigCamera(name, path, np.array(camera["cam2img"])[:3, :3], camera_to_ego, (1600, 900)))
        lidar_to_camera = np.array(camera["lidar2cam"])  # across the vehicle's motion between the two moments
        poses[name] = ego_to_global @ lidar_to_ego @ np.linalg.inv(camera_to_ego @ lidar_to_camera)
    boxes = real_boxes(keyframe, lidar_to_ego)
    path = root / "samples" / "LIDAR_TOP" / lidar
    sample = RigSample(keyframe["token"], "scene-0061", tuple(cameras), boxes, ego_to_global, None, path, lidar_to_ego)
    writer = TableWriter(root)
    writer.add(sample, keyframe["timestamp"], [Tracked(i, 1) for i in range(len(boxes))])
    writer.write(MINI, {})
    (root / MINI / "splits.json").unlink()

    def move(records: Records) -> None:
        for name in poses:
            next(record for record in records if f"/{name}/" in record["filename"])["ego_pose_token"] = name

    edit(root, "sample_data", move)
    edit(root, "ego_pose", lambda records: records.extend({"token": n} | pose_fields(p) for n, p in poses.items()))
    return root


def test_calibration_of_a_real_keyframe(real: Path, keyframe: dict[str, Any]) -> None:
    (sample,) = NuScenesSource(real, "train")
    assert (sample.token, sample.scene, sample.map_mask) == (keyframe["token"], "scene-0061", None)
    assert [camera.name for camera in sample.cameras] == list(CAMERAS)
    for camera in sample.cameras:
        expected = keyframe["images"][camera.name]
        np.testing.assert_allclose(camera.intrinsics, np.array(expected["cam2img"])[:3, :3], rtol=1e-12)
        lidar_to_camera = np.linalg.inv(camera.camera_to_ego) @ sample.lidar_to_ego
        np.testing.assert_allclose(lidar_to_camera, expected["lidar2cam"], atol=2e-5)  # stored as float32
    moved = sample.cameras[0].camera_to_ego - np.array(keyframe["images"]["CAM_FRONT_LEFT"]["cam2ego"])
    assert abs(moved[0, 3] + 0.40) < 0.01  # the image is 43 ms older than the sweep, at 9 m/s


def sweep(sample: RigSample) -> tuple[np.ndarray, np.ndarray]:
    """The points (4, N) of the sample's sweep in the ego frame, homogeneous, and their rings (N,)."""
    assert sample.lidar is not None
    values = np.fromfile(sample.lidar, np.float32).reshape(-1, 5)
    return sample.lidar_to_ego @ np.vstack([values[:, :3].T, np.ones(len(values))]), values[:, 4]


def inside(box: RigBox, points: np.ndarray) -> np.ndarray:
    """(N,) bool: which points (4, N) lie in a box."""
    x, y, z = points[:3] - box.centre[:, None]
    along = math.cos(box.yaw) * x + math.sin(box.yaw) * y
    across = math.cos(box.yaw) * y - math.sin(box.yaw) * x
    return (np.abs(np.stack([along, across, z])) <= box.size[:, None] / 2).all(0)


def pixels(camera: RigCamera, points: np.ndarray, turned: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the points (4, N) that fall on a camera's image; `turned`: by a wrong yaw, degrees."""
    cos, sin = math.cos(math.radians(turned)), math.sin(math.radians(turned))
    seen = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]) @ (np.linalg.inv(camera.camera_to_ego) @ points)[:3]
    u, v, depth = camera.intrinsics @ seen[:, seen[2] > 1.0]
    u, v = u / depth, v / depth
    on = (u >= 0) & (u < camera.size[0] - 1) & (v >= 0) & (v < camera.size[1] - 1)
    return u[on].astype(int), v[on].astype(int)


def test_lidar_points_fall_into_boxes_and_onto_images(real: Path, keyframe: dict[str, Any]) -> None:
    (sample,) = NuScenesSource(real, "train")
    points, _ = sweep(sample)
    counted = np.array([inside(box, points).sum() for box in sample.boxes])
    published = np.array([instance["num_lidar_pts"] for instance in keyframe["instances"]])
    assert (counted == published).sum() == 63  # of 69; the others differ by points on a face of the box
    assert (counted.sum(), published.sum()) == (989, 1009)
    shares = [len(pixels(camera, points)[0]) / points.shape[1] for camera in sample.cameras]
    np.testing.assert_allclose(shares, [0.107, 0.088, 0.089, 0.118, 0.139, 0.097], atol=5e-4)


def test_depth_edges_lie_on_image_edges(real: Path) -> None:
    """Where the sweep jumps from near to far, images have 2.3 times their usual gradient; half a degree beside, not."""
    (sample,) = NuScenesSource(real, "train")
    points, rings = sweep(sample)
    points = points[:, np.argsort(rings, kind="stable")]
    scores = []
    for camera in sample.cameras:
        grey = cv2.cvtColor(read_image(camera.image), cv2.COLOR_RGB2GRAY).astype(np.float32)
        gradient = np.abs(cv2.Sobel(cv2.GaussianBlur(grey, (0, 0), 3), cv2.CV_32F, 1, 0))
        seen = points[:3] - camera.camera_to_ego[:3, 3:]
        ranges = np.linalg.norm(seen, axis=0)
        side_by_side = np.linalg.norm(np.diff(seen / ranges), axis=0) < 0.02
        jump = np.flatnonzero(side_by_side & (np.abs(np.diff(np.log(ranges))) > 0.15))
        edge = points[:, np.where(ranges[jump + 1] < ranges[jump], jump + 1, jump)]
        at = [pixels(camera, edge, turned) for turned in (0.0, -0.5, 0.5, -2.0, 2.0)]
        scores.append([gradient[v, u].mean() / gradient.mean() for u, v in at])
    right, *wrong = np.mean(scores, axis=0)
    assert right > 2.2
    assert max(wrong) < 1.8


def test_vehicles_of_a_real_keyframe_on_the_grid(real: Path) -> None:
    (sample,) = NuScenesSource(real, "train")
    grid = BevGrid(-100, 100, -100, 100, 0.25)
    vehicles, (points, _) = vehicle_map(sample, grid), sweep(sample)
    boxes = [box for box in sample.boxes if box.category.startswith("vehicle.")]
    assert len(boxes) == 13
    area = sum(box.size[0] * box.size[1] for box in boxes)
    assert abs(vehicles.sum() * grid.cell**2 - area) < 0.03 * area
    on_vehicles = points[:, np.any([inside(box, points) for box in boxes], axis=0)]
    i, j = np.floor((on_vehicles[:2] + 100) / grid.cell).astype(int)
    assert vehicles[i, j].mean() > 0.85  # the rest: cells on an edge, whose centre is outside
    with pytest.raises(UserError, match="has no map"):
        road_map(sample, grid)


# Tables of our own.


@pytest.fixture(scope="module")
def written(module_path: Path) -> Path:
    """Three samples of two scenes of v1.0-mini with black images and an empty map."""
    root = module_path / "written"
    (root / "maps").mkdir(parents=True)
    assert cv2.imwrite(str(root / "maps" / "a.png"), np.zeros((8, 8), np.uint8))
    writer = TableWriter(root)
    pose = np.eye(4)
    for number, scene in enumerate(("scene-0061", "scene-0103", "scene-0061")):
        cameras = []
        for name in CAMERAS:
            path = root / "samples" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), np.zeros((9, 16, 3), np.uint8))
            cameras.append(RigCamera(name, path, np.array([[20.0, 0, 8], [0, 20, 4.5], [0, 0, 1]]), pose, (16, 9)))
        pose[0, 3] = 100.0
        box = RigBox("vehicle.car", np.array([1.0, 2, 3]), np.array([4.0, 2, 1.5]), 0.5, 2)
        mask = MapMask(root / "maps" / "a.png")
        sample = RigSample(f"token{number}", scene, tuple(cameras), (box,), pose.copy(), mask, None, None)
        writer.add(sample, 10.0 - number, [Tracked(0, 5)])
    writer.write(MINI, {})
    (root / MINI / "splits.json").unlink()
    return root


def test_samples_come_back_by_scene_and_time(written: Path) -> None:
    train, val = NuScenesSource(written, "train"), NuScenesSource(written, "val", MINI)
    assert [sample.token for sample in (train[0], train[1], val[0])] == ["token2", "token0", "token1"]
    assert (len(train), len(val)) == (2, 1)
    sample = train[0]
    assert sample.ego_to_global[0, 3] == 100
    assert sample.map_mask == MapMask(written / "maps" / "a.png")
    assert (sample.lidar, sample.lidar_to_ego) == (None, None)
    (box,) = sample.boxes
    assert (box.category, box.visibility) == ("vehicle.car", 2)
    np.testing.assert_allclose([*box.centre, *box.size, box.yaw], [1, 2, 3, 4, 2, 1.5, 0.5])
    (first, second) = read(written, "sample")[0], read(written, "sample")[2]
    assert (first["next"], second["prev"], second["next"]) == ("token2", "token0", "")


def test_the_usual_scenes() -> None:
    names = scene_names(VALIDATION)
    assert len(names) == 150
    assert {"scene-0003", "scene-0553", "scene-0796", "scene-1073"} <= names
    assert not {"scene-0001", "scene-0061", "scene-0655", "scene-1110"} & names


def first(**changes: object) -> Callable[[Records], object]:
    """Changes fields of the first record; None takes a field out."""

    def change(records: Records) -> None:
        records[0].update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            del records[0][name]

    return change


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("calibrated_sensor", first(camera_intrinsic=[]), "of CAM_FRONT_LEFT has no calibration: its camera_intrinsic"),
        ("calibrated_sensor", first(camera_intrinsic=[[1.2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]]), "are they fractions"),
        ("calibrated_sensor", first(camera_intrinsic=[[1, 2], [3, 4]]), r"expected 3 rows of 3 numbers, or none"),
        ("calibrated_sensor", first(rotation=[1, 1, 0, 0]), "length 1.41421, expected a unit quaternion"),
        ("calibrated_sensor", first(rotation=None), r"calibrated_sensor\.json: record \w+: it has no field 'rotation'"),
        ("calibrated_sensor", first(translation=[1, 2, float("nan")]), "translation is .*, expected 3 finite numbers"),
        ("calibrated_sensor", lambda records: records.pop(0), "which the table calibrated_sensor lacks"),
        ("sample_data", lambda records: records.pop(0), "sample token0 of scene-0061 has no image of CAM_FRONT_LEFT"),
        ("sample_data", first(filename="../../etc/passwd"), "no plain path within the data folder"),
        ("sample_data", first(filename="samples/none.jpg"), r"1 images that .* are missing .*\n.*none\.jpg\n.*blobs"),
        ("sample_data", first(width=0), r"has the size \(0, 9\), expected its width and height"),
        ("sample_data", first(is_key_frame=None), "no field 'is_key_frame'"),
        ("ego_pose", lambda records: records.pop(0), r"ego_pose\.json lacks 1 records"),
        ("sample_annotation", first(size=[0, 1, 1]), "expected a width, length and height above 0"),
        ("sample_annotation", first(instance_token="x"), "instance_token is x, which the table instance lacks"),
        ("instance", first(category_token=7), "category_token is 7, expected text"),
        ("scene", lambda records: records.pop(), "scene_token is .*, which the table scene lacks"),
        ("map", first(filename="C:/x"), "no plain path within the data folder"),
    ],
)
def test_bad_tables_are_named(
    written: Path, tmp_path: Path, table: str, change: Callable[[Records], object], message: str
) -> None:
    folder = shutil.copytree(written, tmp_path / "copy")
    edit(folder, table, change)
    with pytest.raises(UserError, match=message):
        NuScenesSource(folder, "train")


def test_tables_that_cannot_be_read(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "copy")
    with pytest.raises(UserError, match=r"v1\.0-test holds no sample\.json"):
        NuScenesSource(folder, "train", "v1.0-test")
    for content, message in (
        ("[1]", "expected a list of records"),
        ("[{", "cannot read the table"),
        ("3", "a list of"),
    ):
        (folder / MINI / "sample.json").write_text(content)
        with pytest.raises(UserError, match=message):
            NuScenesSource(folder, "train")
    (folder / MINI / "sensor.json").unlink()
    (folder / MINI / "sample.json").write_text("[]")
    with pytest.raises(UserError, match=r"cannot read the table .*sensor\.json: No such file"):
        NuScenesSource(folder, "train")
    shutil.copytree(folder / MINI, folder / "v1.0-trainval")
    with pytest.raises(UserError, match=r"found v1\.0-mini, v1\.0-trainval; name one as --version"):
        NuScenesSource(folder, "train")
    with pytest.raises(UserError, match=r"expected one folder with the tables of nuScenes .*, found none"):
        NuScenesSource(tmp_path, "train")


def test_a_list_of_ones_own_says_which_scenes(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "copy")
    listed = folder / MINI / "splits.json"
    listed.write_text(json.dumps({"train": ["scene-0103"], "val": ["scene-9999"]}))
    assert [sample.token for sample in NuScenesSource(folder, "train")] == ["token1"]
    with pytest.raises(UserError, match=r"none of the 2 scenes in .* is for val"):
        NuScenesSource(folder, "val")
    listed.write_text("[]")
    with pytest.raises(UserError, match=r"cannot read the scenes for val in .*splits\.json"):
        NuScenesSource(folder, "val")


def test_samples_that_lack_images_may_be_left_out(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "copy")
    (folder / "samples" / "CAM_BACK" / "0.png").unlink()
    with pytest.raises(UserError, match="--skip_bad 1"):
        NuScenesSource(folder, "train", skip_bad=0)
    assert [sample.token for sample in NuScenesSource(folder, "train", skip_bad=1)] == ["token2"]
