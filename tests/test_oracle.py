"""Networks, geometry and losses equal the original trainers': their wheels `monodepth2==1.0.0`, `manydepth==1.0.0`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hybrid_encoder.model.disparity import disp_to_depth
from hybrid_encoder.model.encoder import create_encoder
from hybrid_encoder.model.pose import PoseCNN, PoseDecoder
from hybrid_encoder.model.resnet import ResnetEncoder, UNetDecoder
from hybrid_encoder.stage2.geometry import pose_matrix, project, scale_intrinsics, warp
from hybrid_encoder.stage2.losses import smoothness_loss
from hybrid_encoder.stage2.objective import ObjectiveOptions, View, self_supervised_loss
from hybrid_encoder.stage2.ssim_kernel import Target, reprojection_loss

from .oracle import Original, download

B, H, W = 2, 64, 96
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def open_original(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Original]:
    return cache(lambda host: Original(host, download(host, tmp_path_factory.mktemp(host))))


@pytest.fixture(params=["monodepth2", "manydepth"])
def original(request: pytest.FixtureRequest, open_original: Callable[[str], Original]) -> Original:
    return open_original(request.param)


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    """The originals make float32 tensors by default; in double precision 1e-6 tells formulas apart, not roundings."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def share(theirs: nn.Module, ours: nn.Module) -> None:
    """Gives our net the original's weights, strictly by name."""
    ours.load_state_dict(theirs.state_dict())
    theirs.eval()
    ours.eval()


def same(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=TOLERANCE, check_dtype=False)


def intrinsics() -> tuple[Tensor, Tensor]:
    """K (B, 3, 3), and the same as (B, 4, 4)."""
    K = torch.tensor([[0.58 * W, 0, 0.5 * W], [0, 1.92 * H, 0.45 * H], [0, 0, 1.0]]).repeat(B, 1, 1)
    full = torch.eye(4).repeat(B, 1, 1)
    full[:, :3, :3] = K
    return K, full


@pytest.mark.parametrize(("layers", "images"), [(18, 1), (18, 2), (50, 1)])
def test_resnet_encoder(original: Original, layers: int, images: int) -> None:
    theirs = original.networks.ResnetEncoder(layers, False, num_input_images=images)
    ours = ResnetEncoder(layers, "random", num_input_images=images).double()
    share(theirs, ours)
    assert ours.num_ch_enc.tolist() == theirs.num_ch_enc.tolist()
    image = torch.rand(B, 3 * images, H, W)
    with torch.no_grad():
        for mine, reference in zip(ours(image), theirs(image), strict=True):
            same(mine / reference.abs().max(), reference / reference.abs().max())


@pytest.mark.parametrize("scales", [(0, 1, 2, 3), (0,), (0, 2)])
def test_depth_decoder(original: Original, scales: tuple[int, ...]) -> None:
    channels = [64, 64, 128, 256, 512]
    theirs = original.networks.DepthDecoder(channels, scales)
    ours = UNetDecoder(channels, scales)
    share(theirs, ours)
    maps = [torch.randn(B, c, H // 2 ** (i + 1), W // 2 ** (i + 1)) for i, c in enumerate(channels)]
    mine, reference = ours(maps), theirs(maps)
    assert set(mine) == set(reference) == {("disp", s) for s in scales}
    for key, value in reference.items():
        assert mine[key].shape == value.shape
        same(mine[key], value)


@pytest.mark.parametrize(("inputs", "poses"), [(1, 2), (2, 1)])
def test_pose_decoder(original: Original, inputs: int, poses: int) -> None:
    theirs = original.networks.PoseDecoder([64, 512], inputs, poses)
    ours = PoseDecoder(512, inputs, poses)
    share(theirs, ours)
    maps = [[torch.randn(B, 64, 4, 6), torch.randn(B, 512, 2, 3)] for _ in range(inputs)]
    for mine, reference in zip(ours(maps), theirs(maps), strict=True):
        assert mine.shape == reference.shape
        same(mine, reference)


def test_pose_cnn(original: Original) -> None:
    theirs, ours = original.networks.PoseCNN(2), PoseCNN()
    share(theirs, ours)
    pair = torch.rand(B, 6, H, W)
    for mine, reference in zip(ours(pair), theirs(pair), strict=True):
        assert mine.shape == reference.shape
        same(mine, reference)


def test_disparity_to_depth(original: Original) -> None:
    disp = torch.rand(B, 1, H, W)
    for mine, reference in zip(
        disp_to_depth(disp, 0.1, 100.0), original.layers.disp_to_depth(disp, 0.1, 100.0), strict=True
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=0)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("angle", [1e-9, 1e-3, 0.05, 2.0])
def test_pose_matrix(original: Original, angle: float, invert: bool) -> None:
    axis_angle, translation = angle * torch.randn(B, 1, 3), torch.randn(B, 1, 3)
    reference = original.layers.transformation_from_parameters(axis_angle, translation, invert)
    same(pose_matrix(axis_angle[:, 0], translation[:, 0], invert), reference)


def test_projection(original: Original) -> None:
    depth = 1 + 50 * torch.rand(B, 1, H, W)
    K, full = intrinsics()
    T = pose_matrix(0.05 * torch.randn(B, 3), torch.randn(B, 3))
    points = original.layers.BackprojectDepth(B, H, W).double()(depth, torch.linalg.inv(full))
    reference = original.layers.Project3D(B, H, W)(points, full, T)
    same(project(depth, K, T), reference)


@pytest.mark.parametrize("no_ssim", [False, True])
@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_reprojection(original: Original, no_ssim: bool, noise: float) -> None:
    """The loss, and the gradient that autograd finds through the original's."""
    first = torch.rand(B, 3, H, W)
    near = (first + noise * torch.randn(B, 3, H, W)).clamp(0, 1)
    weight = torch.rand(B, 1, H, W)
    trainer = SimpleNamespace(opt=SimpleNamespace(no_ssim=no_ssim), ssim=original.layers.SSIM())
    losses, gradients = [], []
    for side in (
        lambda image: original.trainer.Trainer.compute_reprojection_loss(trainer, image, first),
        lambda image: reprojection_loss(Target.of(first, ssim=not no_ssim), image),
    ):
        image = near.clone().requires_grad_()
        losses.append(side(image))
        gradients.append(torch.autograd.grad((weight * losses[-1]).sum(), image)[0])
    same(losses[1], losses[0])
    same(gradients[1], gradients[0])


def test_smoothness(original: Original) -> None:
    disp, image = torch.rand(B, 1, H, W), torch.rand(B, 3, H, W)
    normalised = disp / (disp.mean((2, 3), keepdim=True) + 1e-7)
    same(smoothness_loss(disp, image), original.layers.get_smooth_loss(normalised, image))


@pytest.mark.parametrize(
    ("host", "changes"),
    [
        ("monodepth2", {}),
        ("monodepth2", {"no_ssim": True}),
        ("monodepth2", {"disable_automasking": True}),
        ("monodepth2", {"avg_reprojection": True}),
        ("manydepth", {}),
        ("manydepth", {"disable_automasking": True}),
        ("manydepth", {"avg_reprojection": True}),
    ],
)
def test_whole_loss(
    open_original: Callable[[str], Original], host: str, changes: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """View synthesis, minimum reprojection, auto-masking and smoothness over four scales; ties are left unbroken."""
    original = open_original(host)
    monkeypatch.setattr(torch, "randn", lambda *size, **_: torch.zeros(*size))
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    reference = _original_loss(original, changes, batch := _batch())
    options = ObjectiveOptions(**changes, mean_over_mask=host == "manydepth")
    view = View.of({i: batch["color", i, 0] for i in (0, -1, 1)}, batch["K"], options)
    objective = self_supervised_loss(batch["disp"], view, batch["T"], options)
    same(objective.loss, reference)


def _batch() -> dict[Any, Any]:
    generator = torch.Generator().manual_seed(7)

    def rand(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    batch: dict[Any, Any] = {"K": intrinsics()[0]}
    smooth = nn.functional.interpolate(rand(B, 3, H // 8, W // 8), (H, W + 8), mode="bilinear")
    for frame_id in (0, -1, 1):  # the same scene, moved sideways
        image = smooth[..., 4 + 2 * frame_id : 4 + 2 * frame_id + W] + 0.02 * rand(B, 3, H, W)
        for scale in range(4):
            batch["color", frame_id, scale] = nn.functional.avg_pool2d(image, 2**scale)
    batch["disp"] = {("disp", s): rand(B, 1, H // 2**s, W // 2**s) for s in range(4)}
    batch["T"] = {i: pose_matrix(0.01 * rand(B, 3), 0.1 * rand(B, 3), invert=i < 0) for i in (-1, 1)}
    return batch


def _original_loss(original: Original, changes: dict[str, bool], batch: dict[Any, Any]) -> Tensor:
    """What the original's own loss methods make of a batch; `grid_sample` as on the torch it was written for."""
    settings = {
        "frame_ids": [0, -1, 1],
        "scales": [0, 1, 2, 3],
        "height": H,
        "width": W,
        "min_depth": 0.1,
        "max_depth": 100.0,
        "disparity_smoothness": 1e-3,
        "pose_model_type": "separate_resnet",
        **dict.fromkeys(
            ("v1_multiscale", "no_ssim", "disable_automasking", "avg_reprojection", "predictive_mask"), False
        ),
        **changes,
    }
    trainer = SimpleNamespace(
        opt=SimpleNamespace(**settings),
        device=torch.device("cpu"),
        num_scales=4,
        ssim=original.layers.SSIM(),
        backproject_depth={0: original.layers.BackprojectDepth(B, H, W).double()},
        project_3d={0: original.layers.Project3D(B, H, W)},
    )
    kind = original.trainer.Trainer
    trainer.compute_reprojection_loss = lambda *images: kind.compute_reprojection_loss(trainer, *images)
    if original.host == "manydepth":
        trainer.compute_loss_masks = kind.compute_loss_masks
    inputs = {key: value for key, value in batch.items() if key[0] == "color"}
    full = intrinsics()[1]
    inputs["K", 0], inputs["inv_K", 0] = full, torch.linalg.inv(full)
    outputs = dict(batch["disp"])
    outputs.update({("cam_T_cam", 0, i): T for i, T in batch["T"].items()})
    sample: Callable[..., Tensor] = torch.nn.functional.grid_sample

    def aligned(source: Tensor, grid: Tensor, **settings: Any) -> Tensor:
        return sample(source, grid, **{**settings, "align_corners": True})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "grid_sample", aligned)
        patch.setattr(Tensor, "cuda", lambda self: self)
        kind.generate_images_pred(trainer, inputs, outputs)
        losses = kind.compute_losses(trainer, inputs, outputs)
    loss: Tensor = losses["loss"]
    return loss


def test_warp_samples_pixel_centres() -> None:
    """The identity pose gives the image back: corners are aligned (half a pixel off, the error would be about 0.1)."""
    image, depth = torch.rand(B, 3, H, W), 1 + torch.rand(B, 1, H, W)
    warped = warp(image, project(depth, intrinsics()[0], torch.eye(4).repeat(B, 1, 1)))
    torch.testing.assert_close(warped, image, rtol=0, atol=1e-4)


def test_intrinsics_scale_as_theirs() -> None:
    K = intrinsics()[0]
    expected = torch.stack([K[:, 0] / 4, K[:, 1] / 4, K[:, 2]], dim=1)
    same(scale_intrinsics(K, 0.25, 0.25), expected)


def test_their_decoder_on_our_features(original: Original) -> None:
    """The encoder contract: their unmodified decoders take the hybrid encoder's five maps, and train through them."""
    torch.set_default_dtype(torch.float32)
    encoder = create_encoder("tiny")
    decoder = original.networks.DepthDecoder(encoder.num_ch_enc)
    features = encoder(torch.rand(1, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [
        (1, int(c), 64 // 2 ** (i + 1), 96 // 2 ** (i + 1)) for i, c in enumerate(encoder.num_ch_enc)
    ]
    outputs = decoder(features)
    assert {key: tuple(v.shape) for key, v in outputs.items()} == {
        ("disp", s): (1, 1, 64 // 2**s, 96 // 2**s) for s in range(4)
    }
    outputs["disp", 0].mean().backward()
    assert encoder.pyramid is not None
    assert all(p.grad is not None for p in encoder.pyramid.parameters())
    shared = original.networks.PoseDecoder(encoder.num_ch_enc, 2, 1)
    assert shared([features, features])[0].shape == (1, 1, 1, 3)
