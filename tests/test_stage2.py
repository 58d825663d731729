"""Stage 2's pure functions: geometry that is right to the pixel, losses with known values."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.contract import EncoderFeatures
from hybrid_encoder.model.disparity import disp_to_depth
from hybrid_encoder.model.pose import ClassTokenPose, PoseDecoder, start_forward, with_scaled_motion
from hybrid_encoder.stage2.checkpoint import load_weights, save_weights
from hybrid_encoder.stage2.geometry import axis_angle_to_rotation, pose_matrix, project, scale_intrinsics, warp
from hybrid_encoder.stage2.health import health_metrics, unhealthy
from hybrid_encoder.stage2.losses import minimum_reprojection, photometric_error, smoothness_loss, text_bin_loss
from hybrid_encoder.stage2.model import DepthBatch, MonoDepth
from hybrid_encoder.stage2.objective import ObjectiveOptions, View, self_supervised_loss
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.stage2.prevent_collapse import FIRST_MOTION, MotionUnit
from hybrid_encoder.stage2.ssim_kernel import Target, reprojection_loss
from hybrid_encoder.stage2.training import build_model, loop_options, train
from hybrid_encoder.two_frame.checkpoint import load_teacher
from hybrid_encoder.two_frame.options import ManydepthOptions
from hybrid_encoder.two_frame.training import build_model as build_two_frame

K = torch.tensor([[[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]]])


def _scene(height: int = 48, width: int = 64) -> torch.Tensor:
    noise = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, (height, width), mode="bicubic", align_corners=True).clamp(0, 1)


def test_disparity_spans_the_depth_range() -> None:
    scaled, depth = disp_to_depth(torch.tensor([0.0, 1.0, 0.5]), 0.1, 100.0)
    assert depth.tolist() == pytest.approx([100.0, 0.1, 1 / (0.5 * 10.01)])
    assert torch.allclose(scaled * depth, torch.ones(3))


def test_rotations_are_rotations_also_at_zero() -> None:
    vectors = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    rotation = axis_angle_to_rotation(vectors)
    identity = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(rotation @ rotation.transpose(1, 2), identity.expand(5, 3, 3), atol=1e-9)
    quarter = axis_angle_to_rotation(torch.tensor([[0.0, 0.0, math.pi / 2]]))
    assert torch.allclose(quarter @ torch.tensor([1.0, 0, 0]), torch.tensor([[0.0, 1, 0]]), atol=1e-6)
    zero = torch.zeros(1, 3, requires_grad=True)
    axis_angle_to_rotation(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()
    assert torch.allclose(axis_angle_to_rotation(torch.zeros(1, 3))[0], torch.eye(3), atol=1e-6)


def test_inverted_pose_undoes_the_pose() -> None:
    axis_angle, translation = torch.randn(4, 3) * 0.3, torch.randn(4, 3)
    there = pose_matrix(axis_angle, translation)
    back = pose_matrix(axis_angle, translation, invert=True)
    assert torch.allclose(there @ back, torch.eye(4).expand(4, 4, 4), atol=1e-5)


def test_identity_pose_leaves_the_image() -> None:
    image = _scene()
    same = warp(image, project(torch.full((1, 1, 48, 64), 5.0), K, torch.eye(4)[None]))
    assert (same - image).abs().max() < 1e-4


def test_sideways_motion_shifts_by_focal_length_over_depth() -> None:
    image = _scene()
    move = torch.eye(4)[None].clone()
    move[0, 0, 3] = 0.5  # 60 px * 0.5 / 10 = 3 px
    shifted = warp(image, project(torch.full((1, 1, 48, 64), 10.0), K, move))
    assert torch.allclose(shifted[..., :-3], image[..., 3:], atol=1e-4)


def test_intrinsics_scale_with_the_image() -> None:
    half = scale_intrinsics(K, 0.5, 0.25)
    assert half[0].tolist() == [[30, 0, 15.75], [0, 15, 5.875], [0, 0, 1]]


def test_reprojection_of_an_image_on_itself_is_zero() -> None:
    image = _scene()
    assert reprojection_loss(Target.of(image), image).abs().max() < 1e-6
    assert reprojection_loss(Target.of(image), 1 - image).mean() > 0.3
    l1 = reprojection_loss(Target.of(image, ssim=False), image + 0.25)
    assert torch.allclose(l1, torch.full_like(l1, 0.25), atol=1e-6)


@pytest.mark.parametrize("use_ssim", [True, False])
@pytest.mark.parametrize("noise", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("size", [(3, 3), (5, 7), (48, 64)])
def test_the_kernel_equals_the_formula(size: tuple[int, int], noise: float, use_ssim: bool) -> None:
    """Values and gradients, also where windows are flat, equal or opposite, and where SSIM is clamped."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64)
    image[0] = 0.5
    weight = torch.rand(2, 1, *size, generator=generator, dtype=torch.float64)
    other = image + noise * torch.randn(image.shape, generator=generator, dtype=torch.float64)
    found = []
    for error in (
        lambda predicted: photometric_error(image, predicted, use_ssim),
        lambda predicted: reprojection_loss(Target.of(image, use_ssim), predicted),
    ):
        predicted = other.clone().requires_grad_()
        loss = error(predicted)
        found.append((loss.detach(), torch.autograd.grad((weight * loss).sum(), predicted)[0]))
    for formula, kernel in zip(*found, strict=True):
        torch.testing.assert_close(kernel, formula, rtol=0, atol=1e-9)


def test_minimum_and_automask() -> None:
    reprojections = torch.tensor([[[[0.5, 0.1]], [[0.2, 0.4]]]])
    identities = torch.tensor([[[[0.3, 0.05]], [[0.9, 0.9]]]])
    best = minimum_reprojection(reprojections, identities)
    assert best.loss.item() == pytest.approx((0.2 + 0.05) / 2)
    assert best.auto_mask.flatten().tolist() == [True, False]
    assert minimum_reprojection(reprojections, identities, mean_over_mask=True).loss.item() == pytest.approx(0.2)
    assert minimum_reprojection(reprojections * torch.nan, identities, mean_over_mask=True).loss.isnan()
    assert minimum_reprojection(reprojections, None).loss.item() == pytest.approx(0.15)
    assert minimum_reprojection(reprojections, None, average=True).loss.item() == pytest.approx(0.3)


def test_smoothness_is_scale_free_and_forgives_edges() -> None:
    flat = torch.full((1, 1, 8, 8), 3.0)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8) + 1
    grey = torch.full((1, 3, 8, 8), 0.5)
    edges = torch.arange(8.0).expand(1, 3, 8, 8)
    assert smoothness_loss(flat, grey).item() == 0
    assert smoothness_loss(ramp, grey).item() == pytest.approx(smoothness_loss(7 * ramp, grey).item(), rel=1e-5)
    assert smoothness_loss(ramp, edges) < 0.5 * smoothness_loss(ramp, grey)


def test_text_bins_run_near_to_far() -> None:
    depth = torch.tensor([[[[0.1, 99.0]]]])
    logits = torch.full((1, 4, 1, 2), -50.0)
    logits[0, 0, 0, 0] = logits[0, 3, 0, 1] = 50.0
    assert text_bin_loss(logits, depth, 0.1, 100).item() < 1e-3
    assert text_bin_loss(logits.flip(1), depth, 0.1, 100).item() > 50


def test_true_depth_and_pose_beat_wrong_ones() -> None:
    """A plane at 10 units seen from two places: the loss is lowest where depth and motion are right."""
    image = _scene()
    move = torch.eye(4)[None].clone()
    move[0, 0, 3] = -0.5
    source = warp(image, project(torch.full((1, 1, 48, 64), 10.0), K, move))
    options = ObjectiveOptions(min_depth=1.0, max_depth=100.0)
    there = move.clone()
    there[0, 0, 3] = 0.5

    def loss_at(depth: float) -> float:
        disp = torch.full((1, 1, 48, 64), (1 / depth - 0.01) / 0.99)
        torch.manual_seed(0)
        view = View.of({0: image, 1: source}, K, options)
        return self_supervised_loss({("disp", 0): disp}, view, {1: there}, options).loss.item()

    assert loss_at(10.0) < 0.5 * min(loss_at(7.0), loss_at(15.0))


def test_static_scene_is_masked_out() -> None:
    image = _scene()
    options = ObjectiveOptions()
    torch.manual_seed(0)
    view = View.of({0: image, -1: image}, K, options)
    away = torch.eye(4)[None].clone()
    away[0, 2, 3] = 1.0
    disp = torch.full((1, 1, 48, 64), 0.02)
    result = self_supervised_loss({("disp", 0): disp}, view, {-1: away}, options)
    assert result.auto_mask.float().mean() < 0.02
    assert result.photometric < 1e-3


# --prevent_collapse


SMALL: dict[str, Any] = {
    "preset": "tiny", "weights_init": "scratch", "dataset": "synthetic", "scenes": 2, "height": 64, "width": 64,
    "batch_size": 2, "num_workers": 0, "device": "cpu",
}  # fmt: skip
KINDS = ["separate_resnet", "shared", "class_token"]


def _batch(height: int = 64) -> DepthBatch:
    generator = torch.Generator().manual_seed(3)
    frames: dict[Any, torch.Tensor] = {i: torch.rand(2, 3, height, 64, generator=generator) for i in (0, -1, 1)}
    return DepthBatch(frames, frames, K.repeat(2, 1, 1), torch.eye(4).repeat(2, 1, 1), ["a", "b"])


def _model(kind: str, **changes: Any) -> MonoDepth:
    torch.manual_seed(0)
    encoder = "resnet" if kind == "separate_resnet" else "hybrid"
    return build_model(Monodepth2Options(**{**SMALL, "encoder": encoder, "pose_model_type": kind, **changes}))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_in_one_batch(kind: str) -> None:
    """Frames 0, -1, 1 pass the whole encoder as one batch of 3 B images, and batch norm takes the statistics of all."""
    batch = _batch()
    models = [_model(kind, frames_in_one_batch=True).train() for _ in range(2)]
    predicted = models[0].predict(batch)
    if kind == "separate_resnet":  # its depth encoder sees frame 0 alone in any case
        assert torch.equal(predicted.features.fused[0], models[1].see(batch.frames[0])[0].fused[0])
        return
    seen = models[1].encoder.forward_features(torch.cat([batch.frames[i] for i in (0, -1, 1)]))
    assert seen.stride4 is not None
    first = EncoderFeatures(
        *([x[:2] for x in levels] for levels in (seen.fused, seen.aligned, seen.logits)),
        None,
        (64, 64),
        seen.stride4[:2],
    )
    assert torch.equal(predicted.disparities["disp", 0], models[1].depth(first)["disp", 0])
    read = seen.class_token if kind == "class_token" else seen.fused[-1]
    assert read is not None
    of_0, before, after = read.chunk(3)
    assert models[1].poses is not None
    angles, shifts = models[1].poses.motions([(before, of_0), (of_0, after)])
    expected = pose_matrix(angles[:2, 0, 0], shifts[:2, 0, 0], invert=True)
    torch.testing.assert_close(predicted.poses[-1], expected)
    for ours, theirs in zip(models[0].buffers(), models[1].buffers(), strict=True):
        assert torch.equal(ours, theirs)
    alone = _model(kind).train().predict(batch)
    assert not torch.allclose(alone.disparities["disp", 0], predicted.disparities["disp", 0])


def test_the_loss_does_not_change_with_a_common_factor_of_depth() -> None:
    """Translations in mean depths: no gradient makes all depths larger; the value is that of the running mean."""
    source, depth = _scene(), 5 + 5 * torch.rand(1, 1, 48, 64, generator=torch.Generator().manual_seed(1))
    view = View.of({0: _scene().flip(3), 1: source}, K, ObjectiveOptions(disable_automasking=True))
    gradients = []
    for unit in (MotionUnit(), None):
        factor = torch.ones((), requires_grad=True)
        scaled = factor * depth
        move = torch.tensor([[0.02, 0.0, -0.1]]) * (1.0 if unit is None else unit(1 / scaled))
        if unit is None:
            move = move * (1 / (1 / depth).mean())
        loss = view.reprojections(scaled, {1: pose_matrix(torch.zeros(1, 3), move)}).mean()
        gradients.append(torch.autograd.grad(loss, factor)[0].abs().item())
    assert gradients[0] < 1e-3 * gradients[1]


def test_the_unit_is_a_running_mean_and_a_constant_in_evaluation() -> None:
    unit = MotionUnit()
    assert unit(torch.full((1, 1, 2, 2), 0.5)).item() == pytest.approx(2)
    assert unit(torch.full((1, 1, 2, 2), 0.25)).item() == pytest.approx(3)
    for _ in range(200):
        unit(torch.full((1, 1, 2, 2), 0.125))
    assert unit.eval()(torch.full((1, 1, 2, 2), 9.0)).item() == pytest.approx(8)
    assert unit.mean_depth.item() == pytest.approx(8)


@pytest.mark.parametrize("head", [PoseDecoder(8), PoseDecoder(8, num_inputs=2, num_poses=1), ClassTokenPose(8)])
def test_a_head_starts_forward_and_its_translation_scales(head: PoseDecoder | ClassTokenPose) -> None:
    maps = torch.randn(2, 3, 8, 2, 2, generator=torch.Generator().manual_seed(0))

    def answer(net: PoseDecoder | ClassTokenPose) -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(net, ClassTokenPose):
            return net(*maps[..., 0, 0])
        return net([[each] for each in maps[: len(net.net[1].weight[0]) // 256]])

    scaled = with_scaled_motion(head, torch.tensor([1.0, 1, 1, 3, 3, 3]))
    (angle, translation), (same, larger) = answer(head), answer(scaled)
    assert torch.equal(angle, same)
    torch.testing.assert_close(larger, 3 * translation)
    start_forward(head, 0.03)
    angle, translation = answer(head)
    assert angle.abs().max() == 0
    torch.testing.assert_close(translation, torch.tensor([0.0, 0.0, -0.03]).expand_as(translation))


@pytest.mark.parametrize("kind", KINDS)
def test_saved_poses_are_in_the_unit_of_depth(kind: str, tmp_path: Path) -> None:
    """A net without the option, as every reader of weights builds it, finds the same poses."""
    model, batch = _model(kind, prevent_collapse=True), _batch()
    assert model.unit is not None
    assert model.poses is not None
    with torch.no_grad():
        model.poses.pose.last.weight.normal_(generator=torch.Generator().manual_seed(1))
        model.unit.mean_depth.fill_(0.2)
        found = model.eval().predict(batch).poses
        save_weights(tmp_path, model.files_to_save(), torch.optim.SGD(model.parameters(), 0.1), {})
        plain = _model(kind, seed=1).eval()
        load_weights(tmp_path, plain.files())
        for frame_id, pose in plain.predict(batch).poses.items():
            torch.testing.assert_close(pose, found[frame_id])
        unscaled = model.predict_poses(batch, {0: model.see(batch.frames[0])[0]})
        assert not torch.allclose(found[1][:, :3, 3], unscaled[1][:, :3, 3])


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_option_nothing_is_different(kind: str) -> None:
    """Same names, same first weights, poses as the head gives them, the loss of the objective alone."""
    plain, other, batch = _model(kind), _model(kind, prevent_collapse=True), _batch()
    last = {f"poses.pose.{name}" for name in ("net.3.weight", "net.3.bias", "linear.weight", "linear.bias")}
    first, second = plain.state_dict(), other.state_dict()
    assert second.keys() - first.keys() == {"unit.mean_depth", "unit.batches"}
    assert all(torch.equal(first[name], second[name]) for name in first.keys() - last)
    torch.manual_seed(0)
    scalars = plain.eval()(batch)
    features, disparities = plain.see(batch.augmented[0])
    poses = plain.predict_poses(batch, {0: features})
    torch.manual_seed(0)
    view = View.of(batch.frames, batch.K, plain.objective)
    assert torch.equal(scalars["loss"], self_supervised_loss(disparities, view, poses, plain.objective).loss)
    assert "drift" not in scalars


def test_a_run_that_prevents_collapse_moves_forward_resumes_and_teaches_two_frames(tmp_path: Path) -> None:
    here = Processes(torch.device("cpu"))
    options = Monodepth2Options(
        **{**SMALL, "height": 32}, pose_model_type="class_token", prevent_collapse=True, log_dir=tmp_path,
        model_name="whole", num_epochs=2, learning_rate=1e-6,
    )  # fmt: skip
    metrics = train(options, here)
    assert {"drift", "log_depth_spread", "limit_share", "row_correlation"} <= set(metrics)
    assert metrics["translation"] == pytest.approx(FIRST_MOTION, rel=0.2)
    broken = dataclasses.replace(options, model_name="broken", num_epochs=1)
    train(broken, here)
    assert train(dataclasses.replace(broken, num_epochs=2), here) == metrics
    weights = options.folder / "models" / "weights_1"
    single = build_model(dataclasses.replace(options, prevent_collapse=False, load_weights_folder=weights)).eval()
    settings = {name: value for name, value in SMALL.items() if name not in ("device",)}
    teaching = build_two_frame(
        ManydepthOptions(**settings, encoder="resnet", teacher_encoder="hybrid", pose_model_type="class_token")
    )
    load_teacher(weights, teaching)
    batch = _batch(32)
    with torch.no_grad():
        taught, ours = teaching.teacher.eval().predict(batch).poses, single.predict(batch).poses
        depth = 1 / disp_to_depth(single.disparity(batch.frames[0]), options.min_depth, options.max_depth)[0].mean()
    assert torch.equal(taught[1], ours[1])
    assert ours[1][:, 2, 3].max() < 0 < ours[-1][:, 2, 3].min()
    assert (-ours[1][:, 2, 3].mean() / depth).item() == pytest.approx(FIRST_MOTION, rel=0.5)


@pytest.mark.parametrize("changes", [{"load_weights_folder": "run"}, {"use_stereo": True}, {"head": "relu"}])
def test_prevent_collapse_is_refused_where_it_means_nothing(changes: dict[str, Any], tmp_path: Path) -> None:
    weights = tmp_path / "run" / "models" / "weights_0"
    weights.mkdir(parents=True)
    if "load_weights_folder" in changes:
        changes = {"load_weights_folder": tmp_path / "run"}
        Monodepth2Options(**SMALL, prevent_collapse=True, **changes).check()  # without pose nets it is fine
    (weights / "pose.pth").touch()
    with pytest.raises(UserError, match="--prevent_collapse"):
        Monodepth2Options(**SMALL, prevent_collapse=True, **changes).check()


# Health


def _health(depth: torch.Tensor, move: float = 0.5) -> str:
    pose = torch.eye(4).repeat(len(depth), 1, 1)
    pose[:, 2, 3] = -move
    found = health_metrics(depth, {1: pose, "s": 100 * pose}, 0.1, 100.0)
    return unhealthy({name: value.item() for name, value in found.items()})


def test_health_names_what_is_wrong_and_what_helps() -> None:
    street = torch.logspace(1.9, 0.5, 32).view(1, 1, 32, 1).expand(2, 1, 32, 64)
    assert _health(street) == ""
    for depth, move, fault in (
        (torch.full_like(street, 100.0), 0.5, "almost all depth is at"),
        (torch.full_like(street, 0.1), 0.5, "almost all depth is at"),
        (torch.full_like(street, 20.0), 0.5, "depth is flat"),
        (street.flip(2), 0.5, "depth is upside down"),
        (street, 1e-5, "the camera hardly moves"),
        (street, 200.0, "the camera moves farther than"),
    ):
        found = _health(depth, move)
        assert found.startswith(fault)
        assert "; what helps: " in found
    assert unhealthy({}) == unhealthy({"log_depth_spread": math.nan}) == ""
    assert "translation" not in health_metrics(street, {"s": torch.eye(4)[None]}, 0.1, 100.0)


@pytest.mark.parametrize(
    ("changes", "helps"),
    [({}, True), ({"prevent_collapse": True}, False), ({"use_stereo": True}, False), ({"head": "relu"}, False)],
)
def test_prevent_collapse_is_advised_where_the_run_can_take_it(changes: dict[str, Any], helps: bool) -> None:
    warn = loop_options(Monodepth2Options(**SMALL, **changes), {}).warn
    assert ("--prevent_collapse" in warn({"log_depth_spread": 0.0})) == helps
