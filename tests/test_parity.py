"""The authors' training steps and their ManyDepth fork on equal weights and inputs: the same numbers.

The numbers in tests/data are theirs; how tensors and inputs are filled is said in `released_files`. The table of
docs/METHOD.md, theirs, ours and the difference, is what this prints:

    HYBRID_ENCODER_SLOW_TESTS=1 pytest tests/test_parity.py -s
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybrid_encoder.config import preset
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.encoder import HybridEncoder, create_encoder
from hybrid_encoder.released import single_frame, two_frame
from hybrid_encoder.released.names import decoder_tensors, encoder_tensors
from hybrid_encoder.stage1.dataset import Stage1Batch
from hybrid_encoder.stage1.model import Stage1Model, stage1_config
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage2 import objective, poses
from hybrid_encoder.stage2.model import DepthBatch, MonoDepth
from hybrid_encoder.stage2.options import DepthOptions
from hybrid_encoder.two_frame import checkpoint
from hybrid_encoder.two_frame.matching import Matched
from hybrid_encoder.two_frame.objective import find_consistency_mask, two_frame_loss
from hybrid_encoder.two_frame.options import ManydepthOptions
from hybrid_encoder.weights.reading import load_state

from .released_files import (
    DATA,
    KEYS,
    alive_head,
    manydepth_files,
    no_random_start,
    parity_files,
    parity_image,
    parity_tensors,
    pose_tensors,
    smooth_noise,
    teacher_files,
)

NUMBER, GRADIENT = 1e-4, 2e-3
"""How far our numbers, and our gradients, may be from theirs, relative to these."""
TABLE: list[str] = []
INTRINSICS = torch.tensor([[[0.58 * 672, 0, 336], [0, 1.92 * 224, 112], [0, 0, 1]]])


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Prints what `row` has noted."""
    yield
    print("\n| what | theirs | ours | difference |\n|---|---|---|---|", *TABLE, sep="\n")


def row(what: str, theirs: float, ours: float, difference: float, most: float = NUMBER) -> None:
    """A row of the table, whose relative difference is at most `most`."""
    TABLE.append(f"| {what} | {theirs:.8g} | {ours:.8g} | {difference:.1e} |")
    assert difference <= most, what


@pytest.fixture(scope="module")
def parity() -> dict[str, dict[str, Tensor]]:
    """encoder.pth and depth.pth, whose tensors nobody changes."""
    return parity_files()


@pytest.fixture(name="no_random_start")
def _no_random_start() -> Iterator[None]:
    with no_random_start():
        yield


def norms(model: nn.Module) -> dict[str, float]:
    """Of the gradients of all parameters that have one."""
    return {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}


def close(ours: Tensor, theirs: np.ndarray | Tensor, what: str, most: float = NUMBER) -> None:
    """A row for one number, or for many: their root mean squares, and the largest difference as a share of the largest
    number of theirs."""
    expected = torch.as_tensor(theirs).double().reshape(ours.shape)
    found = ours.detach().double()
    difference = (found - expected).abs().max() / expected.abs().max()
    sizes = [x.item() if x.numel() == 1 else x.square().mean().sqrt().item() for x in (expected, found)]
    row(what, sizes[0], sizes[1], difference.item(), most)


def from_webp(file: np.ndarray) -> Tensor:
    """(3, H, W) in [0, 1] of a lossless picture."""
    pixels = cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def named_norms(file: str, prefix: str, encoder: HybridEncoder | None = None) -> dict[str, float]:
    """Norms of the authors' gradients under our names.

    Args:
        file: in tests/data.
        prefix: of their names, e.g. "depth.".
        encoder: whose names they get; None: the decoder's, or a pose net's, which are theirs.
    """
    found = json.loads((DATA / file).read_text()).items()
    kept = {k.removeprefix(prefix): v for k, v in found if v is not None and k.startswith(prefix)}
    tokens = [kept.pop(name) for name in list(kept) if name.startswith("extra_tkns")]
    values = {name: torch.tensor(norm, dtype=torch.float64) for name, norm in kept.items()}
    # Embeddings have as many rows as CLIP has words; that of their gradient's norm is one number.
    whole = {
        name: values.pop(name)
        for name in ("clip.token_embedding.weight", "clip.positional_embedding")
        if name in values
    }
    if encoder is not None:
        values = encoder_tensors(values, encoder, "x", ("depth_head.*",))
        values.pop("language.tokens", None)
    elif prefix == "depth.":
        values = decoder_tensors(values)
    norms = {name: value.item() for name, value in values.items()}
    if tokens:
        norms["language.tokens"] = sum(norm**2 for norm in tokens) ** 0.5
    ours = {"clip.token_embedding.weight": "language.embedding", "clip.positional_embedding": "language.position"}
    return norms | {ours[name]: value.item() for name, value in whole.items()}


def compare(what: str, ours: dict[str, float], theirs: dict[str, float], each: float = GRADIENT) -> None:
    """A row for the norm of a net's gradient; those of its tensors are within `each`."""
    assert set(ours) == set(theirs), what
    assert theirs, what
    found, expected = (sum(value**2 for value in norms.values()) ** 0.5 for norms in (ours, theirs))
    row(what, expected, found, abs(found / expected - 1), GRADIENT)
    differs = {name: abs(ours[name] / norm - 1) for name, norm in theirs.items()}
    worst = max(differs, key=lambda name: differs[name])
    row(f"{what}, worst of {len(differs)}: {worst}", theirs[worst], ours[worst], differs[worst], each)


def stage_2_model(parity: dict[str, dict[str, Tensor]]) -> MonoDepth:
    """Filled by the parity rule, in training mode; what trains is what trained in the released run."""
    options = DepthOptions(head="relu", pose_normalization="none")
    config = preset("released").replace(num_tokens=16, train_text="ends").without_downloads()
    model = MonoDepth(options, config, "random").train()
    encoder = cast(HybridEncoder, model.encoder)
    assert model.poses is not None
    assert model.poses.pose_encoder is not None
    load_state(encoder, encoder_tensors(parity["encoder.pth"], encoder, "x"), "x")
    load_state(model.depth, decoder_tensors(alive_head(parity["depth.pth"])), "x")
    load_state(model.poses.pose_encoder, pose_tensors(model.poses.pose_encoder, "pose_encoder."), "x")
    load_state(model.poses.pose, pose_tensors(model.poses.pose, "pose."), "x")
    return model


def stage_2_step(model: MonoDepth, dtype: torch.dtype = torch.float32) -> tuple[objective.Objective, Any]:
    """One step of the model, of this precision: the loss, and what the nets have predicted."""
    base = parity_image(11, 700)
    frames = {i: base[..., 14 + 3 * i : 686 + 3 * i] for i in (0, -1, 1)}
    seen = {i: (0.9 * frame + 0.05).to(dtype) for i, frame in frames.items()}
    compared = {i: frame.to(dtype) for i, frame in frames.items()}
    still = torch.eye(4, dtype=dtype)[None]
    batch = DepthBatch(cast(Any, compared), cast(Any, seen), INTRINSICS.to(dtype), still, ["x"])
    predicted = model.predict(batch)
    found = objective.self_supervised_loss(
        predicted.disparities, model.view_of(batch), predicted.poses, model.objective
    )
    found.loss.backward()
    return found, predicted


def stage_2_norms(model: MonoDepth) -> dict[str, tuple[dict[str, float], dict[str, float]]]:
    """Norms of gradients by part of the model: ours and theirs."""
    file = "released_step_norms.json"
    theirs = named_norms(file, "encoder.", cast(HybridEncoder, model.encoder))
    ours = norms(model.encoder)
    parts = {
        "depth tokens": "language.tokens",
        "text tower": "language.",
        "CLIP image trunk": "image_tower.",
        "fusion": "fusion.",
        "DINO's last block": "dino.",
    }
    found = {}
    for what, prefix in parts.items():
        found[what] = tuple({k: n.pop(k) for k in list(n) if k.startswith(prefix)} for n in (ours, theirs))
    assert not ours
    assert not theirs
    assert model.poses is not None
    nets = {"depth": model.depth, "pose_encoder": model.poses.pose_encoder, "pose": model.poses.pose}
    for name, what in {"depth": "decoder", "pose_encoder": "pose ResNet", "pose": "pose decoder"}.items():
        found[what] = norms(cast(nn.Module, nets[name])), named_norms(file, f"{name}.")
    return cast(Any, found)


@pytest.mark.usefixtures("no_random_start")
def test_a_stage_2_step_equals_the_authors(
    parity: dict[str, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "TIE_BREAK", 0)
    model = stage_2_model(parity)
    found, predicted = stage_2_step(model)
    encoder = cast(HybridEncoder, model.encoder)
    with np.load(DATA / "released_step.npz") as theirs:
        assert theirs["loss"].item() == pytest.approx(0.12378308, abs=1e-8)
        close(found.loss, theirs["loss"], "stage 2: loss")
        close(found.smoothness, theirs["smooth"], "stage 2: smoothness")
        close(predicted.disparities["disp", 0][0, 0, ::4, ::4], theirs["disp"], "stage 2: disparity")
        for i in (-1, 1):
            close(predicted.poses[i][0], theirs[f"cam_{i}"], f"stage 2: pose {i}")
        assert encoder.language.tokens.grad is not None
        close(encoder.language.tokens.grad, theirs["tok_grad"], "stage 2: gradient of each token", GRADIENT)
        mean = cast(Any, encoder.image_tower).stem.bn1.running_mean
        close(mean, theirs["bn1_running_mean"], "stage 2: running mean of CLIP's first batch norm")
    for what, both in stage_2_norms(model).items():
        # In float32, the trunk's first layers are uncertain by 1%: see the test in float64.
        compare(f"stage 2: gradient norm, {what}", *both, 1e-2 if what == "CLIP image trunk" else GRADIENT)


@pytest.mark.skipif("HYBRID_ENCODER_SLOW_TESTS" not in os.environ, reason="minutes: set HYBRID_ENCODER_SLOW_TESTS=1")
@pytest.mark.usefixtures("no_random_start")
def test_what_gradients_differ_by_is_rounding(
    parity: dict[str, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step in float64, with their weights and inputs, is what both float32 steps are close to.

    Single tensors of theirs are within 2e-3 of it, but for a few of the first layers of CLIP's trunk, through whose
    batch norms, of random numbers and one image, the gradient comes last; there, they are closer than our own float32
    step is. The loss is within 1e-5.
    """
    monkeypatch.setattr(objective, "TIE_BREAK", 0)
    model = stage_2_model(parity)
    stage_2_step(model)
    rough = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
    del model
    model = stage_2_model(parity).double()
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    found, _ = stage_2_step(model, torch.float64)
    with np.load(DATA / "released_step.npz") as theirs:
        close(found.loss, theirs["loss"], "stage 2 in float64: loss", 1e-5)
    exact = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    rounding = {name: ((rough[name] - g).norm() / g.norm()).item() for name, g in exact.items()}
    prefixes = {"decoder": "depth.", "pose ResNet": "poses.pose_encoder.", "pose decoder": "poses.pose."}
    differs: dict[str, float] = {}
    for what, (ours, theirs) in stage_2_norms(model).items():
        compare(f"stage 2 in float64: gradient norm, {what}", ours, theirs, 1e-2)
        prefix = prefixes.get(what, "encoder.")
        differs |= {f"{prefix}{name}": abs(ours[name] / norm - 1) for name, norm in theirs.items()}
    assert set(differs) == set(exact)
    uncertain = [name for name, difference in differs.items() if difference > GRADIENT]
    assert all(name.startswith("encoder.image_tower.") for name in uncertain)
    assert len(uncertain) < 0.05 * len(differs)
    for name in uncertain:
        assert differs[name] < rounding[name], name
    what = f"stage 2 in float64: gradients that differ by more than {GRADIENT:.0e}"
    TABLE.append(f"| {what} | | | {len(uncertain)} of {len(differs)} |")


def in_memory(monkeypatch: pytest.MonkeyPatch, files: dict[str, dict[str, Any]], tmp_path: Path) -> Path:
    """A folder whose files are in memory alone: those of the paper's size are gigabytes."""
    for name in files:
        (tmp_path / f"{name}.pth").touch()

    def tensors(path: Path) -> dict[str, Tensor]:
        return {name: value for name, value in files[Path(path).stem].items() if isinstance(value, Tensor)}

    for module in (single_frame, two_frame, checkpoint, poses):
        for name, read in (("read_checkpoint", lambda path: files[Path(path).stem]), ("read_tensors", tensors)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, read)
    return tmp_path


@pytest.mark.usefixtures("no_random_start")
@torch.no_grad()
def test_manydepth_equals_the_authors(
    parity: dict[str, dict[str, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = parity_image(31, 700)
    current, previous = base[..., 14:686], base[..., 11:683]
    model = checkpoint.load_two_frame_model(in_memory(monkeypatch, manydepth_files(parity), tmp_path))
    assert (
        "two frames; 16 tokens; CLIP and DINO, interp_conv1x1, alignment=concat; CLIP sees images with ImageNet's"
        in capsys.readouterr().err
    )
    pose = torch.eye(4)[None, None].clone()
    pose[..., :3, 3] = torch.tensor([0.03, 0.01, -0.15])
    disparities, found = model.net(current, previous[:, None], pose, INTRINSICS)
    text = model.net.encoder.encoder.language.text_features().T  # type: ignore[union-attr]
    axis_angle, translation = model.poses.motions([(previous, current)])
    ours = {"disp": disparities["disp", 0][0, 0, ::4, ::4], "text": text[::4]}
    ours |= {"lowest_cost": found.lowest_cost, "confidence": found.confidence}
    ours |= {f"level{i}": level[0, ::16, ::2, ::3] for i, level in enumerate(found.features.fused)}
    ours["level_absmean"] = torch.stack([level.double().abs().mean() for level in found.features.fused])
    ours |= {"pose_axisangle": axis_angle, "pose_translation": translation}
    ours["pose_matrix"] = model.poses(None, {0: current, -1: previous})[-1]
    with np.load(DATA / "manydepth_outputs.npz") as theirs:
        assert {name for name in theirs if not name.startswith("mono_")} == set(ours)
        # Where two bins cost the same, rounding decides.
        lowest, expected = ours.pop("lowest_cost")[0], torch.from_numpy(theirs["lowest_cost"])
        others = ((lowest - expected).abs() > NUMBER * expected).float().mean().item()
        what = "ManyDepth: lowest cost, share of cells whose bin is another"
        row(what, expected.mean().item(), lowest.mean().item(), others, 1e-3)
        for name, value in ours.items():
            close(value, theirs[name], f"ManyDepth: {name}")


@pytest.mark.skipif("HYBRID_ENCODER_SLOW_TESTS" not in os.environ, reason="20 s: set HYBRID_ENCODER_SLOW_TESTS=1")
@pytest.mark.usefixtures("no_random_start")
@torch.no_grad()
def test_manydepths_teacher_equals_the_authors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files: dict[str, dict[str, Any]] = {
        "encoder": {"min_depth_bin": 0.5, "height": 224, "width": 672},
        **teacher_files(),
    }
    teacher = single_frame.load_released_teacher(in_memory(monkeypatch, files, tmp_path))
    seen = teacher.encoder.forward_features(parity_image(31, 700)[..., 14:686])
    with np.load(DATA / "manydepth_outputs.npz") as theirs:
        close(teacher.decoder(seen)["disp", 0][0, 0, ::4, ::4], theirs["mono_disp"], "ManyDepth's teacher: disp")
        means = torch.stack([level.double().abs().mean() for level in seen.fused])
        close(means, theirs["mono_level_absmean"], "ManyDepth's teacher: levels")


def test_manydepths_losses_equal_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "TIE_BREAK", 0)
    with np.load(DATA / "manydepth_loss.npz") as file:
        theirs = {name: torch.from_numpy(file[name]) for name in file}
    base = smooth_noise(41, (2, 3, 64, 124), window=5)
    frames = {i: base[..., 14 + 3 * i : 110 + 3 * i] for i in (0, -1, 1)}
    mono_disp, disp = (
        (least + spread * smooth_noise(seed, (2, 1, 64, 96))).requires_grad_()
        for least, spread, seed in ((0.05, 0.02, 42), (0.04, 0.04, 43))
    )
    K = torch.tensor([[[0.58 * 96, 0, 48], [0, 1.92 * 64, 32], [0, 0, 1]]]).repeat(2, 1, 1)
    poses: dict[Any, Tensor] = {-1: theirs["T_1"], 1: theirs["T1"]}
    options = ManydepthOptions().objective()
    view = objective.View.of(cast(Any, frames), K, options)

    mono = objective.self_supervised_loss({("disp", 0): mono_disp}, view, poses, options)
    found = Matched(cast(Any, None), theirs["low"], theirs["conf"].float())
    trusted = find_consistency_mask(found, mono.depth)
    assert torch.equal(trusted[:, 0], theirs["mask"])
    unchanged = torch.tensor([True, False]).view(2, 1, 1, 1)
    two = two_frame_loss({("disp", 0): disp}, view, poses, {0: mono.depth}, trusted & unchanged, options)
    (mono.loss + two.loss).backward()
    assert mono_disp.grad is not None
    assert disp.grad is not None
    for name, ours in {"mono": mono.loss, "multi": two.loss, "reproj": two.photometric}.items():
        close(ours, theirs[name], f"ManyDepth: loss, {name}")
    close(two.consistency, theirs["consistency"], "ManyDepth: loss, consistency")
    close(mono_disp.grad[:, 0, ::2, ::2], theirs["g_mono"], "ManyDepth: gradient of the teacher's disparity", GRADIENT)
    close(disp.grad[:, 0, ::2, ::2], theirs["g"], "ManyDepth: gradient of the disparity", GRADIENT)


@pytest.mark.usefixtures("no_random_start")
def test_a_stage_1_step_equals_the_authors() -> None:
    keys = {f"model.{k}": v for k, v in KEYS["encoder.pth"].items() if not k.startswith("extra_tkns")}
    tensors = {k.removeprefix("model."): v for k, v in parity_tensors("stage1.", keys).items()}
    config = preset("released").replace(num_tokens=16, normalization="imagenet").without_downloads()
    options = PretrainOptions(data=("x",), ranking_mean="images", word_norm="matrix")
    encoder = single_frame.HybridEncoder(stage1_config(config).replace(train_dino_blocks=0))
    single_frame._fill_stage1(encoder, tensors, "x", ())
    model = Stage1Model(encoder, options).train()
    with np.load(DATA / "released_stage1_step.npz") as file:
        theirs = dict(file)
    images = torch.stack([from_webp(theirs[f"image{i}_webp"]) for i in range(2)])
    points = torch.from_numpy(theirs["coords"]).float() * (224 / 720)
    batch = Stage1Batch(images, points, torch.from_numpy(theirs["owner"]).long(), ["a", "b"])
    features, logits = model.logits(batch)
    model.logits = lambda _: (features, logits)  # type: ignore[method-assign]  # the towers need not run twice
    scalars = model(batch)
    scalars["loss"].backward()
    close(model._text()[:, ::4].T, theirs["text"], "stage 1: text")
    close(features[..., ::4], theirs["features"], "stage 1: features")
    close(logits, theirs["logits"], "stage 1: logits")
    for ours, name in (("ranking", "rank_loss"), ("contrastive", "contrastive_loss"), ("loss", "loss")):
        close(scalars[ours], theirs[name], f"stage 1: {name}")
    expected = named_norms("released_stage1_norms.json", "model.", encoder)
    compare("stage 1: gradient norm", norms(encoder), expected, 1e-2)


def test_each_tower_has_a_normalization_of_its_own(tmp_path: Path) -> None:
    encoder = create_encoder("tiny", normalization="imagenet", dino_normalization="none")
    assert encoder.image_tower is not None
    assert encoder.dino is not None
    assert encoder.image_tower.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    assert torch.equal(encoder.dino.std, torch.ones(1, 3, 1, 1))
    image = torch.rand(1, 3, 64, 96)
    expected = encoder.eval().forward_features(image).fused
    encoder.save_pretrained(tmp_path)
    for ours, theirs in zip(create_encoder(str(tmp_path)).forward_features(image).fused, expected, strict=True):
        assert torch.equal(ours, theirs)
    same, both = preset("released"), preset("released").replace(dino_normalization="none")
    both.check_same_features(same, "x")
    with pytest.raises(UserError, match="trained with dino_normalization='none', not 'imagenet'"):
        encoder.config.replace(dino_normalization="same").check_same_features(encoder.config, "x")
