"""Metric scale: from the ground, LiDAR, a baseline, speed and poses; what is refused; how steady a video is."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from hybrid_encoder.commands.convert import open_depth_model
from hybrid_encoder.data.calibration import Intrinsics
from hybrid_encoder.data.depth_files import read_depth
from hybrid_encoder.data.poses import read_poses, write_kitti_poses, write_tum_poses
from hybrid_encoder.data.speeds import read_speeds
from hybrid_encoder.errors import UserError
from hybrid_encoder.evaluation import EvaluationProtocol, evaluate_depths
from hybrid_encoder.evaluation.consistency import colour_flicker, inconsistency, move
from hybrid_encoder.evaluation.trajectory import motions_of
from hybrid_encoder.metric.alignment import Alignment, align
from hybrid_encoder.metric.ground import fit_ground
from hybrid_encoder.metric.motion import motion_scale, steps_of
from hybrid_encoder.metric.scale import FrameScale, ScaleTracker, combine
from hybrid_encoder.metric.source import ScaleSource, read_scale_source
from hybrid_encoder.prediction.cameras import IMAGES, Cameras
from hybrid_encoder.prediction.scaling import scale_of_images
from hybrid_encoder.prediction.settings import PredictionSettings
from hybrid_encoder.stage2.evaluate import judge, predict
from hybrid_encoder.stage2.evaluation_data import EvaluationData, open_data
from hybrid_encoder.stage2.metric_scale import estimate_scale, metric_result
from hybrid_encoder.stage2.options import EvaluateOptions
from hybrid_encoder.synthetic.camera import Camera, kitti_camera
from hybrid_encoder.synthetic.sequence import SyntheticSource, iterate_frames

HEIGHT, WIDTH = 64, 192
UNIT = 27.0
"""Metres per unit of the stand-in for a trained net: its depth is exact but for this factor and noise."""
K = kitti_camera(HEIGHT, WIDTH).K.numpy()


def level_road(camera_height: float, tilt: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Depth (64, 192) of a plane so far below a camera that looks up by `tilt` and leans by `roll` degrees; 0 above the
    horizon."""
    t, r = math.radians(tilt), math.radians(roll)
    normal = np.array([math.sin(r), math.cos(r) * math.cos(t), -math.cos(r) * math.sin(t)])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1], np.ones_like(rows)], axis=-1)
    slope = rays @ normal
    return np.where(slope > 0.01, camera_height / np.maximum(slope, 0.01), 0)


# The ground


@pytest.mark.parametrize(("tilt", "roll"), [(0, 0), (4, 0), (-6, 3)])
def test_the_height_above_a_plane_whatever_the_cameras_tilt(tilt: float, roll: float) -> None:
    plane = fit_ground(level_road(1.65, tilt, roll) / UNIT, K)
    assert plane.refusal == ""
    assert UNIT * plane.height == pytest.approx(1.65, rel=0.01)
    assert plane.tilt == pytest.approx(math.hypot(tilt, roll), abs=0.3)
    assert plane.share > 0.95


@pytest.mark.parametrize("pitch", [0.0, -4.0])
def test_the_height_of_a_rendered_camera_through_noise(pitch: float) -> None:
    random = np.random.default_rng(0)
    for seed in (5, 8):
        (frame,) = iterate_frames(seed, 1, Camera(HEIGHT, WIDTH, torch.from_numpy(K), math.radians(pitch)))
        depth, height = frame.depth[0].numpy(), -float(frame.T_world_camera[1, 3])
        noisy = np.where(depth > 0, depth / UNIT * np.exp(0.05 * random.standard_normal(depth.shape)), 0)
        plane = fit_ground(noisy, K)
        assert plane.refusal == ""
        assert UNIT * plane.height == pytest.approx(height, rel=0.05)


@pytest.mark.parametrize(
    ("depth", "reason"),
    [
        (level_road(1.65, roll=25), "tilted by 25 degrees"),
        (np.full((HEIGHT, WIDTH), 7.0), "tilted by 90 degrees"),
        (np.where(np.arange(WIDTH) // 8 % 2, 2.0, level_road(1.65)), "% of the lower image lies on one plane"),
        (np.zeros((HEIGHT, WIDTH)), "the lower image has no depth"),
        (level_road(1.65, tilt=-40), "tilted by 40 degrees"),
        (np.exp(np.random.default_rng(1).normal(2, 0.5, (HEIGHT, WIDTH))), "% of the lower image lies on one plane"),
    ],
    ids=["leaning", "wall", "fence", "unknown", "steep", "noise"],
)
def test_what_is_no_ground_is_refused_with_the_reason(depth: np.ndarray, reason: str) -> None:
    found = fit_ground(depth, K)
    assert reason in found.refusal
    with pytest.raises(UserError, match=r"no scale from camera height 1\.65 m: 0 of 1 frames give one"):
        combine("camera height 1.65 m", [FrameScale(0.0, found.refusal)])


# One scale of many frames


def test_frames_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UserError, match="the 4 frames contradict each other, from 1 to 9 m per unit"):
        combine("LiDAR", [FrameScale(factor) for factor in (1.0, 3.0, 5.0, 9.0)])
    estimate = combine("LiDAR", [FrameScale(2.0), FrameScale(2.1), FrameScale(2.05), FrameScale(90.0)])
    assert (estimate.factor, estimate.used, estimate.frames) == (pytest.approx(2.075), 4, 4)
    with pytest.raises(UserError, match=r"1 of 4 frames give one, expected at least 33%\. Dark; wet"):
        combine("LiDAR", [FrameScale(2.0), FrameScale(0, "dark"), FrameScale(0, "wet"), FrameScale(0, "dark")])


def test_a_videos_scale_follows_slowly() -> None:
    tracker = ScaleTracker(combine("LiDAR", [FrameScale(1.0)]))
    followed = [tracker.follow(FrameScale(1.2 if n % 2 else 0.8)) for n in range(40)]
    assert max(abs(b / a - 1) for a, b in pairwise(followed)) < 0.01
    assert "over the video 0.98" in str(tracker)
    assert "from 40 of 40 frames" in str(tracker)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("camera_height=1.65", ScaleSource("camera_height", 1.65)),
        ("baseline=0.54", ScaleSource("baseline", 0.54)),
        ("lidar", ScaleSource("lidar")),
        ("speed=can.csv", ScaleSource("speed", file=Path("can.csv"))),
        ("poses", ScaleSource("poses")),
        *(
            (wrong, None)
            for wrong in ("height=2", "camera_height", "camera_height=-1", "baseline=x", "speed", "lidar=1")
        ),
    ],
)
def test_sources_are_read(text: str, source: ScaleSource | None) -> None:
    if source is not None:
        assert read_scale_source(text) == source
        return
    with pytest.raises(UserError, match=f"--scale_from {text}: expected"):
        read_scale_source(text)


# Motion


def test_speed_against_the_motion_of_the_images(tmp_path: Path) -> None:
    """A drive whose frames are a second apart, and a net that is exact but for its unit: no pose nets."""
    sequence = SyntheticSource(5, 1, 5, HEIGHT, WIDTH).sequence(0)
    poses = sequence.T_world_camera.numpy()
    images = [tmp_path / f"{number}.png" for number in range(5)]
    for path, image in zip(images, sequence.images.permute(0, 2, 3, 1).numpy(), strict=True):
        cv2.imwrite(str(path), image[..., ::-1])
    speeds = np.interp(np.arange(5), np.arange(4) + 0.5, steps_of(poses))
    (tmp_path / "speed.txt").write_text("".join(f"{second} {speed}\n" for second, speed in enumerate(speeds)))
    depths = iter(sequence.depth[1:])

    class Exact:
        height, width, min_depth, max_depth = HEIGHT, WIDTH, 0.01, 300.0

        def disparity(self, image: Tensor) -> Tensor:
            depth = next(depths)[None]
            return UNIT / depth.where(depth > 0, 500.0)

    source = ScaleSource("speed", file=tmp_path / "speed.txt")
    cameras = Cameras(PredictionSettings(scale_from=source, camera=Intrinsics(K, (WIDTH, HEIGHT))))
    assert scale_of_images(cameras, Exact(), images).factor == pytest.approx(UNIT, rel=0.03)


def test_frames_that_do_not_fit_tell_no_scale() -> None:
    first, second = (SyntheticSource(seed, 1, 3, HEIGHT, WIDTH).sequence(0) for seed in (1, 2))
    depth = np.where(second.depth[1, 0] > 0, second.depth[1, 0], 200)
    frames = [one.images[1].permute(1, 2, 0).numpy() for one in (first, second)]
    assert "explain" in motion_scale(align(*frames, depth, K), 1.0).refusal
    with pytest.raises(UserError, match=r"The camera moves by 0\.001 m, expected at least 0\.1 m"):
        combine("speed", [motion_scale(Alignment(np.eye(4), 0.5), 0.001)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 10\n0 11\n", "line 2: second 0 follows 0"),
        ("0 10\n1 x\n", "line 2: expected two numbers"),
        ("0 400\n", "400 m/s is no car's speed"),
        ("seconds speed\n", "holds no speed"),
    ],
)
def test_files_that_are_no_speed(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "speed.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_speeds(tmp_path / "speed.txt")


def test_both_forms_of_poses_are_read(tmp_path: Path) -> None:
    pose = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.3, 0.1], [0.3, 0, -0.2], [-0.1, 0.2, 0]])).double().numpy()
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[1, :3, :3], poses[1:, :3, 3] = pose, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    write_tum_poses(tmp_path / "tum.txt", poses, [0.0, 0.1, 0.2])
    write_kitti_poses(tmp_path / "kitti.txt", poses)
    for name in ("tum", "kitti"):
        assert read_poses(tmp_path / f"{name}.txt") == pytest.approx(poses, abs=1e-5)
    (tmp_path / "bad.txt").write_text("# time tx ty tz qx qy qz qw\n0 0 0 0 0 0 0 3\n")
    with pytest.raises(UserError, match="line 2: no pose: a quaternion of length 3"):
        read_poses(tmp_path / "bad.txt")


# Evaluation: metric AbsRel against the median-scaled one


@pytest.fixture(scope="module")
def rendered() -> tuple[EvaluateOptions, EvaluationData]:
    """Twelve rendered frames of four streets; the camera's height is 1.65 m within 5 cm."""
    options = EvaluateOptions(
        weights="tiny-rendered", dataset="synthetic", height=HEIGHT, width=WIDTH, scenes=8, seed=3
    )
    return options, open_data(options)


@pytest.mark.parametrize("source", ["camera_height=1.65", "lidar", "poses", "baseline=2.7"])
def test_metric_errors_are_within_a_tenth_of_median_scaled_ones(
    source: str, scenes: Path, rendered: tuple[EvaluateOptions, EvaluationData]
) -> None:
    """A net that is exact but for an unknown factor and its noise."""
    options, data = rendered
    if source == "lidar":
        options = EvaluateOptions(
            weights="-", data_path=scenes / "kitti", split="synthetic", truth="improved", crop="none"
        )
        data = open_data(options)
    random = np.random.default_rng(0)
    exact = [np.where(depth > 0, depth, 200) for depth in data.truths()]
    predictions = [UNIT / (depth * np.exp(0.05 * random.standard_normal(depth.shape))) for depth in exact]
    estimate = estimate_scale(options, read_scale_source(source), data, predictions)
    assert estimate.factor == pytest.approx(UNIT, rel=0.04)
    assert estimate.used >= 0.6 * estimate.frames
    median = evaluate_depths(predictions, data.truths(), EvaluationProtocol(crop=None)).mean.abs_rel
    scaled = metric_result(options, data, predictions, estimate.factor)
    assert not scaled.ratios
    assert 0.03 < median < 0.05
    assert scaled.mean.abs_rel < 1.1 * median


def test_a_trained_nets_metric_error_is_within_a_tenth_of_the_median_scaled_one(
    rendered: tuple[EvaluateOptions, EvaluationData],
) -> None:
    """The shipped weights on rendered drives of known height, and of known poses."""
    options, data = rendered
    predictions = list(predict(options, data, open_depth_model(options.weights).eval()))
    median = judge(options, data, predictions).mean.abs_rel
    for source in (ScaleSource("camera_height", 1.65), ScaleSource("poses")):
        estimate = estimate_scale(options, source, data, predictions)
        metric = metric_result(options, data, predictions, estimate.factor).mean.abs_rel
        assert metric < 1.1 * median, f"{metric:.3f} and {median:.3f}; {estimate}"


def test_scales_that_an_evaluation_cannot_know(scenes: Path, rendered: tuple[EvaluateOptions, EvaluationData]) -> None:
    with pytest.raises(UserError, match="--scale_from lidar: --dataset synthetic has no scans"):
        estimate_scale(rendered[0], ScaleSource("lidar"), rendered[1], [])
    images = EvaluateOptions(
        weights="-", images=scenes / "a", truth=str(scenes / "b"), scale_from="lidar", eval_stereo=True
    )
    with pytest.raises(UserError, match="--scale_from finds the scale: leave out --eval_stereo"):
        images.check_files("-", "eigen")


# Consistency


def test_exact_depth_moved_with_the_camera_is_the_next_one() -> None:
    source = SyntheticSource(11, 1, 3, HEIGHT, WIDTH)
    sequence = source.sequence(0)
    depths = [np.where(depth > 0, depth, 200) for depth in sequence.depth[:, 0].numpy()]
    motions = motions_of(sequence.T_world_camera.numpy().astype(np.float64))
    moved = move(depths[0], depths[1], motions[0], K)
    assert inconsistency(moved) < 0.02
    assert inconsistency(move(depths[0], 1.2 * depths[1], motions[0], K)) == pytest.approx(0.1, abs=0.03)
    assert colour_flicker(moved, (0.0, 0.2), (0.0, 0.2)) == 0
    assert colour_flicker(moved, (0.0, 0.2), (0.0, 0.25)) > 0.02


# Prediction


def test_one_scale_of_all_images(scenes: Path) -> None:
    """The scans beside the images of KITTI's layout, and nothing beside others."""
    images = sorted((scenes / "kitti").glob("*/*_drive_0004_sync/image_02/data/*.jpg"))

    truths = [path.parents[2] / f"proj_depth/groundtruth/image_02/{path.stem}.png" for path in images]
    depths = iter([read_depth(path) for path in truths])

    class Halved:
        """The exact depth of these images in order, halved."""

        height, width, min_depth, max_depth = 96, 320, 0.01, 300.0

        def disparity(self, image: Tensor) -> Tensor:
            depth = next(depths)
            return torch.from_numpy(2 / np.where(depth > 0, depth, 500))[None, None]

    cameras = Cameras(PredictionSettings(scale_from=ScaleSource("lidar")))
    scale = scale_of_images(cameras, Halved(), images)
    assert scale.factor == cameras.factors[IMAGES] == pytest.approx(2, rel=0.01)
    assert "scale from LiDAR" in str(scale)
    depths = iter([np.ones((96, 320))] * 2)
    with pytest.raises(UserError, match="lies beside no scan: expected KITTI's layout"):
        scale_of_images(cameras, Halved(), sorted((scenes / "tusimple").rglob("*.jpg"))[:2])


def test_what_needs_a_camera_says_so() -> None:
    with pytest.raises(UserError, match="--fov DEGREES"):
        Cameras(PredictionSettings(scale_from=ScaleSource("camera_height", 1.65)))
    with pytest.raises(UserError, match="speed or poses, need the camera"):
        Cameras(PredictionSettings(scale_from=ScaleSource("speed", file=Path("a.csv"))))
    with pytest.raises(UserError, match="pose nets"):
        Cameras(PredictionSettings(trajectory=True))
    with pytest.raises(UserError, match="leave one of them out"):
        PredictionSettings(scale_factor=5.4, scale_from=ScaleSource("lidar"))
    with pytest.raises(UserError, match="--fov is for cameras without --intrinsics"):
        PredictionSettings(fov=60, camera=Intrinsics(K))
    with pytest.raises(UserError, match=r"--fov 200: expected degrees, 5 to 170"):
        PredictionSettings(fov=200)


def test_steps_of_poses() -> None:
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[1:, :3, 3] = [[0, 0, 3], [4, 0, 3]]
    assert steps_of(poses).tolist() == [3, 4]
