"""What runs on a GPU computes what a CPU computes, also in bf16, compiled, resumed and fed by pinned memory.

`make gpu` begins with these. Where there is no GPU, each runs on the CPU, which shows that the test itself is right.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from hybrid_encoder.commands.measuring import frames_in_memory
from hybrid_encoder.data.loader import LoaderOptions, make_loader
from hybrid_encoder.engine.inference import inference, prepare
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.engine.signals import Interrupted
from hybrid_encoder.engine.step import Stepper
from hybrid_encoder.images import resize_image
from hybrid_encoder.model.depth_model import DepthModel
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.options import Precision
from hybrid_encoder.stage1.dataset import Stage1Batch
from hybrid_encoder.stage1.model import Stage1Model, stage1_config
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage2.losses import photometric_error
from hybrid_encoder.stage2.model import DepthBatch, MonoDepth
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.stage2.ssim_kernel import Target, reprojection_loss
from hybrid_encoder.synthetic.sequence import render_sequence
from hybrid_encoder.two_frame.cost_volume import Lookup, match
from hybrid_encoder.two_frame.model import TwoFrameDepth
from hybrid_encoder.two_frame.options import ManydepthOptions

from . import toy_run

H, W = 64, 96
SIZE: dict[str, Any] = {"preset": "tiny", "weights_init": "scratch", "height": H, "width": W}
NETS: dict[str, dict[str, Any]] = {
    "hybrid": {"encoder": "hybrid", "pose_model_type": "class_token", "text_weight": 0.1},
    "hybrid, U-Net": {"encoder": "hybrid", "decoder": "unet", "pose_model_type": "shared"},
    "ResNet-18": {"encoder": "resnet", "scales": (0, 1, 2, 3)},
}
Batch = TypeVar("Batch", DepthBatch, Stage1Batch)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The GPU computes in float32 as such: TensorFloat-32 keeps three digits."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU here: `make gpu` runs this where there is one")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield torch.device(request.param)
    torch.backends.cudnn.allow_tf32 = before


def error(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    assert found.isfinite().all()
    return float((found - expected).norm() / expected.norm())


def moved(batch: Batch, move: Callable[[Tensor], Tensor]) -> Batch:
    """A batch with all its tensors of numbers moved or converted."""

    def each(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: each(part) for key, part in value.items()}
        return move(value) if isinstance(value, Tensor) else value

    return replace(batch, **{name: each(value) for name, value in vars(batch).items()})


def mono(**changes: Any) -> MonoDepth:
    torch.manual_seed(0)
    options = Monodepth2Options(**SIZE, disable_automasking=True, **changes)
    return MonoDepth(options, options.config(), "random").train()


def two_frame() -> TwoFrameDepth:
    """In eval mode, as training draws at random which lookup frames are seen."""
    torch.manual_seed(0)
    options = ManydepthOptions(**SIZE, encoder="hybrid", teacher_encoder="hybrid", num_depth_bins=8)
    return TwoFrameDepth(options, options.config(), "random").eval()


def stage1() -> Stage1Model:
    torch.manual_seed(0)
    options = PretrainOptions(data=("synthetic:0",), preset="tiny", weights_init="scratch")
    return Stage1Model(HybridEncoder(stage1_config(options.config())), options).train()


def stage1_batch() -> Stage1Batch:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(3, 7, 2, generator=generator) * (torch.tensor([W, H]) - 1)
    images = torch.rand(2, 3, H, W, generator=generator)
    return Stage1Batch(images, points, torch.tensor([0, 0, 1]), ["", ""])


def loss_and_gradient(model: nn.Module, batch: Any, precision: Precision = "float32") -> tuple[Tensor, Tensor]:
    """The loss, and all gradients in one vector, by the trainers' own step."""
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(model.parameters(), lr=0)
    stepper = Stepper(model, model, Processes(device), precision, None)
    loss = stepper.run(optimizer, batch, ["sample"], 0, 1)["loss"]
    return loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def as_on_a_cpu(build: Callable[[], nn.Module], batch: Any, device: torch.device) -> None:
    """A training step's loss and gradient, as the trainers place nets on the device, are those of the CPU."""
    expected, expected_gradient = loss_and_gradient(build(), batch)
    model = build()
    Processes(device).place(model)
    found, gradient = loss_and_gradient(model, moved(batch, lambda t: t.to(device)))
    assert found.device.type == device.type
    assert error(found, expected) < 1e-4
    assert error(gradient, expected_gradient) < 2e-2


@pytest.mark.parametrize("net", NETS)
def test_a_step_of_one_frame(net: str, device: torch.device) -> None:
    as_on_a_cpu(lambda: mono(**NETS[net]), frames_in_memory(2, H, W), device)


def test_a_step_of_stage_1(device: torch.device) -> None:
    as_on_a_cpu(stage1, stage1_batch(), device)


def test_two_frames(device: torch.device) -> None:
    with torch.no_grad():
        batch = frames_in_memory(2, H, W)
        (expected, expected_teacher) = two_frame().inverse_depths(batch)
        model = two_frame()
        Processes(device).place(model)
        found, teacher = model.inverse_depths(moved(batch, lambda t: t.to(device)))
    assert error(teacher, expected_teacher) < 1e-4
    assert error(found, expected) < 1e-3


def test_the_photometric_kernel_is_its_formula(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    target, predicted = torch.rand(2, 2, 3, 24, 40, generator=generator)
    plain = predicted.double().requires_grad_()
    expected = photometric_error(target.double(), plain)
    expected.square().sum().backward()
    kernel = predicted.to(device).requires_grad_()
    found = reprojection_loss(Target.of(target.to(device)), kernel)
    found.square().sum().backward()
    assert kernel.grad is not None
    assert plain.grad is not None
    assert error(found, expected) < 1e-5
    assert error(kernel.grad, plain.grad) < 1e-4


@pytest.mark.parametrize("max_bytes", [None, 1 << 16])
def test_the_cost_volume(max_bytes: int | None, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    current, lookup = torch.rand(2, 8, 16, 24, generator=generator), torch.rand(2, 1, 8, 16, 24, generator=generator)
    K = torch.tensor([[14.0, 0, 12], [0, 30.7, 8], [0, 0, 1]]).expand(2, 3, 3)
    poses = torch.eye(4).repeat(2, 1, 1, 1)
    poses[..., :3, 3] = torch.tensor([0.31, 0.07, -0.13])  # no point falls on the border of the frame
    given = [current, lookup, poses, K, torch.linalg.inv(K), torch.linspace(1, 9, 6)]

    def matched(values: list[Tensor]) -> Tensor:
        now, *frames, depths = values
        return match(now, Lookup(*frames), depths, max_bytes=max_bytes).cost

    expected = matched([value.double() for value in given])
    assert error(matched([value.to(device) for value in given]), expected) < 1e-4


@pytest.mark.parametrize("net", ["hybrid", "ResNet-18"])
def test_bf16(net: str, device: torch.device) -> None:
    """A step's loss within a hundredth, its gradient in the same direction, and inference within three hundredths."""
    if device.type == "cpu" and net == "ResNet-18":
        pytest.skip("CPUs without bf16 take 13 s for it: `make gpu` runs it on a GPU")
    batch = moved(frames_in_memory(2, H, W), lambda t: t.to(device))
    found = []
    for precision in ("float32", "bf16"):
        model = mono(**NETS[net])
        Processes(device).place(model)
        found.append(loss_and_gradient(model, batch, precision))
    (expected, full), (loss, gradient) = found
    assert error(loss, expected) < 0.01
    assert gradient.dtype == torch.float32
    assert float(nn.functional.cosine_similarity(full, gradient, dim=0)) > 0.9
    prepare(model, device)
    depths = []
    for precision in ("float32", "bf16"):
        with inference(device, precision):
            depths.append(model.disparity(batch.frames[0]))
    assert depths[1].dtype == torch.float32
    assert error(depths[1], depths[0]) < 0.03


def test_the_shipped_model_sees_the_same(device: torch.device) -> None:
    """Trained weights, a rendered frame: no pixel's depth differs by a thousandth."""
    model = DepthModel.from_pretrained("tiny-rendered").eval()
    frame = render_sequence(0, 1, model.height, model.width).images[0].permute(1, 2, 0).numpy()
    image = torch.from_numpy(resize_image(frame, model.height, model.width)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        expected = model.double().disparity(image.double())
    model = prepare(model.float(), device)
    with inference(device):
        found = model.disparity(image).cpu()
    assert float((found / expected - 1).abs().max()) < 1e-3


@pytest.mark.skipif("GPU_DAY" not in os.environ, reason="takes a minute to compile: `make gpu` does")
def test_compiled(device: torch.device) -> None:
    """Inference and a training step, translated by torch.compile."""
    batch = moved(frames_in_memory(2, H, W), lambda t: t.to(device))
    model = mono(**NETS["hybrid"])
    Processes(device).place(model)
    expected, full = loss_and_gradient(model, batch)
    model.zero_grad()
    compiled: Any = torch.compile(model)
    loss = compiled(batch)["loss"]
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert error(loss, expected) < 1e-4
    assert error(gradient, full) < 2e-2
    prepare(model, device)
    with inference(device):
        depth = model.disparity(batch.frames[0])
        assert error(torch.compile(model.disparity)(batch.frames[0]), depth) < 1e-4


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(device: torch.device, tmp_path: Path) -> None:
    """Bit for bit: dropout's random numbers, batch norm's statistics and the optimiser's state are the device's."""
    processes = Processes(device)
    whole = toy_run.run(tmp_path / "whole", processes=processes)
    with pytest.raises(Interrupted):
        toy_run.run(tmp_path / "stopped", toy_run.signal_at(7), processes=processes)
    resumed = toy_run.run(tmp_path / "stopped", processes=processes)
    assert next(resumed.model.parameters()).device.type == device.type
    assert toy_run.differences(resumed.model.state_dict(), whole.model.state_dict()) == []
    assert toy_run.differences(resumed.optimizer.state_dict(), whole.optimizer.state_dict()) == []


def test_batches_of_pinned_memory_arrive_whole(device: torch.device) -> None:
    """Copies run beside the nets' work, which here is on a second stream; every batch is what the loader read."""
    on_gpu = device.type == "cuda"
    second: Any = torch.cuda.stream(torch.cuda.Stream()) if on_gpu else nullcontext()
    options = LoaderOptions(num_workers=2, pin_memory=on_gpu)
    plain = make_loader(toy_run.ToyDataset(), toy_run.BATCH, train=False)
    expected = torch.cat([batch["x"] for batch in plain])
    busy, arrived = torch.rand(1024, 1024, device=device), []
    for batch in make_loader(toy_run.ToyDataset(), toy_run.BATCH, train=False, options=options):
        assert batch["x"].is_pinned() == on_gpu
        with second:
            busy = (busy @ busy).softmax(0)
        arrived.append(batch["x"].to(device, non_blocking=True))
    assert torch.equal(torch.cat(arrived).cpu(), expected)
