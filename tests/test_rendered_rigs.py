"""Rendered rigs: pictures, scans, boxes, visibility and road maps agree, for our reader and for nuscenes-devkit."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hybrid_encoder.bev.grid import BevGrid
from hybrid_encoder.bev.raster import fill_box, road_map, vehicle_map
from hybrid_encoder.data.map_mask import is_road
from hybrid_encoder.data.nuscenes import CAMERAS, NuScenesSource
from hybrid_encoder.data.rig import RigBox, RigCamera, RigSample
from hybrid_encoder.errors import UserError
from hybrid_encoder.images import read_image
from hybrid_encoder.synthetic.nuscenes import VERSION, ground_about, write_rigs
from hybrid_encoder.synthetic.render import render_view
from hybrid_encoder.synthetic.rig import RigStreet, box_of, draw_rig_street, render_moment
from hybrid_encoder.synthetic.scene import BUILDING, VEHICLE, Box, Place, Solid
from hybrid_encoder.synthetic.sequence import SEED_STRIDE
from hybrid_encoder.synthetic.settings import RigSettings
from hybrid_encoder.synthetic.side_streets import is_road as is_road_of_scene

SETTINGS = RigSettings(seed=5, scenes=3, frames=2, height=64, width=176, progress=False)


@pytest.fixture(scope="module")
def written(module_path: Path) -> Path:
    write_rigs(module_path / "rigs", SETTINGS)
    return module_path / "rigs"


def test_workers_write_the_same_files(written: Path, tmp_path: Path) -> None:
    write_rigs(tmp_path / "shared", replace(SETTINGS, num_workers=2))
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    assert sum(path.suffix == ".jpg" for path in files) == 3 * 2 * 6
    assert {path.relative_to(tmp_path / "shared") for path in tmp_path.rglob("*") if path.is_file()} == set(files)
    for path in files:
        assert (tmp_path / "shared" / path).read_bytes() == (written / path).read_bytes(), path


@pytest.fixture(scope="module")
def samples(written: Path) -> list[RigSample]:
    """Two frames each of three scenes, by scene and time."""
    return [*NuScenesSource(written, "train"), *NuScenesSource(written, "val")]


def street_of(index: int) -> tuple[RigStreet, int]:
    """The street and the frame of a sample."""
    number, frame = divmod(index, SETTINGS.frames)
    street = draw_rig_street(SETTINGS.seed * SEED_STRIDE + number, SETTINGS.frames, SETTINGS.height, SETTINGS.width)
    return street, frame


def scan(sample: RigSample) -> np.ndarray:
    """(4, N) points in the ego frame, homogeneous."""
    assert sample.lidar is not None
    points = np.fromfile(sample.lidar, np.float32).reshape(-1, 5)
    assert (np.abs(points[:, :3]) <= 81).all()
    assert set(points[:, 4]) <= set(range(32))
    return sample.lidar_to_ego @ np.vstack([points[:, :3].T, np.ones(len(points))])


def in_box(box: RigBox, points: np.ndarray) -> np.ndarray:
    """Which points lie in a box, 3 cm about it included, but not the ground below the vehicle's body."""
    x, y, z = points[:3] - box.centre[:, None]
    along, across = math.cos(box.yaw) * x + math.sin(box.yaw) * y, math.cos(box.yaw) * y - math.sin(box.yaw) * x
    inside = np.abs(np.stack([along, across, z])) <= box.size[:, None] / 2 + 0.03
    return inside.all(0) & (z > 0.15 - box.size[2] / 2)


def test_our_reader_opens_what_is_written(written: Path, samples: list[RigSample]) -> None:
    assert [sample.scene for sample in samples] == [f"scene-{n:04d}" for n in (1, 1, 2, 2, 3, 3)]
    assert len(NuScenesSource(written, "val")) == 2
    for sample in samples:
        assert [camera.name for camera in sample.cameras] == list(CAMERAS)
        assert all(read_image(camera.image).shape == (64, 176, 3) for camera in sample.cameras)
        assert all(camera.size == (176, 64) for camera in sample.cameras)
        assert len(sample.boxes) > 3
    ahead = {camera.name: camera.camera_to_ego[:2, 2] for camera in samples[0].cameras}
    degrees = {name: math.degrees(math.atan2(y, x)) % 360 for name, (x, y) in ahead.items()}
    assert degrees == pytest.approx(
        dict(zip(CAMERAS, (55, 0, 305, 110, 180, 250), strict=True)) | {"CAM_FRONT": degrees["CAM_FRONT"]}, abs=1.1
    )


def test_scans_lie_on_what_the_cameras_see(samples: list[RigSample]) -> None:
    """The depth at which a point projects into a picture is that picture's depth, where nothing hides the point."""
    sample, (street, frame) = samples[3], street_of(3)
    world_from_global = torch.linalg.inv(ground_about(street).global_from_world()).numpy()
    points = scan(sample)
    for camera, view in zip(sample.cameras, street.views, strict=True):
        pose = torch.from_numpy(world_from_global @ sample.ego_to_global @ camera.camera_to_ego)
        torch.testing.assert_close(pose, street.ego_to_world(frame) @ view.camera_to_ego, atol=1e-9, rtol=0)
        np.testing.assert_allclose(camera.intrinsics, view.camera.K.numpy(), rtol=1e-12)
        if camera.name not in ("CAM_FRONT_RIGHT", "CAM_BACK"):
            continue
        _, depth, _ = render_view(street.scene, frame, view.camera, pose, torch.zeros(3, 64, 176))
        seen = (np.linalg.inv(camera.camera_to_ego) @ points)[:3]
        seen = seen[:, seen[2] > 1]
        u, v = (camera.intrinsics @ seen / seen[2])[:2].round().astype(int)
        on = (u >= 0) & (u < 176) & (v >= 0) & (v < 64)
        assert on.sum() > 1000
        error = np.abs(depth.numpy()[v[on], u[on]] / seen[2, on] - 1)
        assert np.median(error) < 0.02  # a pixel of the ground is that deep
        assert (error < 0.08).mean() > 0.85


def test_points_lie_in_boxes(written: Path, samples: list[RigSample]) -> None:
    tables = written / VERSION
    annotations = json.loads((tables / "sample_annotation.json").read_bytes())
    stated: dict[str, list[int]] = {}
    for annotation in annotations:
        stated.setdefault(annotation["sample_token"], []).append(annotation["num_lidar_pts"])
    for sample in samples:
        points = scan(sample)
        counted = np.array([in_box(box, points).sum() for box in sample.boxes])
        assert (np.abs(counted - stated[sample.token]) <= 2 + 0.05 * counted).all()
        assert counted.sum() > 100


def test_an_object_keeps_its_instance(written: Path) -> None:
    tables = written / VERSION
    records = {name: json.loads((tables / f"{name}.json").read_bytes()) for name in ("instance", "sample_annotation")}
    annotations = {record["token"]: record for record in records["sample_annotation"]}
    twice = [instance for instance in records["instance"] if instance["nbr_annotations"] == 2]
    assert len(twice) > 15
    for instance in twice:
        first, last = (annotations[instance[f"{end}_annotation_token"]] for end in ("first", "last"))
        assert (first["next"], last["prev"]) == (last["token"], first["token"])
        assert first["size"] == last["size"]
        assert math.dist(first["translation"], last["translation"]) < 6.5


def test_visibility_is_the_share_that_shows() -> None:
    """A lone lorry 20 m ahead: whole, half hidden by a wall, and all hidden, where only the scanner may see it."""
    street = draw_rig_street(0, 1, 64, 176)
    street.scene.poses[0] = torch.eye(4, dtype=torch.float64)  # looks along z from the origin

    def boxes(*walls: Solid) -> list[int | None]:
        lorry = Solid(VEHICLE, Place(0, 20), Box(1.2, 4, 0.3, 3.0), (0.5, 0.5, 0.5), street.scene.solids[0].pattern)
        street.scene.solids[:], street.scene.rows = [lorry, *walls], []
        alone = RigStreet(0, street.scene, street.views, [[0]])
        return [seen.box.visibility for seen in render_moment(alone, 0).boxes]

    def wall(left: float, right: float, top: float = 9.0) -> Solid:
        box = Box((right - left) / 2, 0.5, 0, top)
        place = Place((left + right) / 2, 10)
        return Solid(BUILDING, place, box, (0.5, 0.5, 0.5), street.scene.solids[0].pattern)

    assert boxes() == [4]
    assert boxes(wall(-5, 0.05)) == [2]
    assert boxes(wall(-5, 5)) == []


def test_pictures_show_where_the_road_is(samples: list[RigSample]) -> None:
    """Asphalt is grey and open land is not, at nearly all of the pixels that see them."""
    right: list[float] = []
    for index in (0, 4):
        sample, (street, frame) = samples[index], street_of(index)
        for camera, view in zip(sample.cameras, street.views, strict=True):
            pose = street.ego_to_world(frame) @ view.camera_to_ego
            _, depth, _ = render_view(street.scene, frame, view.camera, pose, torch.zeros(3, 64, 176))
            rays = view.camera.rays(pose, depth.device)
            x, y, z = (rays.direction * depth + torch.tensor(rays.origin).view(3, 1, 1)).numpy()
            on_ground = (np.abs(y) < 0.02) & (depth.numpy() > 0) & (depth.numpy() < 15)
            road = is_road_of_scene(street.scene, x.astype(np.float64), z.astype(np.float64))
            image = read_image(camera.image).astype(int)
            grey = np.ptp(image, axis=2) < 22
            right += (grey == road)[on_ground & (road | far_from_road(street, x, z))].tolist()
    assert len(right) > 5_000
    assert np.mean(right) > 0.9


def far_from_road(street: RigStreet, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Points beyond all walkways, which may be grey."""
    scene, reach = street.scene, 4.5
    around = [(dx, dz) for dx in (-reach, 0, reach) for dz in (-reach, 0, reach)]
    return ~np.any([is_road_of_scene(scene, x + dx, z + dz) for dx, dz in around], axis=0)


def test_maps_on_the_grid_are_those_of_the_scene(samples: list[RigSample]) -> None:
    grid = BevGrid()
    for index in (1, 2, 5):
        sample, (street, frame) = samples[index], street_of(index)
        x, y = np.meshgrid(*grid.centres(), indexing="ij")
        points = np.stack([x, y, 0 * x, 0 * x + 1])
        world = np.tensordot(street.ego_to_world(frame).numpy(), points, axes=1)
        road = road_map(sample, grid)
        assert 0.02 < road.mean() < 0.5
        assert (road == is_road_of_scene(street.scene, world[0], world[2])).mean() > 0.995
        assert road[100:104, 99:101].all()  # under the vehicle
        assert vehicle_map(sample, grid).any()
        assert not vehicle_map(sample, grid)[99:108, 99:101].any()


def test_vehicles_keep_apart() -> None:
    grid = BevGrid(-75, 75, -75, 75, 0.25)
    ego = RigBox("vehicle.car", np.array([1.4, 0, 0.8]), np.array([4.6, 1.8, 1.6]), 0.0, None)
    count = 0
    for seed in range(12):
        street = draw_rig_street(seed, 3, 64, 176)
        for frame in (0, 2):
            solids, _ = street.scene.solids_at(frame)
            world_to_ego = torch.linalg.inv(street.ego_to_world(frame)).numpy()
            boxes = [box_of(solids[parts].numpy(), world_to_ego, 4) for parts in street.vehicles]
            near = [box for box in boxes if np.abs(box.centre[:2]).max() < 70]
            filled = np.zeros(grid.shape, int)
            for box in [ego, *near]:
                cells = np.zeros(grid.shape, bool)
                fill_box(cells, box, grid)
                filled += cells
            assert (filled > 1).sum() == 0, (seed, frame)
            count += len(near)
    assert count > 400


def test_a_seed_is_a_street() -> None:
    first, again, other = (render_moment(draw_rig_street(seed, 1, 32, 96), 0) for seed in (3, 3, 4))
    assert all(torch.equal(image, again.images[name]) for name, image in first.images.items())
    assert np.array_equal(first.sweep.points, again.sweep.points)
    assert not torch.equal(first.images["CAM_BACK"], other.images["CAM_BACK"])


def test_settings_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 scenes of 1 keyframes: expected at least 2 scenes"):
        write_rigs(tmp_path / "out", RigSettings(0, 1, 1, 64, 176))
    with pytest.raises(UserError, match="cannot render images of 16x176"):
        write_rigs(tmp_path / "out", RigSettings(0, 2, 1, 16, 176))
    assert not (tmp_path / "out").exists()


def test_nuscenes_devkit_reads_the_same(written: Path, samples: list[RigSample]) -> None:
    reason = "nuscenes-devkit is not here: it wants numpy < 2; pip install --no-deps it into a folder on PYTHONPATH"
    devkit = pytest.importorskip("nuscenes.nuscenes", reason=reason)
    data = devkit.NuScenes(VERSION, str(written), verbose=False)
    assert (len(data.scene), len(data.sample)) == (3, 6)
    for sample in samples:
        record = data.get("sample", sample.token)
        for camera in sample.cameras:
            path, boxes, K = data.get_sample_data(record["data"][camera.name], box_vis_level=devkit.BoxVisibility.NONE)
            assert Path(path) == camera.image
            np.testing.assert_allclose(K, camera.intrinsics)
            compare_boxes(camera, boxes, sample)
        scene = data.get("scene", record["scene_token"])
        mask = data.get("map", data.get("log", scene["log_token"])["map_token"])["mask"]
        x, y = np.random.default_rng(0).uniform(5, 145, (2, 1000))
        assert sample.map_mask is not None
        assert (mask.is_on_mask(x, y) == is_road(sample.map_mask, x, y)).mean() > 0.985  # it rounds to other pixels


def compare_boxes(camera: RigCamera, boxes: list, sample: RigSample) -> None:
    """Boxes as the devkit has them in a camera's axes: all those of the sample."""
    ours = np.stack([(np.linalg.inv(camera.camera_to_ego) @ [*box.centre, 1])[:3] for box in sample.boxes])
    theirs = np.stack([box.center for box in boxes])
    np.testing.assert_allclose(theirs, ours, atol=1e-6)
    assert [box.name for box in boxes] == [box.category for box in sample.boxes]
    np.testing.assert_allclose([box.wlh[[1, 0, 2]] for box in boxes], [box.size for box in sample.boxes])
    R = camera.camera_to_ego[:3, :3]
    yaws = [math.atan2(*(R @ box.orientation.rotation_matrix[:, 0])[1::-1]) for box in boxes]
    turned = np.array(yaws) - [box.yaw for box in sample.boxes]
    assert np.abs(np.sin(turned)).max() < 1e-6
