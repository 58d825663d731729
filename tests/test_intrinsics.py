"""The focal length that is learnt: from a drive of known focal length, as motions in pixels, in a run and its files."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hybrid_encoder.colormap import write_picture
from hybrid_encoder.data.calibration import read_intrinsics
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.engine.record import read_metrics
from hybrid_encoder.engine.state import load_state
from hybrid_encoder.errors import UserError
from hybrid_encoder.stage2.camera import LearntCamera, bend, doubt, recounted, with_focal_factor
from hybrid_encoder.stage2.checkpoint import load_weights, save_weights
from hybrid_encoder.stage2.geometry import axis_angle_to_rotation, pose_matrix, project
from hybrid_encoder.stage2.losses import minimum_reprojection
from hybrid_encoder.stage2.model import DepthBatch, MonoDepth
from hybrid_encoder.stage2.objective import ObjectiveOptions, View
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.stage2.training import train
from hybrid_encoder.synthetic.camera import kitti_camera
from hybrid_encoder.synthetic.render import render_view
from hybrid_encoder.synthetic.street import draw_scene

HEIGHT, WIDTH, FRAMES = 64, 192, 8
HERE = Processes(torch.device("cpu"))


@dataclasses.dataclass(frozen=True)
class Drive:
    """A rendered drive: frames with exact depth, and the motion from a frame to the next."""

    images: Tensor
    depth: Tensor
    K: Tensor
    to_next: Tensor


def render_drive(yaw: float) -> Drive:
    """A street through which a camera drives that turns left and right by as many radians a frame."""
    camera, scene = kitti_camera(HEIGHT, WIDTH), draw_scene(3, FRAMES, 0.0, False)
    turned = torch.eye(4, dtype=torch.float64).repeat(FRAMES, 1, 1)
    headings = yaw * torch.tensor([0, 1, 2, 1, 0, -1, -2, -1.0])
    turned[:, :3, :3] = axis_angle_to_rotation(torch.stack([0 * headings, headings, 0 * headings], 1).double())
    poses = scene.poses @ turned
    noise = torch.zeros(3, HEIGHT, WIDTH)
    views = [render_view(scene, frame, camera, pose, noise) for frame, pose in enumerate(poses)]
    depth = torch.stack([view[1] for view in views])[:, None]
    return Drive(
        torch.stack([view[0] for view in views]).float() / 255,
        torch.where(depth > 0, depth, 200.0),
        camera.K.float(),
        (torch.linalg.inv(poses[1:]) @ poses[:-1]).float(),
    )


@pytest.fixture(scope="module")
def turning() -> Drive:
    return render_drive(0.025)


def learn(drive: Drive, start: float, steps: int) -> float:
    """The focal length that the photometric loss leads to, as a share of the true one, from a wrong one on; depth and
    what the camera has shifted in pixels are known."""
    K, one = drive.K.expand(FRAMES - 1, 3, 3), torch.tensor(start)
    view = View.of({0: drive.images[:-1], 1: drive.images[1:]}, with_focal_factor(K, one), ObjectiveOptions())
    camera, poses = LearntCamera(), recounted(drive.to_next, one)
    optimizer = torch.optim.Adam(camera.parameters(), lr=0.05)
    for _ in range(steps):
        now = dataclasses.replace(view, K=camera(view.K))
        losses = now.reprojections(drive.depth[:-1], {1: recounted(poses, camera.factor)})
        optimizer.zero_grad()
        minimum_reprojection(losses, view.identities).loss.backward()
        optimizer.step()
    return start * camera.factor.item()


@pytest.mark.parametrize("start", [0.7, 1.3])
def test_a_focal_length_30_percent_wrong_moves_to_the_true_one(start: float, turning: Drive) -> None:
    assert abs(learn(turning, start, 25) - 1) < 0.1


def test_shifts_stay_while_the_focal_length_moves_and_edges_bend() -> None:
    """Yaw by 0.02 with f = 100 shifts the centre by 2 pixels, and the edge, 100 from it, by 2 (1 + 1) of them."""
    K = torch.tensor([[[100.0, 0, 100], [0, 100, 50], [0, 0, 1]]])
    pose = pose_matrix(torch.tensor([[0.0, 0.02, 0]]), torch.zeros(1, 3))
    far = torch.full((1, 1, 101, 201), 1e6)

    def moved(K: Tensor, pose: Tensor) -> tuple[float, float]:
        x = 100 * (project(far, K, pose)[0, 50, :, 0] + 1) - torch.arange(201.0)
        return x[100].item(), x[200].item()

    assert bend(K, {1: pose}, (100, 200)).item() == pytest.approx(2.0, rel=1e-3)
    assert moved(K, pose) == pytest.approx((2.0, 4.0), rel=0.03)
    twice = torch.tensor(2.0)
    assert moved(with_focal_factor(K, twice), recounted(pose, twice)) == pytest.approx((2.0, 2.5), rel=0.03)


def test_straight_on_no_focal_length_is_better_than_another(turning: Drive) -> None:
    straight = pose_matrix(torch.zeros(1, 3), torch.tensor([[0.1, 0.0, -0.8]]))
    K, factor = turning.K[None], torch.tensor(1.3)
    grids = [
        project(turning.depth[:1], focal, pose)
        for focal, pose in ((K, straight), (with_focal_factor(K, factor), recounted(straight, factor)))
    ]
    torch.testing.assert_close(*grids, rtol=0, atol=1e-4)


SMALL: dict[str, Any] = {
    "dataset": "video", "preset": "tiny", "weights_init": "scratch", "height": 32, "width": 32, "num_workers": 0,
    "batch_size": 2, "device": "cpu", "pose_model_type": "posecnn", "learn_intrinsics": True,
    "encoder_option": ("fusion_channels=16", "decoder_channels=8"),
}  # fmt: skip


def test_saved_poses_are_in_radians_and_the_unit_of_depth(tmp_path: Path) -> None:
    """A net without the options, as every reader of weights builds it, finds the same poses."""
    options = Monodepth2Options(**SMALL)
    learnt = MonoDepth(options, options.config(), "random", prevent_collapse=True, learn_intrinsics=True).eval()
    plain = MonoDepth(options, options.config(), "random").eval()
    images: Any = {i: torch.rand(2, 3, 32, 32) for i in (0, -1, 1)}
    batch = DepthBatch(images, images, torch.eye(3).repeat(2, 1, 1), torch.eye(4).repeat(2, 1, 1), ["a", "b"])
    assert learnt.camera is not None
    assert learnt.unit is not None
    assert learnt.poses is not None
    with torch.no_grad():
        learnt.poses.pose.last.weight.normal_()
        learnt.camera.log_factor.fill_(math.log(2))
        learnt.unit.mean_depth.fill_(0.2)
        save_weights(tmp_path, learnt.files_to_save(), torch.optim.SGD(learnt.parameters(), 0.1), {})
        load_weights(tmp_path, plain.files())
        found, same = learnt.predict(batch).poses, plain.predict(batch).poses
    for frame_id in (-1, 1):
        torch.testing.assert_close(found[frame_id], same[frame_id])


def test_a_run_keeps_what_it_has_learnt(turning: Drive, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number, image in enumerate(turning.images):
        write_picture(tmp_path / "frames" / f"{number}.png", (255 * image).byte().permute(1, 2, 0).numpy())
    options = Monodepth2Options(
        **SMALL, data_path=tmp_path / "frames", intrinsics="100,100,96,32", learning_rate=0.01, num_epochs=2,
        log_dir=tmp_path, model_name="whole", save_frequency=9,
    )  # fmt: skip
    metrics = train(options, HERE)
    told = capsys.readouterr().out
    share = metrics["focal_length"]
    assert share != pytest.approx(100 / WIDTH, rel=0.01)
    assert f"focal length learnt: {share:.3f} of the width" in told
    assert "the focal length is refused: " in told
    learnt = read_intrinsics(options.folder / "models/weights_1/intrinsics.json").for_image(WIDTH, HEIGHT)
    np.testing.assert_allclose(learnt.K[[0, 1, 0, 1], [0, 1, 2, 2]], [share * WIDTH, share * WIDTH, 96, 32], rtol=1e-5)
    values = [line["focal_length"] for line in read_metrics(options.folder) if line["kind"] == "val"]
    assert values[0] == values[1] == pytest.approx(100 / WIDTH), "held until there is motion to learn from"
    state = load_state(options.folder)
    assert state is not None
    assert state["model"]["camera.log_factor"].exp().item() * 100 / WIDTH == pytest.approx(share), (
        "a resumed run has it"
    )
    assert state["optimizer"]["param_groups"][-1]["weight_decay"] == 0


def test_doubt_names_the_first_reason() -> None:
    seen = {"focal_length": 0.8, "bend": 0.4, "focal_evidence": 0.01}
    assert "the camera hardly turns" in doubt([{**seen, "bend": 0.01, "focal_evidence": 0.0}])
    assert "fit almost as well" in doubt([{**seen, "focal_evidence": 0.0001}])


@pytest.mark.parametrize(
    ("changes", "found"), [({"dataset": "kitti"}, "cameras of kitti are known"), ({"frame_ids": (0,)}, "--frame_ids")]
)
def test_options_without_a_camera_to_learn_are_refused(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(UserError, match=found):
        Monodepth2Options(**{**SMALL, "use_stereo": "frame_ids" in changes, **changes}).check()
