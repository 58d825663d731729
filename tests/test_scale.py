"""What makes training lighter or wider must not change what is learnt: processes, recomputation, compilation, bf16."""

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.multiprocessing import start_processes

from hybrid_encoder import DPTDecoder, UserError, create_encoder
from hybrid_encoder.data.sample import FrameId
from hybrid_encoder.engine import allocator
from hybrid_encoder.engine.activation_checkpointing import checkpoint_activations
from hybrid_encoder.engine.processes import Processes, leave
from hybrid_encoder.engine.step import Stepper
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.model.resnet import ResnetEncoder
from hybrid_encoder.stage1.dataset import Stage1Batch
from hybrid_encoder.stage1.model import Stage1Model, stage1_config
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage2.model import DepthBatch, MonoDepth
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.two_frame.model import TwoFrameDepth
from hybrid_encoder.two_frame.options import ManydepthOptions

HEIGHT, WIDTH = 64, 96


def make_model(**changes: Any) -> MonoDepth:
    torch.manual_seed(0)
    options = Monodepth2Options(preset="tiny", weights_init="scratch", height=HEIGHT, width=WIDTH, **changes)
    return MonoDepth(options, options.config(), "random").train()


def make_batch(count: int) -> DepthBatch:
    generator = torch.Generator().manual_seed(1)
    frames: dict[FrameId, Tensor] = {i: torch.rand(count, 3, HEIGHT, WIDTH, generator=generator) for i in (0, -1, 1)}
    K = torch.tensor([[40.0, 0, 32], [0, 60, 16], [0, 0, 1]]).expand(count, 3, 3)
    return DepthBatch(frames, frames, K, torch.eye(4).expand(count, 4, 4), [""] * count)


def part(batch: DepthBatch, rows: slice) -> DepthBatch:
    frames: dict[FrameId, Tensor] = {i: image[rows] for i, image in batch.frames.items()}
    return DepthBatch(frames, frames, batch.K[rows], batch.stereo_T[rows], batch.sample_names[rows])


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def without_batch_norm() -> MonoDepth:
    """DINO alone, and poses from its class tokens; automasking breaks ties at random."""
    return make_model(encoder_option=("image_tower=null",), pose_model_type="class_token", disable_automasking=True)


def _half(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for batches in (1, 2):
        model, processes = without_batch_norm(), Processes(torch.device("cpu"), rank, 2)
        stepper = Stepper(model, processes.wrap(model), processes, "float32", None)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad])
        size = 2 // batches
        for i in range(batches):
            first = 2 * rank + i * size
            assert stepper.run(optimizer, part(make_batch(4), slice(first, first + size)), [], i, batches)
        if rank == 0:
            torch.save(gradients(model), f"{folder}/gradients_{batches}.pth")
    leave()


def test_two_processes_of_two_equal_one_of_four(tmp_path: Path) -> None:
    """Also where each of them adds up two batches of one."""
    start_processes(_half, (str(tmp_path),), nprocs=2, start_method="fork")
    model = without_batch_norm()
    model(make_batch(4))["loss"].backward()
    one = gradients(model)
    assert sum(float(gradient.abs().sum()) for gradient in one.values()) > 0
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    for batches in (1, 2):
        two = torch.load(tmp_path / f"gradients_{batches}.pth", weights_only=True)
        assert set(one) == set(two)
        for name, gradient in one.items():
            assert (gradient - two[name]).abs().max() < 1e-5 * largest, (batches, name)


def test_sync_bn_says_that_it_needs_gpus() -> None:
    with pytest.raises(UserError, match="--sync_bn"):
        Processes(torch.device("cpu"), 0, 2).wrap(nn.BatchNorm2d(1), sync_bn=True)


@pytest.mark.parametrize("kind", ["hybrid", "resnet"])
def test_recomputed_activations_give_the_same_step(kind: str) -> None:
    """Loss, gradients and running statistics; and less is kept for the backward pass."""
    results, kept = [], []
    for recompute in (False, True):
        model = make_model(encoder=kind)
        if recompute:
            assert checkpoint_activations(model) > 8
        torch.manual_seed(2)
        sizes: list[int] = []

        def keep(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(make_batch(2))["loss"]
        loss.backward()
        kept.append(sum(sizes))
        results.append((loss.detach(), gradients(model), dict(model.named_buffers())))
    (loss, grads, buffers), (loss2, grads2, buffers2) = results
    assert torch.equal(loss, loss2)
    assert set(grads) == set(grads2)
    assert all(torch.allclose(grads[name], grads2[name], rtol=1e-4, atol=1e-7) for name in grads)
    assert any(name.endswith("running_mean") for name in buffers)
    assert all(torch.equal(buffers[name], buffers2[name]) for name in buffers)
    assert kept[1] < 0.8 * kept[0]


def test_compile_and_recompute_are_told_apart() -> None:
    options = Monodepth2Options(compile=True, checkpoint_activations=True)
    with pytest.raises(UserError, match="--checkpoint_activations"):
        options.check()


@pytest.mark.parametrize("net", ["encoder", "resnet"])
def test_nets_compile_without_a_graph_break(net: str) -> None:
    """fullgraph=True raises at a break; the backend that only traces is enough to see one.

    The next test does so in training.
    """
    image = torch.rand(1, 3, 64, 96)
    torch._dynamo.reset()
    if net == "resnet":
        plain: Any = ResnetEncoder(18, "random").eval()
        expected, compiled = plain(image)[-1], torch.compile(plain, backend="eager", fullgraph=True)
        assert torch.allclose(compiled(image)[-1], expected, atol=1e-5)
        return
    torch.manual_seed(0)
    encoder = create_encoder("tiny", pyramid=False)
    decoder = DPTDecoder(encoder)

    def see(image: Tensor, text: Tensor | None) -> Tensor:
        assert encoder.image_tower is not None
        disparity: Tensor = decoder(encoder.combine(image, encoder.image_tower(image), text))["disp", 0]
        return disparity

    encoder.eval()
    with torch.no_grad():
        expected = decoder(encoder.forward_features(image))["disp", 0]
        assert torch.allclose(torch.compile(see, backend="eager", fullgraph=True)(image, encoder.text()), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": "hybrid", "pose_model_type": "class_token", "text_weight": 0.1},
        {"encoder": "resnet", "pose_model_type": "separate_resnet"},
    ],
    ids=["hybrid", "resnet"],
)
def test_a_training_step_compiles_without_a_graph_break(changes: dict[str, Any]) -> None:
    """Losses, warps and text included; loss and gradients as without."""
    torch._dynamo.reset()
    batch, found = make_batch(2), []
    for compiled in (False, True):
        model = make_model(**changes)
        run: Any = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
        torch.manual_seed(3)
        loss = run(batch)["loss"]
        loss.backward()
        found.append((loss.detach(), gradients(model)))
    (plain, expected), (traced, grads) = found
    assert torch.allclose(plain, traced, rtol=1e-6)
    assert set(grads) == set(expected)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        assert (grads[name] - gradient).abs().max() < 1e-4 * largest, name


def test_two_frame_steps_are_compiled_once() -> None:
    settings: dict[str, Any] = {"preset": "tiny", "weights_init": "scratch", "height": HEIGHT, "width": WIDTH}
    options = ManydepthOptions(**settings, encoder="hybrid", teacher_encoder="hybrid", num_depth_bins=8)
    model = TwoFrameDepth(options, options.config(), "random").train()
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for _ in range(3):
        compiled(make_batch(2))["loss"].backward()
    assert counters["stats"]["unique_graphs"] == 1


def test_stage_1_is_not_compiled_for_every_number_of_lanes() -> None:
    options = PretrainOptions(data=("synthetic:0",), preset="tiny", weights_init="scratch")
    model = Stage1Model(HybridEncoder(stage1_config(options.config())), options).train()
    torch._dynamo.reset()
    counters.clear()
    compiled, graphs = torch.compile(model, backend="eager"), []
    for lanes in (3, 5, 4, 6, 7):
        points = WIDTH / 2 * torch.rand(lanes, 7, 2)
        compiled(Stage1Batch(torch.rand(2, 3, HEIGHT, WIDTH), points, torch.zeros(lanes, dtype=torch.long), []))
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[1:] == [graphs[1]] * 4


def test_compiled_encoder_never_reads_stale_text() -> None:
    torch._dynamo.reset()
    encoder = create_encoder("tiny", pyramid=False).eval()
    compiled = torch.compile(encoder.forward_features, backend="eager")
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for _ in range(3):
            assert torch.allclose(compiled(image).logits[0], encoder.forward_features(image).logits[0], atol=1e-4)
            encoder.language.tokens.add_(torch.randn_like(encoder.language.tokens))


def test_bf16_stays_close_to_float32() -> None:
    """Logits are products of bf16 numbers whose lengths are float32; disparity is float32 from the head on."""
    torch.manual_seed(0)
    encoder = create_encoder("tiny", pyramid=False).eval()
    decoder = DPTDecoder(encoder).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        features = encoder.forward_features(image)
        exact = decoder(features)["disp", 0]
        with torch.autocast("cpu", torch.bfloat16):
            rough_features = encoder.forward_features(image)
            rough = decoder(rough_features)["disp", 0]
    assert rough_features.logits[0].dtype == torch.bfloat16
    spread = float(features.logits[0].std())
    assert (rough_features.logits[0].float() - features.logits[0]).abs().mean() < 0.05 * spread
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.02 * float(exact.mean())


def test_freed_memory_is_kept() -> None:
    """The heap of a bare process, after 24 MiB came and went."""
    libc = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if libc is None:
        pytest.skip("the C library is not glibc: memory is managed its own way")
    program = """
import ctypes, runpy, sys
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes, libc.sbrk.argtypes = [ctypes.c_size_t], [ctypes.c_void_p], [ctypes.c_ssize_t]
module = runpy.run_path(sys.argv[1])
if sys.argv[2] == "keep":
    module["keep_freed_memory"]()
before = libc.sbrk(0)
libc.free(libc.malloc(24 << 20))
print(libc.sbrk(0) - before)
"""
    grown = {}
    for how in ("keep", "return"):
        command = [sys.executable, "-c", program, allocator.__file__, how]
        grown[how] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown["return"] < 1 << 20 < 23 << 20 < grown["keep"]
