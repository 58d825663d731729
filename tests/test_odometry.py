"""Camera motion: errors of snippets against other computations, files of poses, maps, and the commands."""

from __future__ import annotations

import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from hybrid_encoder.cli import main
from hybrid_encoder.config import preset
from hybrid_encoder.data.poses import quaternion, read_kitti_poses, write_kitti_poses, write_tum_poses
from hybrid_encoder.errors import UserError
from hybrid_encoder.evaluation.trajectory import motions_of, poses_of, snippet_errors
from hybrid_encoder.images import read_image
from hybrid_encoder.prediction.cameras import Cameras
from hybrid_encoder.prediction.map_picture import Path2D, draw_map
from hybrid_encoder.prediction.settings import PredictionSettings
from hybrid_encoder.prediction.trajectory import predict_motions
from hybrid_encoder.prediction.trajectory_files import write_trajectory
from hybrid_encoder.stage2.checkpoint import encoder_extras, save_weights
from hybrid_encoder.stage2.model import MonoDepth
from hybrid_encoder.stage2.odometry import evaluate_poses, open_drives
from hybrid_encoder.stage2.options import DepthOptions, EvaluateOptions
from hybrid_encoder.stage2.poses import load_pose_model
from hybrid_encoder.synthetic.camera import kitti_camera
from hybrid_encoder.synthetic.sequence import iterate_frames

from .oracle import download, originals
from .videos import write_video

FRAMES = 9


def drive_poses(frames: int = 30, seed: int = 0) -> np.ndarray:
    """A drive with bends: (N, 4, 4), world from camera."""
    draw = np.random.default_rng(seed)
    motions = np.tile(np.eye(4), (frames - 1, 1, 1))
    for motion, angles in zip(motions, draw.normal(0, 0.02, (frames - 1, 3)), strict=True):
        motion[:3, :3] = cv2.Rodrigues(angles)[0]
        motion[:3, 3] = np.array([0.02, -0.01, -1.0]) + draw.normal(0, 0.05, 3)
    return poses_of(motions)


def perturbed(motions: np.ndarray, seed: int = 1) -> np.ndarray:
    draw = np.random.default_rng(seed)
    other = 0.3 * motions  # another unit of length
    other[:, :3, :3] = [cv2.Rodrigues(draw.normal(0, 0.01, 3))[0] @ motion[:3, :3] for motion in motions]
    other[:, :3, 3] += draw.normal(0, 0.02, (len(motions), 3))
    other[:, 3, 3] = 1
    return other


def error_by_least_squares(truth: np.ndarray, predicted: np.ndarray, frames: int) -> list[float]:
    """The error of snippets from its definition: homogeneous points carried through the chain, numpy's own solver for
    the scale."""
    errors = []
    for start in range(len(truth)):
        chains = []
        for motions in (truth, predicted):
            places = []
            for length in range(min(frames - 1, len(motions) - start) + 1):
                point = np.array([0.0, 0, 0, 1])
                for motion in reversed(motions[start : start + length]):
                    point = motion @ point
                places.append(point[:3])
            chains.append(np.concatenate(places))
        (scale,), *_ = np.linalg.lstsq(chains[1][:, None], chains[0], rcond=None)
        errors.append(float(np.linalg.norm(scale * chains[1] - chains[0]) / (len(chains[0]) // 3)))
    return errors


# Errors of snippets


def test_motions_and_poses_are_inverse() -> None:
    poses = drive_poses()
    assert poses_of(motions_of(poses)) == pytest.approx(poses, abs=1e-9)
    point = np.array([1.0, 2, 10, 1])
    assert motions_of(poses)[3] @ point == pytest.approx(np.linalg.inv(poses[4]) @ poses[3] @ point)


@pytest.mark.parametrize("scale", [0.01, 1.0, 50.0])
def test_exact_motions_of_any_scale_have_no_error(scale: float) -> None:
    truth = motions_of(drive_poses())
    scaled = truth.copy()
    scaled[:, :3, 3] *= scale
    assert snippet_errors(truth, scaled) == pytest.approx(np.zeros(29), abs=1e-9)


@pytest.mark.parametrize("frames", [2, 5, 8])
def test_error_of_a_perturbed_trajectory(frames: int) -> None:
    truth = motions_of(drive_poses())
    other = perturbed(truth)
    errors = snippet_errors(truth, other, frames)
    assert errors == pytest.approx(error_by_least_squares(truth, other, frames), rel=1e-9)
    assert errors.min() > 1e-4


def test_same_error_as_the_original(tmp_path: Path) -> None:
    with originals(download("monodepth2", tmp_path)):
        theirs = importlib.import_module("evaluate_pose")
    truth = motions_of(drive_poses())
    other = perturbed(truth)
    chains = [(theirs.dump_xyz(truth[i : i + 4]), theirs.dump_xyz(other[i : i + 4])) for i in range(len(truth))]
    expected = [theirs.compute_ate(np.array(gt), np.array(guess)) for gt, guess in chains]
    assert snippet_errors(truth, other) == pytest.approx(expected, rel=1e-12)


def test_a_camera_that_is_said_to_stand_still() -> None:
    truth = motions_of(drive_poses(6))
    still = np.tile(np.eye(4), (5, 1, 1))
    assert np.isfinite(snippet_errors(truth, still)).all()
    with pytest.raises(ValueError, match="as many motions"):
        snippet_errors(truth, still[1:])


# Files of poses


def test_kitti_poses_come_back(tmp_path: Path) -> None:
    poses = drive_poses(7)
    write_kitti_poses(tmp_path / "09.txt", poses)
    assert read_kitti_poses(tmp_path / "09.txt") == pytest.approx(poses, abs=1e-8)
    assert np.loadtxt(tmp_path / "09.txt").shape == (7, 12)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0 0 0 0 1 0 0 0 0 1", "line 2: expected 12 numbers"),
        ("1 0 0 0 0 1 0 0 0 0 1 nan", "line 2: expected 12 numbers"),
        ("2 0 0 0 0 1 0 0 0 0 1 0", "line 2: its left part is no rotation"),
        ("1 0 0 1e9 0 1 0 0 0 0 1 0", "is on no drive"),
    ],
)
def test_damaged_poses_are_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "09.txt"
    file.write_text(f"1 0 0 0 0 1 0 0 0 0 1 0\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_kitti_poses(file)
    file.write_text("\n")
    with pytest.raises(UserError, match="holds no pose"):
        read_kitti_poses(file)


def test_tum_poses_hold_time_place_and_quaternion(tmp_path: Path) -> None:
    poses = drive_poses(5)
    write_tum_poses(tmp_path / "tum.txt", poses, [0, 0.1, 0.2, 0.3, 0.4])
    rows = np.loadtxt(tmp_path / "tum.txt")
    assert rows[:, 0] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert rows[:, 1:4] == pytest.approx(poses[:, :3, 3], abs=1e-8)
    for row, pose in zip(rows, poses, strict=True):
        assert rotation_of(row[4:]) == pytest.approx(pose[:3, :3], abs=1e-7)


def rotation_of(q: np.ndarray) -> np.ndarray:
    """The rotation of a quaternion x, y, z, w: of the points that q p q* gives."""
    vector, w = q[:3], q[3]
    cross = np.array([[0, -vector[2], vector[1]], [vector[2], 0, -vector[0]], [-vector[1], vector[0], 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def test_quaternions_of_half_turns() -> None:
    for axis in np.eye(3):
        rotation = cv2.Rodrigues(np.pi * axis)[0]
        assert rotation_of(quaternion(rotation)) == pytest.approx(rotation, abs=1e-7)


# Predicted motions


class ExactPoses:
    """Knows the motion from the first grey value of each frame, which is its number."""

    height, width, resize = 32, 64, "area"

    def __init__(self, poses: np.ndarray) -> None:
        self.poses = torch.from_numpy(poses)
        self.batches: list[int] = []

    def motions(self, earlier: Tensor, later: Tensor) -> Tensor:
        self.batches.append(len(earlier))
        first, second = ((255 * images[:, 0, 0, 0]).round().long() for images in (earlier, later))
        return torch.linalg.inv(self.poses[second]) @ self.poses[first]


def numbered(count: int) -> list[np.ndarray]:
    return [np.full((32, 64, 3), number, np.uint8) for number in range(count)]


def test_motions_between_batches_are_not_lost() -> None:
    poses = drive_poses(10)
    model = ExactPoses(poses)
    assert predict_motions(model, numbered(10), 4) == pytest.approx(motions_of(poses), abs=1e-9)
    assert model.batches == [4, 4, 1]
    with pytest.raises(UserError, match="at least two frames, found 1"):
        predict_motions(model, numbered(1), 4)


def write_odometry(root: Path, frames: int = FRAMES) -> np.ndarray:
    """A rendered drive in the layout of KITTI odometry, sequence 9; its poses."""
    views = list(iterate_frames(3, frames, kitti_camera(64, 192)))
    (root / "poses").mkdir(parents=True)
    folder = root / "sequences" / "09" / "image_2"
    folder.mkdir(parents=True)
    for number, view in enumerate(views):
        cv2.imwrite(str(folder / f"{number:06d}.png"), view.image.permute(1, 2, 0).numpy()[..., ::-1])
    world = np.stack([view.T_world_camera.numpy() for view in views]).astype(np.float64)
    poses = np.linalg.inv(world[0]) @ world
    write_kitti_poses(root / "poses" / "09.txt", poses)
    return poses


class ByOrder:
    """Gives known motions in order, whatever it sees."""

    height, width, resize = 64, 192, "area"

    def __init__(self, motions: np.ndarray) -> None:
        self.left = list(torch.from_numpy(motions))

    def motions(self, earlier: Tensor, later: Tensor) -> Tensor:
        return torch.stack([self.left.pop(0) for _ in earlier])


def test_a_rendered_drive_in_kittis_layout(tmp_path: Path) -> None:
    poses = write_odometry(tmp_path / "odometry")
    options = EvaluateOptions(
        weights="-", dataset="kitti_odom", data_path=tmp_path / "odometry", split="odom_9", png=True, pose=True,
        eval_out_dir=tmp_path / "out", vis_dir=tmp_path / "maps",
    )  # fmt: skip
    exact = evaluate_poses(options, ByOrder(motions_of(poses)))
    assert np.mean(exact.errors) == pytest.approx(0, abs=1e-6)
    assert (len(exact.errors), exact.frames) == (FRAMES - 1, FRAMES)
    other = perturbed(motions_of(poses))
    result = evaluate_poses(options, ByOrder(other))
    assert result.errors == pytest.approx(error_by_least_squares(motions_of(poses), other, 5), rel=1e-6)
    assert f"{np.mean(result.errors):.4f} m" in str(result)
    assert np.load(tmp_path / "out" / "poses.npy") == pytest.approx(other)
    assert read_image(tmp_path / "maps" / "odom_9.png").shape == (900, 900, 3)


def test_rendered_scenes_know_their_poses() -> None:
    options = EvaluateOptions(weights="-", dataset="synthetic", part="train", scenes=1, height=64, width=96, pose=True)
    drives = open_drives(options)
    assert len(drives) == 1
    motions = [motions_of(drive.poses) for drive in drives]
    assert all(0.4 < np.linalg.norm(motion[:3, 3]) < 1.3 for some in motions for motion in some)
    model = ByOrder(np.concatenate(motions))
    assert np.mean(evaluate_poses(options, model).errors) == pytest.approx(0, abs=1e-5)
    assert all(frame.shape == (64, 96, 3) for frame in drives[0].frames(0.0))


@pytest.mark.parametrize(("dataset", "split"), [("kitti", "odom_9"), ("kitti_odom", "eigen")])
def test_pose_needs_known_poses(tmp_path: Path, dataset: str, split: str) -> None:
    options = EvaluateOptions(weights="-", dataset=dataset, data_path=tmp_path, split=split)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--split odom_9"):
        open_drives(options)


def test_a_map_shows_where_the_camera_went() -> None:
    poses = np.tile(np.eye(4), (11, 1, 1))
    poses[:, 2, 3] = np.arange(11)  # ahead
    picture = draw_map([Path2D.of("predicted", poses)])
    red = np.argwhere((picture == (178, 24, 43)).all(2))
    below_legend = red[red[:, 0] > 60]
    assert np.ptp(below_legend[:, 1]) < 20, "straight up"
    assert np.ptp(below_legend[:, 0]) > 700
    assert draw_map([Path2D.of("stands still", poses[:1])]).shape == (900, 900, 3)


def test_the_path_of_a_video_has_its_times_and_scale(tmp_path: Path) -> None:
    poses = drive_poses(6)
    video = write_video(tmp_path / "drive.avi", frames=6, fps=10)
    settings = PredictionSettings(scale_factor=2.0, progress=False, batch_size=2)

    def write(video: Path) -> list[Path]:
        cameras = Cameras(settings, ByOrder(motions_of(poses)))
        return write_trajectory(cameras, tmp_path / "out" / "drive_trajectory", (), video)

    written = write(video)
    assert [path.name for path in written] == [f"drive_trajectory{end}" for end in ("_tum.txt", "_kitti.txt", ".png")]
    rows = np.loadtxt(written[0])
    assert rows[:, 0] == pytest.approx(np.arange(6) / 10, abs=1e-3)
    assert rows[:, 1:4] == pytest.approx(2 * poses[:, :3, 3], abs=1e-6)
    assert read_kitti_poses(written[1])[:, :3, 3] == pytest.approx(2 * poses[:, :3, 3], abs=1e-6)
    still = write_video(tmp_path / "still.avi", frames=1)
    with pytest.raises(UserError, match=r"still\.avi: a trajectory needs at least two frames"):
        write(still)


# The commands


def write_weights(folder: Path, kind: str) -> MonoDepth:
    """Single-frame nets with random weights, as a trainer saves them."""
    encoder = "hybrid" if kind == "class_token" else "resnet"
    options = DepthOptions(encoder=encoder, pose_model_type=kind)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = MonoDepth(options, preset("tiny").without_downloads(), "random").eval()
    optimizer = torch.optim.SGD(model.parameters())
    save_weights(folder, model.files(), optimizer, encoder_extras(model.nets, 64, 192))
    return model


@pytest.mark.parametrize("kind", ["separate_resnet", "shared", "class_token"])
def test_pose_nets_of_a_folder_are_those_that_were_saved(tmp_path: Path, kind: str) -> None:
    model = write_weights(tmp_path, kind)
    images = torch.rand(2, 3, 64, 192)
    loaded = load_pose_model(tmp_path)
    assert (loaded.height, loaded.width) == (64, 192)
    assert model.poses is not None
    with torch.no_grad():
        expected = model.poses(model.encoder, {0: images[:1], 1: images[1:]})[1]
    assert torch.equal(loaded.motions(images[:1], images[1:]), expected)
    assert not torch.equal(expected, torch.eye(4)[None])


def test_commands_evaluate_and_draw_trajectories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_weights(tmp_path / "weights", "separate_resnet")
    write_odometry(tmp_path / "odometry")
    weights = ["--weights", str(tmp_path / "weights"), "--device", "cpu"]
    odometry = ["--dataset", "kitti_odom", "--data_path", str(tmp_path / "odometry"), "--split", "odom_9", "--png"]
    assert main(["evaluate", "--pose", *weights, *odometry]) == 0
    assert f"8 snippets of {FRAMES} frames" in capsys.readouterr().out
    images, out = str(tmp_path / "odometry" / "sequences" / "09" / "image_2"), tmp_path / "out"
    assert main(["predict", images, *weights, "--out", str(out), "--trajectory"]) == 0
    poses = read_kitti_poses(out / "trajectory_kitti.txt")
    assert len(poses) == FRAMES
    assert np.loadtxt(out / "trajectory_tum.txt")[:, 1:4] == pytest.approx(poses[:, :3, 3], abs=1e-6)
    assert read_image(out / "trajectory.png").shape == (900, 900, 3)
    assert (out / "000008_depth.png").is_file()


def test_weights_without_pose_nets_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}")
    odometry = ["--dataset", "synthetic", "--scenes", "1"]
    assert main(["evaluate", "--pose", "--weights", str(tmp_path), *odometry]) == 2
    assert "holds no pose nets" in capsys.readouterr().err
