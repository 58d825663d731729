"""Whatever is computed on a GPU stays there: run on tensors that only pretend to lie on one, which tell of a tensor
made on the CPU and of a number that the host asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hybrid_encoder.data.sample import FrameId
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.stage1.dataset import Stage1Batch
from hybrid_encoder.stage1.model import Stage1Model, stage1_config
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage2.model import DepthBatch, MonoDepth
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.two_frame.cost_volume import Lookup, match
from hybrid_encoder.two_frame.model import TwoFrameDepth
from hybrid_encoder.two_frame.options import ManydepthOptions

H, W = 64, 96
GPU = torch.device("cuda", 0)
SIZE: dict[str, Any] = {"preset": "tiny", "weights_init": "scratch", "height": H, "width": W}


@contextmanager
def pretending(model: nn.Module) -> Iterator[None]:
    """A model whose tensors have shapes, types and a GPU, but no numbers."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to(GPU)
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def depth_batch(ids: tuple[FrameId, ...] = (0, -1, 1)) -> DepthBatch:
    frames: dict[FrameId, Tensor] = {i: torch.rand(2, 3, H, W, device=GPU) for i in ids}
    eye = torch.eye(4, device=GPU).expand(2, 4, 4)
    return DepthBatch(frames, frames, eye[:, :3, :3], eye, ["", ""])


def check(scalars: dict[str, Tensor]) -> None:
    assert {value.device for value in scalars.values()} == {GPU}


def test_a_tensor_of_the_cpu_is_told() -> None:
    with pretending(nn.Linear(1, 1)), pytest.raises(Exception, match="device"):
        torch.rand(2, device=GPU) + torch.rand(2)


TEXT: dict[str, Any] = {"encoder": "hybrid", "text_weight": 0.1}
STEREO: dict[str, Any] = {"encoder": "resnet", "scales": (0, 1, 2, 3), "use_stereo": True, "avg_reprojection": True}


@pytest.mark.parametrize(
    ("changes", "train"),
    [
        (TEXT, True),
        (TEXT, False),
        (STEREO, True),
        (STEREO, False),
        ({"encoder": "hybrid", "pose_model_type": "class_token", "decoder": "unet"}, True),
        ({"encoder": "hybrid", "pose_model_type": "shared", "encoder_option": ("text_norm=matrix",)}, True),
        ({"encoder": "resnet", "no_ssim": True, "disable_automasking": True}, True),
    ],
)
def test_single_frame_trainer(changes: dict[str, Any], train: bool) -> None:
    options = Monodepth2Options(**SIZE, **changes)
    model = MonoDepth(options, options.config(), "random").train(train)
    with pretending(model), torch.set_grad_enabled(train):
        check(model(depth_batch(options.all_frame_ids)))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("encoder", ["hybrid", "resnet"])
def test_two_frame_trainer(encoder: Any, train: bool) -> None:
    options = ManydepthOptions(**SIZE, encoder=encoder, teacher_encoder=encoder, num_matching_frames=2)
    model = TwoFrameDepth(options, options.config(), "random").train(train)
    with pretending(model), torch.set_grad_enabled(train):
        data = depth_batch(options.loaded_ids)
        check(model(data))
        if not train:
            assert {depth.device for depth in model.inverse_depths(data)} == {GPU}


@pytest.mark.parametrize("region", [False, True])
def test_stage_1(region: bool) -> None:
    options = PretrainOptions(data=("synthetic:0",), preset="tiny", weights_init="scratch", region=region)
    model = Stage1Model(HybridEncoder(stage1_config(options.config())), options).train()
    with pretending(model):
        points = torch.rand(3, 7, 2, device=GPU)
        check(
            model(
                Stage1Batch(
                    torch.rand(2, 3, H, W, device=GPU), points, torch.zeros(3, dtype=torch.long, device=GPU), []
                )
            )
        )
        assert model.encoder.closeness(torch.rand(2, 3, H, W, device=GPU)).device == GPU


def test_matching_without_kept_pixels() -> None:
    with pretending(nn.Identity()):
        current, lookup = torch.rand(1, 8, 16, 24, device=GPU), torch.rand(1, 1, 8, 16, 24, device=GPU)
        eye = torch.eye(4, device=GPU).expand(1, 1, 4, 4)
        frames = Lookup(lookup, eye, eye[:, 0, :3, :3], eye[:, 0, :3, :3])
        found = match(current, frames, torch.linspace(1, 9, 4, device=GPU))
        assert found.cost.device == GPU
