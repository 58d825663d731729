"""Points, legends, colour maps and proportions of predictions: what the files hold."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from hybrid_encoder.cli import main
from hybrid_encoder.colormap import COLORMAPS, colorize_disparity, write_picture
from hybrid_encoder.data.calibration import Intrinsics
from hybrid_encoder.data.poses import read_poses, write_kitti_poses
from hybrid_encoder.data.video import iterate_video
from hybrid_encoder.errors import UserError
from hybrid_encoder.evaluation.trajectory import motions_of
from hybrid_encoder.images import read_image
from hybrid_encoder.metric.ply import write_ply
from hybrid_encoder.metric.points import Cloud, VoxelGrid, cloud_of, on_surface
from hybrid_encoder.metric.source import ScaleSource
from hybrid_encoder.prediction.batches import predict_batch
from hybrid_encoder.prediction.frame_pictures import ColourScale
from hybrid_encoder.prediction.legend import with_legend
from hybrid_encoder.prediction.paths import predict_paths
from hybrid_encoder.prediction.settings import PredictionSettings
from hybrid_encoder.stage2.stereo_training import check_learnt_from_stereo
from hybrid_encoder.synthetic.sequence import SyntheticSequence, render_sequence

HEIGHT, WIDTH, FRAMES = 64, 192, 6
UNIT = 27.0
"""Metres per unit of the stand-in's depth."""
QUIET = PredictionSettings(progress=False, video_codec="mpeg4")
VERTEX = np.dtype([(name, "<f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")])


@pytest.fixture(scope="module")
def drive() -> SyntheticSequence:
    """A rendered drive, whose ground is the plane y = 0 of the world."""
    return render_sequence(5, FRAMES, HEIGHT, WIDTH)


@pytest.fixture
def recorded(drive: SyntheticSequence, tmp_path: Path) -> Path:
    return record(drive, tmp_path)


def record(drive: SyntheticSequence, folder: Path) -> Path:
    """Writes the drive as a video, its path, and its frames as images; returns the folder."""
    writer = cv2.VideoWriter(str(folder / "drive.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    for number, image in enumerate(drive.images.permute(0, 2, 3, 1).numpy()):
        writer.write(np.ascontiguousarray(image[..., ::-1]))
        write_picture(folder / "images" / f"{number}.png", image)
    writer.release()
    write_kitti_poses(folder / "poses.txt", drive.T_world_camera.numpy().astype(np.float64))
    return folder


class Exact:
    """A stand-in for a trained net: exact depth in units of its own, with noise, of the frame that it recognises."""

    height, width, min_depth, max_depth = HEIGHT, WIDTH, 0.001, 20.0

    def __init__(self, drive: SyntheticSequence, noise: float = 0.0) -> None:
        self.images, self.noise = drive.images.float() / 255, noise
        depth = drive.depth[:, 0].numpy()
        self.disparities = UNIT / np.where(depth > 0, depth, 400)

    def disparity(self, image: Tensor) -> Tensor:
        found = [int((self.images - one).abs().mean((1, 2, 3)).argmin()) for one in image]
        random = np.random.default_rng(found[0])
        disparities = self.disparities[found]
        return torch.from_numpy(disparities * np.exp(self.noise * random.standard_normal(disparities.shape)))[:, None]


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) and colours (N, 3) of a file as `write_ply` writes them."""
    header, _, data = path.read_bytes().partition(b"end_header\n")
    vertices = np.frombuffer(data, VERTEX)
    assert f"element vertex {len(vertices)}\n".encode() in header
    return (
        np.stack([vertices[name] for name in "xyz"], axis=1),
        np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1),
    )


def distances(points: np.ndarray, drive: SyntheticSequence, frames: range) -> np.ndarray:
    """Metres, along the view, between points (N, 3) of the world and the surface that some frame sees there: of the
    frames that see the place, the one that fits best."""
    best = np.full(len(points), np.inf)
    K = drive.K.numpy()
    for frame in frames:
        world_to_camera = np.linalg.inv(drive.T_world_camera[frame].numpy().astype(np.float64))
        x, y, z = world_to_camera[:3, :3] @ points.T + world_to_camera[:3, 3:]
        column = np.round(x / np.maximum(z, 0.1) * K[0, 0] + K[0, 2]).astype(int)
        row = np.round(y / np.maximum(z, 0.1) * K[1, 1] + K[1, 2]).astype(int)
        inside = (z > 0.1) & (column >= 0) & (row >= 0) & (column < WIDTH) & (row < HEIGHT)
        seen = drive.depth[frame, 0].numpy()[row.clip(0, HEIGHT - 1), column.clip(0, WIDTH - 1)]
        best = np.minimum(best, np.where(inside & (seen > 0), np.abs(seen - z), np.inf))
    return best


def settings(drive: SyntheticSequence, **changes: Any) -> PredictionSettings:
    camera = Intrinsics(drive.K.numpy().astype(np.float64), (WIDTH, HEIGHT))
    return replace(QUIET, camera=camera, scale_from=ScaleSource("camera_height", 1.65), points=True, **changes)


# Points


def test_points_lie_on_the_surfaces_of_a_rendered_scene(
    drive: SyntheticSequence, recorded: Path, capsys: pytest.CaptureFixture
) -> None:
    out = recorded / "out"
    written = predict_paths(Exact(drive, 0.01), [recorded / "images" / "2.png"], out, settings(drive))
    assert [path.name for path in written] == ["2_disp.png", "2_depth.png", "2_pair.jpg", "2.ply"]
    assert "scale from camera height 1.65 m: " in capsys.readouterr().out
    points, colours = read_ply(out / "2.ply")
    pose = drive.T_world_camera[2].numpy().astype(np.float64)
    world = points.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    found = distances(world, drive, range(2, 3))
    assert len(points) > 0.35 * HEIGHT * WIDTH
    assert np.median(found) < 0.3
    assert b"unit: m\n" in (out / "2.ply").read_bytes()[:200]
    assert colours.std() > 10
    near_ground = np.abs(world[:, 1]) < 0.3
    assert near_ground.mean() > 0.2
    assert np.median(np.abs(world[near_ground, 1])) < 0.08


def test_a_fused_video_lies_on_the_surfaces(
    drive: SyntheticSequence, recorded: Path, capsys: pytest.CaptureFixture
) -> None:
    out, asked = recorded / "out", settings(drive, poses=recorded / "poses.txt", voxel=0.2)
    written = predict_paths(Exact(drive, 0.01), [recorded / "drive.avi"], out, asked)
    assert [path.name for path in written] == ["drive_depth.mp4", "drive.ply"]
    points, _ = read_ply(out / "drive.ply")
    found = distances(points.astype(np.float64), drive, range(FRAMES))
    assert np.median(found) < 0.2
    assert np.isfinite(found).mean() > 0.95
    told = capsys.readouterr().out
    assert "m per unit of depth, from 2 of 2 frames" in told
    assert "over the video" in told
    assert "consistency of 5 pairs of frames" in told
    assert "with each frame's own scale" in told


class KnownMotions:
    """Pose nets that are exact but for the unit."""

    height, width, resize = HEIGHT, WIDTH, "area"

    def __init__(self, drive: SyntheticSequence) -> None:
        self.left = list(motions_of(drive.T_world_camera.numpy().astype(np.float64)))

    def motions(self, earlier: Tensor, later: Tensor) -> Tensor:
        found = np.stack([self.left.pop(0) for _ in earlier])
        found[:, :3, 3] /= UNIT
        return torch.from_numpy(found)


@pytest.mark.parametrize("kind", ["speed", "poses"])
def test_speed_and_poses_make_a_videos_depth_path_and_points_metric(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    drive = render_sequence(8, FRAMES, HEIGHT, WIDTH)  # its images show every motion clearly
    recorded = record(drive, tmp_path)
    out, poses = recorded / "out", drive.T_world_camera.numpy().astype(np.float64)
    speed = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).mean() * 10
    (recorded / "speed.txt").write_text(f"0 {speed}\n1 {speed}\n")
    source = ScaleSource(kind, file=recorded / {"speed": "speed.txt", "poses": "poses.txt"}[kind])  # type: ignore[arg-type]
    asked = replace(settings(drive), scale_from=source, trajectory=True)
    predict_paths(Exact(drive), [recorded / "drive.avi"], out, asked, poses=KnownMotions(drive))
    told = capsys.readouterr().out
    assert f"the {'speed' if kind == 'speed' else 'pose'}s of " in told
    assert "from 2 of 2 frames" in told
    assert float(told.split("txt: ")[1].split(" m per")[0]) == pytest.approx(UNIT, rel=0.02)
    path = read_poses(out / "drive_trajectory_kitti.txt")
    assert path[:, :3, 3] == pytest.approx((np.linalg.inv(poses[0]) @ poses)[:, :3, 3], rel=0.03, abs=0.03)
    points, _ = read_ply(out / "drive.ply")
    world = points.astype(np.float64) @ poses[0, :3, :3].T + poses[0, :3, 3]
    assert np.median(distances(world, drive, range(FRAMES))) < 0.1


def test_a_path_of_another_video_is_refused(drive: SyntheticSequence, recorded: Path) -> None:
    poses = recorded / "poses.txt"
    poses.write_text("".join(poses.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(UserError, match="the path has 3 poses for 6 frames of the video"):
        predict_paths(Exact(drive), [recorded / "drive.avi"], recorded / "out", settings(drive, poses=poses))
    both = [recorded / "drive.avi", recorded / "images"]
    with pytest.raises(UserError, match="give one video, or the images of one"):
        predict_paths(Exact(drive), both, recorded / "out", settings(drive, poses=poses))
    with pytest.raises(UserError, match=r"the camera's path is not known. .* --poses"):
        predict_paths(Exact(drive), [recorded / "drive.avi"], recorded / "out", settings(drive))


def test_a_field_of_view_stands_for_intrinsics(drive: SyntheticSequence, recorded: Path) -> None:
    asked = replace(settings(drive), camera=None, fov=90.0, scale_from=None)
    predict_paths(Exact(drive), [recorded / "images" / "0.png"], recorded / "out", asked)
    points, _ = read_ply(recorded / "out" / "0.ply")
    assert np.abs(points[:, 0] / points[:, 2]).max() == pytest.approx(95.5 / 96, rel=0.01)
    assert b"unit: arbitrary unit\n" in (recorded / "out" / "0.ply").read_bytes()[:200]


def test_edges_of_depth_and_the_far_end_have_no_points() -> None:
    depth = np.full((20, 40), 8.0)
    depth[5:15, 10:25] = 4.0
    depth[:2] = 90.0
    kept = on_surface(depth)
    assert not kept[:2].any()
    assert not kept[8, [9, 10, 24, 25]].any()
    assert kept[8, 14:20].all()
    assert kept[17:, :].all()
    rows = np.arange(1, 41)[:, None] + np.zeros((1, 10))
    assert on_surface(1.65 * 40 / rows)[8:].all(), "a road is no edge, however flat it is seen"


def test_cells_average_their_points_and_count_frames() -> None:
    grid = VoxelGrid(1.0)
    later = np.eye(4)
    later[2, 3] = 2.0
    grid.add(Cloud(np.array([[0.2, 0.2, 2.0]], np.float32), np.array([[200, 0, 0]], np.uint8)), later)
    for _ in range(9):
        grid.add(Cloud(np.array([[0.4, 0.2, 4.2], [5, 5, 5]], np.float32), np.full((2, 3), 100, np.uint8)), np.eye(4))
    points, colours = grid.cloud(min_frames=10)
    weights = np.array([1 / 2.0**2, 9 / 4.2**2])
    assert points[0] == pytest.approx((weights @ [[0.2, 0.2, 4.0], [0.4, 0.2, 4.2]]) / weights.sum(), rel=1e-5)
    assert colours[0, 0] == round(float(weights @ [200, 100] / weights.sum()))
    assert len(points) == 1
    assert len(grid.cloud(min_frames=9).points) == 2


def test_the_file_opens_in_trimesh(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed: pip install trimesh")
    cloud = cloud_of(
        np.arange(36, dtype=np.uint8).reshape(3, 4, 3), np.full((3, 4), 2.0), np.ones((3, 4), bool), np.eye(3)
    )
    write_ply(tmp_path / "a.ply", cloud, "m")
    opened = trimesh.load(tmp_path / "a.ply")
    assert np.asarray(opened.vertices) == pytest.approx(cloud.points)
    assert np.array_equal(np.asarray(opened.colors)[:, :3], cloud.colours)


# Pictures


def test_the_legend_shows_depth_and_its_unit() -> None:
    disparity = np.linspace(1 / 80, 1 / 2, 400)[None].repeat(120, 0)
    limits = (1 / 80, 1 / 2)
    plain = colorize_disparity(disparity, limits)
    metric, unknown = (with_legend(plain, limits, unit, "magma") for unit in ("m", "arbitrary unit"))
    changed = (metric != plain).any(2)
    assert not changed[60:].any()
    assert not changed[:, :200].any()
    assert (metric != unknown).any()
    assert np.array_equal(with_legend(plain[:40, :80], limits, "m", "magma"), plain[:40, :80]), "too small for one"


def test_pairs_and_colour_maps(drive: SyntheticSequence, recorded: Path) -> None:
    image = recorded / "images" / "0.png"
    seen = {}
    for colormap in COLORMAPS:
        predict_paths(Exact(drive), [image], recorded / colormap, replace(QUIET, colormap=colormap))
        pair = read_image(recorded / colormap / "0_pair.jpg")
        assert pair.shape == (HEIGHT, 2 * WIDTH, 3)
        assert np.abs(pair[:, :WIDTH].astype(int) - read_image(image)).mean() < 12
        seen[colormap] = read_image(recorded / colormap / "0_disp.png")
        assert np.abs(pair[:, WIDTH:].astype(int) - seen[colormap]).mean() < 12
    assert len({picture.tobytes() for picture in seen.values()}) == len(COLORMAPS)
    with pytest.raises(UserError, match="--colormap rainbow: expected one of magma"):
        replace(QUIET, colormap="rainbow")


def test_colours_follow_slowly() -> None:
    scale = ColourScale()
    ends = [scale.follow(np.linspace(0.1, 1.0 if n % 2 else 0.8, 100)) for n in range(20)]
    assert max(abs(b[1] - a[1]) for a, b in pairwise(ends)) < 0.025
    assert scale.own[1] == pytest.approx(0.955, abs=0.01)


# Proportions


class Green:
    """Green is near; notes the sizes that it sees."""

    height, width, min_depth, max_depth = 96, 320, 0.1, 100.0

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def disparity(self, image: Tensor) -> Tensor:
        self.sizes.append(tuple(image.shape))
        return 0.1 + 0.4 * image[:, 1:2]


def test_inputs_keep_their_proportions_on_wish(tmp_path: Path) -> None:
    sizes = ((375, 1242), (720, 1280), (375, 1242), (100, 100))
    images = [np.full((h, w, 3), 20 * number, np.uint8) for number, (h, w) in enumerate(sizes)]
    model = Green()
    found = predict_batch(model, images, replace(QUIET, keep_aspect=True))
    assert model.sizes == [(2, 3, 96, 320), (1, 3, 128, 224), (1, 3, 160, 160)]
    for number, disparity in enumerate(found):
        assert disparity == pytest.approx(np.full_like(disparity, 0.1 + 0.4 * 20 * number / 255))
    assert {disparity.shape for disparity in predict_batch(model, images, QUIET)} == {(96, 320)}
    write_picture(tmp_path / "a.png", images[1])
    predict_paths(model, [tmp_path / "a.png"], tmp_path / "out", replace(QUIET, keep_aspect=True, pairs=False))
    assert read_image(tmp_path / "out" / "a_disp.png").shape == (720, 1280, 3)


def test_a_video_keeps_its_proportions(recorded: Path) -> None:
    model = Green()
    predict_paths(model, [recorded / "drive.avi"], recorded / "out", replace(QUIET, keep_aspect=True))
    assert model.sizes == [(4, 3, 96, 288), (2, 3, 96, 288)]
    assert len(list(iterate_video(recorded / "out" / "drive_depth.mp4"))) == FRAMES


def test_the_command_takes_the_options(drive: SyntheticSequence, recorded: Path, capsys: pytest.CaptureFixture) -> None:
    out, K = recorded / "out", drive.K.numpy()
    given = [
        "predict",
        str(recorded / "images" / "1.png"),
        "--out",
        str(out),
        "--points",
        "--no_pairs",
        "--keep_aspect",
    ]
    camera = ",".join(f"{value:.2f}" for value in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    assert main([*given, "--intrinsics", camera, "--scale_from", "camera_height=1.65", "--colormap", "viridis"]) == 0
    assert "scale from camera height 1.65 m" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["1.ply", "1_depth.png", "1_disp.png"]
    assert main([*given, "--scale_from", "height"]) == 2
    assert "expected camera_height=METRES, lidar" in capsys.readouterr().err


def test_a_baseline_needs_weights_that_learnt_from_stereo(tmp_path: Path) -> None:
    weights = tmp_path / "models" / "weights_0"
    weights.mkdir(parents=True)
    (weights / "encoder.pth").write_bytes(b"")
    check_learnt_from_stereo(str(tmp_path))
    (tmp_path / "models" / "opt.json").write_text('{"use_stereo": true}')
    check_learnt_from_stereo(str(weights))
    (tmp_path / "models" / "opt.json").write_text('{"use_stereo": false}')
    for folder in (tmp_path, weights):
        with pytest.raises(UserError, match="learnt from one camera"):
            check_learnt_from_stereo(str(folder))
    check_learnt_from_stereo("tiny-rendered")
