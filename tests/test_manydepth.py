"""Matching: the cost volume against the original's (the wheel `manydepth==1.0.0`), and both matching encoders."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from hybrid_encoder.errors import UserError
from hybrid_encoder.model.encoder import create_encoder
from hybrid_encoder.model.resnet import ResnetEncoder
from hybrid_encoder.stage2.geometry import pose_matrix
from hybrid_encoder.two_frame.cost_volume import DepthBinTracker, Lookup, depth_bins, match
from hybrid_encoder.two_frame.encoder import HybridMatchingEncoder, ResnetMatchingEncoder
from hybrid_encoder.two_frame.matching import MatchingEncoder

from .oracle import Original, download

B, H, W, BINS = 2, 64, 96, 12
h, w = H // 4, W // 4


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return Original("manydepth", download("manydepth", tmp_path_factory.mktemp("manydepth")))


@pytest.fixture
def _double_precision() -> Iterator[None]:
    """Tells formulas apart, not roundings: a mask that hangs on x >= 2 flips where the two round differently."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def scene(channels: int, frames: int, height: int = h, width: int = w, batch: int = B) -> tuple[Tensor, ...]:
    """Features or images, poses as of a driving camera, and (B, 4, 4) intrinsics with their inverse."""
    torch.manual_seed(3)
    K = torch.eye(4).repeat(batch, 1, 1)
    K[:, 0, 0], K[:, 0, 2], K[:, 1, 1], K[:, 1, 2] = 0.58 * w, 0.5 * w, 1.92 * h, 0.5 * h
    shift = torch.randn(batch * frames, 3) * torch.tensor([0.05, 0.02, 0.3])
    poses = pose_matrix(0.02 * torch.randn(batch * frames, 3), shift).view(batch, frames, 4, 4)
    current = torch.rand(batch, channels, height, width)
    lookup = torch.rand(batch, frames, channels, height, width)
    return current, lookup, poses, K, torch.linalg.inv(K)


def original_encoder(original: Original, **settings: Any) -> Any:
    return original.networks.ResnetEncoderMatching(18, False, H, W, num_depth_bins=BINS, **settings)


@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("binning", ["linear", "inverse"])
@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("missing", [(), ((0, 0),), ((0, 0), (1, 0))])
def test_cost_volume_equals_the_original(
    original: Original, frames: int, binning: Any, missing: tuple[tuple[int, int], ...]
) -> None:
    reference = original_encoder(original, depth_binning=binning)
    reference.compute_depth_bins(0.5, 10.0)
    reference = reference.double()
    reference.warp_depths = reference.warp_depths.double()
    current, lookup, poses, K, inv_K = scene(16, frames)
    for sample, frame in missing:
        poses[sample, frame] = 0
    expected, absent = reference.match_features(current, lookup, poses, K, inv_K)
    confident = reference.compute_confidence_mask(expected * (1 - absent))
    # The original keeps its bins in single precision.
    bins = torch.as_tensor(reference.warp_depths[:, 0, 0, 0])
    torch.testing.assert_close(depth_bins(0.5, 10.0, BINS, binning), bins, rtol=1e-6, atol=0, check_dtype=False)
    for intrinsics in ((K, inv_K), (K[:, :3, :3], inv_K[:, :3, :3])):
        found = match(current, Lookup(lookup, poses, *intrinsics), bins)
        torch.testing.assert_close(found.cost, expected, rtol=0, atol=1e-6, check_dtype=False)
        assert torch.equal(found.confidence, confident.bool())
    if not missing:
        assert 0.05 < confident.mean() < 0.95


def test_single_precision_equals_the_original(original: Original) -> None:
    reference = original_encoder(original)
    reference.compute_depth_bins(0.5, 10.0)
    arguments = scene(64, 1)
    expected, absent = reference.match_features(*arguments)
    found = match(arguments[0], Lookup(*arguments[1:]), depth_bins(0.5, 10.0, BINS))
    torch.testing.assert_close(found.cost, expected, rtol=0, atol=1e-5)
    assert torch.equal(found.confidence, reference.compute_confidence_mask(expected * (1 - absent)).bool())


@pytest.mark.parametrize("layers", [18, 50])
@pytest.mark.parametrize("binning", ["linear", "inverse"])
def test_weights_pass_both_ways(original: Original, layers: int, binning: Any) -> None:
    settings = {"adaptive_bins": True, "depth_binning": binning, "num_depth_bins": BINS}
    theirs = original.networks.ResnetEncoderMatching(layers, False, H, W, **settings).eval()
    ours = ResnetMatchingEncoder(layers, "random", H, W, **settings).eval()
    _, _, poses, K, inv_K = scene(3, 2)
    current, lookup = scene(3, 2, H, W)[:2]
    arguments = (current, lookup, poses, K, inv_K, 0.5, 10.0)
    ours_too = (current, Lookup(lookup, poses, K, inv_K), (0.5, 10.0))
    for give in (
        lambda: ours.load_original_state_dict(theirs.state_dict(), "theirs"),
        lambda: theirs.load_state_dict(_shaken(ours).original_state_dict()),
    ):
        give()
        with torch.no_grad():
            maps, lowest, confidence = ours(*ours_too)
            expected = theirs(*arguments)
        assert ours.num_ch_enc.tolist() == theirs.num_ch_enc.tolist()
        for mine, reference in zip(maps, expected[0], strict=True):
            torch.testing.assert_close(mine / reference.abs().max(), reference / reference.abs().max())
        torch.testing.assert_close(lowest, expected[1])
        assert torch.equal(confidence, expected[2])


def _shaken(encoder: ResnetMatchingEncoder) -> ResnetMatchingEncoder:
    for parameter in encoder.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    return encoder


def test_bin_tracker_equals_the_original(original: Original) -> None:
    trainer = SimpleNamespace(opt=SimpleNamespace(min_depth=0.1), min_depth_tracker=0.1, max_depth_tracker=10.0)
    tracker = DepthBinTracker(0.1)
    for step in range(5):
        depth = 0.05 * (1 + step) + (40 + step) * torch.rand(B, 1, H, W)
        original.trainer.Trainer.update_adaptive_depth_bins(trainer, {("mono_depth", 0, 0): depth})
        tracker.update(depth)
        expected = torch.tensor([float(trainer.min_depth_tracker), float(trainer.max_depth_tracker)])
        torch.testing.assert_close(torch.stack([tracker.near, tracker.far]), expected)
    assert set(tracker.state_dict()) == {"near", "far"}


@pytest.mark.parametrize("max_bytes", [1, 100_000, 1 << 30])
@pytest.mark.parametrize("frames", [1, 2])
def test_chunks_change_nothing(max_bytes: int, frames: int) -> None:
    current, *others = scene(8, frames)
    lookup, bins = Lookup(*others), depth_bins(0.5, 10.0, BINS)
    whole, chunked = match(current, lookup, bins), match(current, lookup, bins, max_bytes=max_bytes)
    assert torch.equal(whole.cost, chunked.cost)
    assert torch.equal(whole.confidence, chunked.confidence)


def test_finds_the_depth_of_a_plane() -> None:
    """A textured wall 4 m away, seen from further left: the lowest cost lies in its bin."""
    _, _, _, K, inv_K = scene(1, 1)
    torch.manual_seed(0)
    wide, pixels = torch.rand(B, 8, h, 2 * w), 2
    poses = torch.eye(4).repeat(B, 1, 1, 1)
    poses[..., 0, 3] = pixels * 4 / (0.58 * w)
    # Features that agree to the last bit count as unseen, so they are given some noise.
    current, lookup = wide[..., pixels : pixels + w], wide[:, None, ..., :w] + 0.01 * torch.rand(B, 1, 8, h, w)
    found = match(current, Lookup(lookup, poses, K, inv_K), torch.arange(1.0, 13.0))
    assert 0.3 < found.confidence.float().mean() < 0.9
    assert (found.best[found.confidence] == 3).all()


@pytest.mark.parametrize("poses", ["static", "none", "zero motion, same image"])
def test_degenerate_motion_is_finite(poses: str) -> None:
    for encoder in (ResnetMatchingEncoder(18, "random", H, W, num_depth_bins=BINS), hybrid()):
        current, lookup, _, K, inv_K = (*scene(3, 2, H, W)[:2], *scene(3, 2)[2:])
        T = torch.zeros(B, 2, 4, 4) if poses == "none" else torch.eye(4).expand(B, 2, 4, 4)
        if poses.endswith("same image"):
            lookup = current[:, None].expand(-1, 2, -1, -1, -1)
        maps, lowest, confidence = encoder(current, Lookup(lookup, T, K, inv_K))
        assert all(torch.isfinite(m).all() for m in maps)
        assert torch.isfinite(lowest).all()
        assert (lowest > 0).all()
        assert lowest.shape == confidence.shape == (B, h, w)
        if poses == "none":
            assert not confidence.any()


def hybrid(**settings: Any) -> HybridMatchingEncoder:
    torch.manual_seed(1)
    return HybridMatchingEncoder(create_encoder("tiny"), H, W, num_depth_bins=BINS, **settings)


def test_hybrid_encoder_matches_the_image_tower_only() -> None:
    encoder = hybrid(adaptive_bins=True)
    dino: list[Tensor] = []
    assert encoder.encoder.dino is not None
    encoder.encoder.dino.register_forward_pre_hook(lambda _, images: dino.append(images[0]))
    current, lookup = scene(3, 2, H, W)[:2]
    poses, K, inv_K = scene(3, 2)[2:]
    maps, _, _ = encoder(current, Lookup(lookup, poses, K, inv_K), (torch.tensor(0.5), torch.tensor(10.0)))
    assert [tuple(m.shape) for m in maps] == [
        (B, int(c), H // 2 ** (i + 1), W // 2 ** (i + 1)) for i, c in enumerate(encoder.num_ch_enc)
    ]
    assert len(dino) == 1
    assert torch.equal(dino[0], current)
    torch.testing.assert_close(encoder.depth_bins[[0, -1]], torch.tensor([0.5, 10.0]))
    sum(m.mean() for m in maps).backward()  # type: ignore[union-attr]
    without = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_hybrid_encoder_starts_as_the_single_frame_one() -> None:
    """The joining convolution starts as the identity; it is trained, so it does not stay that."""
    encoder = hybrid().train()
    current, lookup = scene(3, 1, H, W)[:2]
    _, _, poses, K, inv_K = scene(3, 1)
    features, _, confidence = encoder.forward_features(current, Lookup(lookup, poses, K, inv_K))
    expected = encoder.encoder.forward_features(current)
    assert confidence.any()
    for level, reference in zip(features.aligned, expected.aligned, strict=True):
        torch.testing.assert_close(level, reference, rtol=1e-4, atol=1e-4)
    features.aligned[-1].square().mean().backward()
    gradient = cast(Tensor, encoder.reduce_conv[0].weight.grad)
    assert gradient[:, -BINS:].abs().max() > 0


def test_resnet_starts_from_a_single_frame_one() -> None:
    single = ResnetEncoder(18, "random").eval()
    encoder = ResnetMatchingEncoder(18, "random", H, W, num_depth_bins=BINS).eval()
    encoder.start_from(single)
    current, lookup = scene(3, 1, H, W)[:2]
    with torch.no_grad():
        maps, _, confidence = encoder(current, Lookup(lookup, *scene(3, 1)[2:]))
        expected = single(current)
    assert confidence.any()
    for found, reference in zip(maps, expected, strict=True):
        torch.testing.assert_close(found, reference)
    with pytest.raises(UserError, match="does not fit"):
        encoder.start_from(ResnetEncoder(34, "random"))


def test_lookup_frames_get_no_gradient() -> None:
    for encoder in (ResnetMatchingEncoder(18, "random", H, W, num_depth_bins=BINS), hybrid()):
        current, lookup = (x.requires_grad_() for x in scene(3, 1, H, W)[:2])
        maps, lowest, _ = encoder(current, Lookup(lookup, *scene(3, 1)[2:]))
        maps[-1].sum().backward()
        assert current.grad is not None
        assert lookup.grad is None
        assert not lowest.requires_grad


def test_grids_are_buffers_outside_the_weights() -> None:
    for encoder in (ResnetMatchingEncoder(18, "random", H, W, num_depth_bins=BINS), hybrid()):
        assert isinstance(encoder, MatchingEncoder)
        names = dict(encoder.named_buffers())
        assert {"pixels", "depth_bins"} <= set(names)
        assert not {"pixels", "depth_bins"} & set(encoder.state_dict())


def test_needs_a_stride_4_map() -> None:
    encoder = create_encoder("tiny", image_tower=None)
    with pytest.raises(UserError, match="stride-4 map"):
        HybridMatchingEncoder(encoder, H, W)
    with pytest.raises(UserError, match="multiple of 32"):
        ResnetMatchingEncoder(18, "random", 200, 640)
