"""The parts of the two-frame trainer: its loss against the original's, poses, augmentation, masks, options."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybrid_encoder.errors import UserError
from hybrid_encoder.model.disparity import disp_to_depth
from hybrid_encoder.stage2.geometry import pose_matrix
from hybrid_encoder.stage2.model import DepthBatch
from hybrid_encoder.stage2.objective import ObjectiveOptions, View
from hybrid_encoder.stage2.prevent_collapse import FIRST_MOTION, HELD_WEIGHT, drift
from hybrid_encoder.two_frame.checkpoint import load_weights, save_weights
from hybrid_encoder.two_frame.frames import LookupSource
from hybrid_encoder.two_frame.lookup import MISSING_SHARE, STATIC_SHARE, augment_matching, matching_poses
from hybrid_encoder.two_frame.model import TwoFrameDepth
from hybrid_encoder.two_frame.objective import matching_agrees, two_frame_loss
from hybrid_encoder.two_frame.options import ManydepthOptions
from hybrid_encoder.two_frame.training import ManydepthTask, build_optimizer

from .oracle import Original, download

B, H, W = 2, 64, 96
SETTINGS: dict[str, Any] = {
    "encoder": "hybrid",
    "teacher_encoder": "hybrid",
    "preset": "tiny",
    "weights_init": "scratch",
    "height": H,
    "width": W,
    "num_depth_bins": 8,
    "dataset": "synthetic",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return Original("manydepth", download("manydepth", tmp_path_factory.mktemp("manydepth")))


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def rand(*size: int) -> Tensor:
    return torch.rand(*size)


def batch(ids: tuple[int, ...] = (0, -1, 1)) -> DepthBatch:
    """A textured scene that moves sideways."""
    K = torch.tensor([[0.58 * W, 0, 0.5 * W], [0, 1.92 * H, 0.5 * H], [0, 0, 1]]).repeat(B, 1, 1)
    wide = nn.functional.interpolate(rand(B, 3, H // 4, W // 4), (H, W + 16), mode="bilinear")
    frames: dict[Any, Tensor] = {i: wide[..., 8 + 2 * i : 8 + 2 * i + W] for i in ids}
    return DepthBatch(frames, dict(frames), K, torch.eye(4).repeat(B, 1, 1), ["sample"] * B)


@pytest.mark.parametrize(
    "changes",
    [{}, {"disable_automasking": True}, {"avg_reprojection": True}, {"no_ssim": True}],
    ids=["default", "no automasking", "average", "no ssim"],
)
def test_loss_equals_the_original(
    original: Original, changes: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch, "randn", lambda *size, **_: torch.zeros(*size))
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    data = batch()
    disparities = {("disp", s): rand(B, 1, H // 2**s, W // 2**s) for s in range(4)}
    poses = {i: pose_matrix(0.01 * rand(B, 3), 0.1 * rand(B, 3)) for i in (-1, 1)}
    teacher = {scale: 1 + 20 * rand(B, 1, H, W) for scale in range(4)}
    trusted = rand(B, 1, H, W) > 0.3
    options = ObjectiveOptions(**changes)
    view = View.of(data.frames, data.K, options)
    found = two_frame_loss(disparities, view, cast("dict[Any, Tensor]", poses), teacher, trusted, options)
    expected = _original_loss(original, changes, data, disparities, poses, teacher, trusted)
    torch.testing.assert_close(found.loss, expected["loss"], rtol=1e-6, atol=0)


def _original_loss(
    original: Original,
    changes: dict[str, bool],
    data: DepthBatch,
    disparities: dict[tuple[str, int], Tensor],
    poses: dict[int, Tensor],
    teacher: dict[int, Tensor],
    trusted: Tensor,
) -> dict[str, Tensor]:
    flags = ("v1_multiscale", "no_ssim", "disable_automasking", "avg_reprojection", "disable_motion_masking")
    settings = {
        "frame_ids": [0, -1, 1],
        "scales": [0, 1, 2, 3],
        "height": H,
        "width": W,
        "min_depth": 0.1,
        "max_depth": 100.0,
        "disparity_smoothness": 1e-3,
        "no_matching_augmentation": False,
        **dict.fromkeys(flags, False),
        **changes,
    }
    kind = original.trainer.Trainer
    trainer = SimpleNamespace(
        opt=SimpleNamespace(**settings),
        device=torch.device("cpu"),
        num_scales=4,
        ssim=original.layers.SSIM(),
        backproject_depth={0: original.layers.BackprojectDepth(B, H, W).double()},
        project_3d={0: original.layers.Project3D(B, H, W)},
        compute_loss_masks=kind.compute_loss_masks,
    )
    trainer.compute_reprojection_loss = lambda *images: kind.compute_reprojection_loss(trainer, *images)
    full = torch.eye(4).repeat(B, 1, 1)
    full[:, :3, :3] = data.K
    inputs: dict[Any, Tensor] = {("K", 0): full, ("inv_K", 0): torch.linalg.inv(full)}
    for frame_id, image in data.frames.items():
        for scale in range(4):
            inputs["color", frame_id, scale] = nn.functional.avg_pool2d(image, 2**scale)
    outputs: dict[Any, Any] = dict(disparities)
    outputs.update({("cam_T_cam", 0, i): pose for i, pose in poses.items()})
    outputs.update({("mono_depth", 0, s): depth for s, depth in teacher.items()})
    outputs["consistency_mask"] = trusted[:, 0].double()
    outputs["augmentation_mask"] = torch.zeros(B, 1, 1, 1)
    kind.generate_images_pred(trainer, inputs, outputs, is_multi=True)
    losses: dict[str, Tensor] = kind.compute_losses(trainer, inputs, outputs, is_multi=True)
    return losses


def test_matching_mask_equals_the_original(original: Original) -> None:
    teacher, lowest_cost = 1 + 20 * rand(B, 1, H, W), 1 / (1 + 20 * rand(B, H // 4, W // 4))
    large = nn.functional.interpolate(lowest_cost[:, None], (H, W), mode="nearest")[:, 0]
    expected = original.trainer.Trainer.compute_matching_mask(
        SimpleNamespace(device="cpu"), {("mono_depth", 0, 0): teacher, "lowest_cost": large}
    )
    found = matching_agrees(lowest_cost, teacher)
    assert torch.equal(found[:, 0], expected.view(B, H, W).bool())
    assert 0.1 < found.float().mean() < 0.9


class Steps(nn.Module):
    """Pose nets that know each frame's place by its brightness: (0.5 + 0.01 x place)."""

    def forward(self, encoder: nn.Module, frames: dict[int, Tensor], unit: Tensor | None = None) -> dict[int, Tensor]:
        (other,) = (i for i in frames if i != 0)
        places = {i: (image.mean((1, 2, 3)) - 0.5) * 100 for i, image in frames.items()}
        assert abs(abs(float(places[other][0] - places[0][0])) - 1) < 1e-3, "neighbours only"
        turn = torch.zeros(B, 3)
        turn[:, 1] = 0.1 * (places[other] - places[0])
        return {other: pose_matrix(turn, turn.flip(1))}


def test_poses_are_composed_of_steps() -> None:
    frames = {i: torch.full((B, 3, 4, 4), 0.5 + 0.01 * i) for i in (0, 1, -1, -2, -3)}
    frames[-3][1] = 0  # this sample has no such frame
    poses = matching_poses(cast(Any, Steps()), nn.Identity(), frames, {})
    back = pose_matrix(torch.tensor([[0, -0.1, 0]]), torch.tensor([[0, -0.1, 0]]))[0]
    torch.testing.assert_close(poses[-1][0], back)
    torch.testing.assert_close(poses[-2][0], back @ back)
    torch.testing.assert_close(poses[-3][0], back @ back @ back)
    assert not poses[-3][1].any()
    assert poses[-2][1].any()
    known = 2 * torch.eye(4).repeat(B, 1, 1)
    assert torch.equal(matching_poses(cast(Any, Steps()), nn.Identity(), frames, {-1: known})[-1], known)


def test_augmentation_draws_its_shares() -> None:
    count = 2000
    current, lookup = rand(count, 3, 1, 1), rand(count, 2, 3, 1, 1)
    poses = torch.eye(4).repeat(count, 2, 1, 1)
    seen, relative, changed = augment_matching(current, lookup, poses)
    static = (seen == current[:, None]).flatten(1).all(1)
    missing = (relative == 0).flatten(1).all(1)
    assert abs(static.float().mean() - STATIC_SHARE) < 0.04
    assert abs(missing.float().mean() - MISSING_SHARE) < 0.04
    assert torch.equal(changed, static ^ missing)
    assert torch.equal(seen[~changed], lookup[~changed])
    assert torch.equal(relative[~missing], poses[~missing])


@pytest.mark.parametrize("encoders", [("resnet", "resnet"), ("hybrid", "resnet"), ("resnet", "hybrid")])
@pytest.mark.parametrize("freeze", [False, True])
def test_step_trains_what_it_should(encoders: tuple[str, str], freeze: bool) -> None:
    settings = {**SETTINGS, "encoder": encoders[0], "teacher_encoder": encoders[1]}
    options = ManydepthOptions(**settings)
    options.check()
    model = TwoFrameDepth(options, options.config(), "random")
    optimizer = build_optimizer(model, options)
    data = batch()
    model.train()
    model(data)["loss"].backward()
    optimizer.step()
    optimizer.zero_grad()
    if freeze:
        model.freeze_teacher()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        scalars = model(data)
        scalars["loss"].backward()
        optimizer.step()
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert not {name for name in moved if name.startswith(("teacher.", "bins."))}, "statistics included"
        assert any(name.startswith("net.encoder.") for name in moved)
        assert any(name.startswith("net.depth.") for name in moved)
        model.train()
        assert not any(module.training for module in model.teacher.modules())
        return
    scalars = model.eval()(data)
    assert {"loss", "photometric", "consistency", "smoothness", "teacher_loss"} <= set(scalars)
    assert all(torch.isfinite(value) for value in scalars.values())
    assert model.bins.near != 0.1


@pytest.mark.parametrize(
    ("options", "first"),
    [({"freeze_teacher_step": 5}, (1, 5)), ({"freeze_teacher_epoch": 1}, (1, 3)), ({"freeze_teacher_step": 0}, (0, 0))],
)
def test_teacher_freezes_at_its_epoch_or_step(options: dict[str, int], first: tuple[int, int]) -> None:
    model = TwoFrameDepth(ManydepthOptions(**SETTINGS), ManydepthOptions(**SETTINGS).config(), "random")
    task = cast(ManydepthTask, SimpleNamespace(options=ManydepthOptions(**SETTINGS, **options), model=model))
    for epoch, step in ((0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)):
        ManydepthTask.start_step(task, epoch, step)
        if model.frozen:
            break
    assert (epoch, step) == first


def test_bins_take_the_range_of_a_teacher_that_never_trains() -> None:
    options = ManydepthOptions(**SETTINGS, freeze_teacher_and_pose=True)
    model = TwoFrameDepth(options, options.config(), "random")
    model.freeze_teacher()
    ManydepthTask.start_step(cast(ManydepthTask, SimpleNamespace(options=options, model=model)), 0, 0)
    data = batch()
    _, inverse = model.train().inverse_depths(data)
    model(data)
    near, far = ((1 / inverse).flatten(1).aminmax(dim=1)[i].mean() for i in (0, 1))
    assert model.bins.near.item() == pytest.approx(0.9 * near.item(), rel=1e-5)
    assert model.bins.far.item() == pytest.approx(1.1 * far.item(), rel=1e-5)


@pytest.mark.parametrize("pose_model_type", ["separate_resnet", "shared", "class_token"])
@pytest.mark.parametrize("future", [False, True])
def test_more_frames_and_other_poses(pose_model_type: Any, future: bool) -> None:
    options = ManydepthOptions(
        **SETTINGS, pose_model_type=pose_model_type, num_matching_frames=2, use_future_frame=future, text_weight=0.1
    )
    options.check()
    assert options.loaded_ids == (0, -1, 1, -2)
    assert options.matching_ids == ((1, -1, -2) if future else (-1, -2))
    model = TwoFrameDepth(options, options.config(), "random")
    data = batch(cast(Any, options.loaded_ids))
    data.augmented[-2][0] = 0
    scalars = model.train()(data)
    scalars["loss"].backward()
    assert torch.isfinite(scalars["loss"])
    assert "text" in scalars


@pytest.mark.parametrize("case", ["static camera", "first frame", "zero motion"])
def test_degenerate_batches_are_finite(case: str) -> None:
    options = ManydepthOptions(**SETTINGS)
    model = TwoFrameDepth(options, options.config(), "random").train()
    data = batch()
    if case == "static camera":
        data.frames = data.augmented = dict.fromkeys(data.frames, data.frames[0])
    elif case == "first frame":
        data.augmented[-1] = torch.zeros_like(data.augmented[0])
    else:
        assert model.teacher.poses is not None
        for parameter in model.teacher.poses.pose.parameters():
            nn.init.zeros_(parameter)
    scalars = model(data)
    scalars["loss"].backward()
    assert all(torch.isfinite(value) for value in scalars.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_consistency_follows_the_teacher_where_matching_is_not_trusted() -> None:
    data = batch()
    options = ObjectiveOptions()
    view = View.of(data.frames, data.K, options)
    disp = rand(B, 1, H, W).requires_grad_()
    _, depth = disp_to_depth(disp, 0.1, 100.0)
    still: dict[Any, Tensor] = {i: torch.eye(4).repeat(B, 1, 1) for i in (-1, 1)}
    nowhere = torch.zeros(B, 1, H, W, dtype=torch.bool)
    found = two_frame_loss({("disp", 0): disp}, view, still, {0: depth.detach()}, nowhere, options)
    assert found.photometric == 0
    assert found.consistency == 0
    found.loss.backward()
    assert torch.isfinite(cast(Tensor, disp.grad)).all()


def test_frames_before_a_drive_are_black(tmp_path: Path) -> None:
    class Frames:
        entries = (SimpleNamespace(frame=0), SimpleNamespace(frame=5))

        def path(self, entry: Any, frame_id: int) -> Path:
            return tmp_path / f"{entry.frame + frame_id}.jpg"

        def read(self, index: int, frame_id: int) -> np.ndarray:
            assert self.path(self.entries[index], frame_id).is_file()
            return np.full((4, 6, 3), 9, np.uint8)

    for number in (0, 4, 5):
        (tmp_path / f"{number}.jpg").touch()
    source = LookupSource(cast(Any, Frames()), (-1, -2))
    assert source.read(0, 0).any()
    assert not source.read(0, -1).any()
    assert source.read(1, -1).any()
    assert not source.read(1, -2).any()
    assert source.read(1, -2).shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 200}, "multiple of 32"),
        ({"frame_ids": (0,), "use_stereo": True}, "pose nets"),
        ({"num_matching_frames": 0}, "at least 1"),
        ({"num_depth_bins": 1}, "at least 2"),
        ({"teacher_encoder": "resnet", "pose_model_type": "class_token"}, "--teacher_encoder hybrid"),
        ({"encoder": "resnet", "teacher_encoder": "resnet", "stage1": Path("x")}, "--stage1"),
        ({"encoder": "resnet", "decoder": "dpt"}, "--decoder dpt"),
        ({"teacher_encoder": "resnet", "teacher_decoder": "dpt"}, "--decoder dpt"),
        ({"matching_memory": 0}, "at least 1"),
        ({"start_from_teacher": True}, "--mono_weights_folder"),
        ({"start_from_teacher": True, "mono_weights_folder": Path("x"), "teacher_encoder": "resnet"}, "two-frame net"),
    ],
)
def test_contradictions_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ManydepthOptions(**{**SETTINGS, **changes}).check()


# --prevent_collapse


def test_prevent_collapse_holds_the_teacher_and_counts_its_motion_in_mean_depths(tmp_path: Path) -> None:
    options = ManydepthOptions(**SETTINGS, pose_model_type="class_token", num_matching_frames=2, prevent_collapse=True)
    model = TwoFrameDepth(options, options.config(), "random").train()
    data = batch(cast(Any, options.loaded_ids))
    scalars = model(data)
    scalars["loss"].backward()
    unit = model.teacher.unit
    assert unit is not None
    assert int(unit.batches) == 1
    with torch.no_grad():
        _, mono = model.eval().teacher.see(data.augmented[0])
        scalars = model(data)
        assert float(scalars["drift"]) == pytest.approx(float(drift(mono.values())))
        poses = model.lookup(data, {})[1]
        moved = poses[:, :, :3, 3].norm(dim=-1) / unit.mean_depth  # to the frames before, one and two steps away
        torch.testing.assert_close(moved, torch.tensor([[1.0, 2.0]] * B) * FIRST_MOTION)
        without = scalars["teacher_loss"] - HELD_WEIGHT * scalars["drift"]
        assert 0 < without < scalars["teacher_loss"]
        # What is saved is in the unit of depth: a model without the option finds the same motion.
        save_weights(tmp_path / "weights", model, torch.optim.SGD(model.parameters(), 0.1))
        plain_options = ManydepthOptions(**SETTINGS, pose_model_type="class_token", num_matching_frames=2)
        plain = TwoFrameDepth(plain_options, plain_options.config(), "random").eval()
        load_weights(tmp_path / "weights", plain)
        torch.testing.assert_close(plain.lookup(data, {})[1], poses)


@pytest.mark.parametrize("name", ["load_weights_folder", "mono_weights_folder"])
def test_prevent_collapse_is_for_teachers_from_random_numbers(name: str, tmp_path: Path) -> None:
    (tmp_path / "pose.pth").touch()
    with pytest.raises(UserError, match=f"--prevent_collapse.*--{name}"):
        ManydepthOptions(**SETTINGS, prevent_collapse=True, **{name: tmp_path}).check()
