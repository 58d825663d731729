"""Stage 2's pure functions: geometry that is right to the pixel, losses with known values."""

import math

import pytest
import torch
import torch.nn.functional as F

from hybrid_encoder.model.disparity import disp_to_depth
from hybrid_encoder.stage2.geometry import axis_angle_to_rotation, pose_matrix, project, scale_intrinsics, warp
from hybrid_encoder.stage2.losses import minimum_reprojection, photometric_error, smoothness_loss, text_bin_loss
from hybrid_encoder.stage2.objective import ObjectiveOptions, View, self_supervised_loss
from hybrid_encoder.stage2.ssim_kernel import Target, reprojection_loss

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
