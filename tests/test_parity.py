"""The authors' training steps and their ManyDepth fork on equal weights and inputs: the same numbers.

The numbers in tests/data are theirs; how tensors and inputs are filled is said in `released_files`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybrid_encoder.config import preset
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.encoder import create_encoder
from hybrid_encoder.model.pose import PoseDecoder
from hybrid_encoder.model.resnet import ResnetEncoder
from hybrid_encoder.released import single_frame, two_frame
from hybrid_encoder.released.names import decoder_tensors, encoder_tensors
from hybrid_encoder.stage1.dataset import Stage1Batch
from hybrid_encoder.stage1.model import Stage1Model, stage1_config
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage2 import objective
from hybrid_encoder.stage2.model import DepthBatch, MonoDepth
from hybrid_encoder.stage2.options import DepthOptions
from hybrid_encoder.two_frame import checkpoint
from hybrid_encoder.weights.reading import load_state

from .released_files import DATA, KEYS, alive_head, parity_files, parity_image, parity_tensors

INTRINSICS = torch.tensor([[[0.58 * 672, 0, 336], [0, 1.92 * 224, 112], [0, 0, 1]]])


@pytest.fixture(scope="module")
def parity() -> dict[str, dict[str, Tensor]]:
    """encoder.pth and depth.pth, whose tensors nobody changes."""
    return parity_files()


@pytest.fixture
def no_random_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every parameter is filled afterwards."""
    for name in ("trunc_normal_", "normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


def pose_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The tensors of a pose net, which has the authors' names, by the parity rule."""
    return parity_tensors(prefix, {k: (list(v.shape), "") for k, v in module.state_dict().items()})


def norms(model: nn.Module) -> dict[str, float]:
    """Of the gradients of all parameters that have one."""
    return {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}


def close(ours: Tensor, theirs: np.ndarray, what: str, rtol: float = 1e-4) -> None:
    """Relative to the largest number of theirs."""
    expected = torch.from_numpy(np.asarray(theirs)).to(ours.dtype).reshape(ours.shape)
    assert (ours.detach() - expected).abs().max() <= rtol * expected.abs().max(), what


def by_our_names(theirs: dict[str, float | None], encoder: nn.Module, prefix: str) -> dict[str, float]:
    """Norms of the authors' encoder gradients under our names; the text tower's, which we freeze, left out."""
    text = (
        "clip.token_embedding",
        "clip.positional",
        "clip.text_projection",
        "clip.ln_final",
        "extra_tkns",
        "clip.transformer",
    )
    kept = {
        name.removeprefix(prefix): torch.tensor(norm, dtype=torch.float64)
        for name, norm in theirs.items()
        if norm is not None and name.startswith(prefix) and not name.removeprefix(prefix).startswith(text)
    }
    named = encoder_tensors(kept, cast(Any, encoder), "x", ("depth_head.*",))
    return {name: value.item() for name, value in named.items() if name != "language.tokens"}


def compare(ours: dict[str, float], theirs: dict[str, float], rtol: float) -> None:
    """Norms of gradients, of a net as a whole within `rtol`.

    Those of single tensors differ by up to 1%: in float32, a ResNet of random numbers whose batch norm sees one image
    multiplies the rounding of the last layers on the way to the first ones.
    """
    assert set(ours) == set(theirs)
    whole, expected = (sum(value**2 for value in norms.values()) ** 0.5 for norms in (ours, theirs))
    assert whole == pytest.approx(expected, rel=rtol)
    for name, norm in theirs.items():
        assert ours[name] == pytest.approx(norm, rel=1e-2), name


@pytest.mark.usefixtures("no_random_start")
def test_a_stage_2_step_equals_the_authors(
    parity: dict[str, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "TIE_BREAK", 0)
    options = DepthOptions(head="relu", pose_normalization="none")
    config = preset("released").replace(num_tokens=16).without_downloads()
    model = MonoDepth(options, config, "random").train()
    assert model.poses is not None
    assert model.poses.pose_encoder is not None
    load_state(model.encoder, encoder_tensors(parity["encoder.pth"], cast(Any, model.encoder), "x"), "x")
    load_state(model.depth, decoder_tensors(alive_head(parity["depth.pth"])), "x")
    load_state(model.poses.pose_encoder, pose_tensors(model.poses.pose_encoder, "pose_encoder."), "x")
    load_state(model.poses.pose, pose_tensors(model.poses.pose, "pose."), "x")

    base = parity_image(11, 700)
    frames = {i: base[..., 14 + 3 * i : 686 + 3 * i] for i in (0, -1, 1)}
    seen = {i: 0.9 * frame + 0.05 for i, frame in frames.items()}
    batch = DepthBatch(cast(Any, frames), cast(Any, seen), INTRINSICS, torch.eye(4)[None], ["x"])
    features, disparities = model.see_frames(batch)
    poses = model.predict_poses(batch, features)
    view = objective.View.of(batch.frames, batch.K, model.objective)
    found = objective.self_supervised_loss(disparities, view, poses, model.objective)
    found.loss.backward()

    with np.load(DATA / "released_step.npz") as theirs:
        assert theirs["loss"].item() == pytest.approx(0.12378308, abs=1e-8)
        close(found.loss, theirs["loss"], "loss")
        close(found.smoothness, theirs["smooth"], "smooth")
        close(disparities["disp", 0][0, 0, ::4, ::4], theirs["disp"], "disp")
        for i in (-1, 1):
            close(poses[i][0], theirs[f"cam_{i}"], f"cam_{i}")
        close(cast(Any, model.encoder).language.tokens.grad, theirs["tok_grad"], "tok_grad", 2e-3)
        close(cast(Any, model.encoder).image_tower.stem.bn1.running_mean, theirs["bn1_running_mean"], "bn1")
    theirs = json.loads((DATA / "released_step_norms.json").read_text())
    expected = by_our_names(theirs, model.encoder, "encoder.")
    ours = norms(model.encoder)
    ours.pop("language.tokens")
    for part in ("image_tower.", "fusion.", "dino."):
        of_part = ({k: v for k, v in found.items() if k.startswith(part)} for found in (ours, expected))
        compare(*of_part, 1e-3)
    decoder = {k.removeprefix("depth."): torch.tensor(v) for k, v in theirs.items() if k.startswith("depth.")}
    compare(norms(model.depth), {k: v.item() for k, v in decoder_tensors(decoder).items()}, 1e-3)
    for net, prefix in ((model.poses.pose_encoder, "pose_encoder."), (model.poses.pose, "pose.")):
        named = {k.removeprefix(prefix): v for k, v in theirs.items() if k.startswith(prefix)}
        compare(norms(net), named, 1e-3)


def aliases() -> dict[str, str]:
    """The second names of the towers' layers in ManyDepth's encoder.pth, and the first ones."""
    second = {}
    for name in KEYS["encoder.pth"]:
        if name.startswith("dinov2.blocks."):
            block, rest = name.removeprefix("dinov2.blocks.").split(".", 1)
            second[f"layer{int(block) // 3 + 1}_dino.{int(block) % 3}.{rest}"] = name
        elif name.startswith("dinov2.norm."):
            second[name.replace("dinov2.norm", "dino_norm")] = name
        elif name.startswith("clip.visual.layer"):
            level, rest = name[len("clip.visual.layer")], name[len("clip.visual.layer1.") :]
            second[f"layer{level}_clip.{'1.' if level == '1' else ''}{rest}"] = name
        for i, part in enumerate(("conv1", "bn1", "", "conv2", "bn2", "", "conv3", "bn3")):
            if part and name.startswith(f"clip.visual.{part}."):
                second[f"layer0_clip.{i}.{name.removeprefix(f'clip.visual.{part}.')}"] = name
    return second


def manydepth_files(files: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Any]]:
    """The files of a ManyDepth folder of the authors, those of the teacher left out.

    Args:
        files: `parity_files`, whose tensors they share.
    """
    joins = {"reduce_conv.0.0": 256, "reduce_conv.1.0": 768}
    extra: dict[str, Any] = {f"{k}.weight": ([n, n + 24, 3, 3], "") for k, n in joins.items()}
    extra |= {f"{k}.bias": ([n], "") for k, n in joins.items()}
    extra |= {"prematching_conv.0.weight": ([16, 64, 1, 1], ""), "prematching_conv.0.bias": ([16], "")}
    encoder: dict[str, Any] = {**files["encoder.pth"], **parity_tensors("encoder.", extra)}
    encoder |= {second: encoder[name] for second, name in aliases().items()}
    for name, (rows, columns) in {"clip": (56, 168), "dino": (16, 48)}.items():
        encoder[f"backprojector_{name}.id_coords"] = torch.zeros(2, rows, columns)
        encoder[f"backprojector_{name}.ones"] = torch.ones(24, 1, rows * columns)
        encoder[f"backprojector_{name}.pix_coords"] = torch.zeros(24, 3, rows * columns)
    assert len(encoder) == 1198
    resnet, head = ResnetEncoder(18, "random", 2), PoseDecoder(512, 1, 2)
    return {
        "encoder": {**encoder, "height": 224, "width": 672, "min_depth_bin": 0.5, "max_depth_bin": 12.0},
        "depth": alive_head(files["depth.pth"]),
        "pose_encoder": pose_tensors(resnet, "pose_encoder."),
        "pose": pose_tensors(head, "pose."),
    }


def in_memory(monkeypatch: pytest.MonkeyPatch, files: dict[str, dict[str, Any]], tmp_path: Path) -> Path:
    """A folder whose files are in memory alone: those of the paper's size are gigabytes."""
    for name in files:
        (tmp_path / f"{name}.pth").touch()

    def tensors(path: Path) -> dict[str, Tensor]:
        return {name: value for name, value in files[Path(path).stem].items() if isinstance(value, Tensor)}

    for module in (single_frame, two_frame, checkpoint):
        monkeypatch.setattr(module, "read_checkpoint", lambda path: files[Path(path).stem])
        monkeypatch.setattr(module, "read_tensors", tensors)
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
    ours = {"disp": disparities["disp", 0][0, 0, ::4, ::4], "text": text}
    ours |= {"lowest_cost": found.lowest_cost, "confidence": found.confidence}
    ours |= {f"level{i}": level[0, ::16, ::2, ::3] for i, level in enumerate(found.features.fused)}
    ours["level_absmean"] = torch.stack([level.double().abs().mean() for level in found.features.fused])
    ours |= {"pose_axisangle": axis_angle, "pose_translation": translation}
    ours["pose_matrix"] = model.poses(None, {0: current, -1: previous})[-1]
    with np.load(DATA / "manydepth_outputs.npz") as theirs:
        assert {name for name in theirs if not name.startswith("mono_")} == set(ours)
        # Where two bins cost the same, rounding decides.
        lowest, expected = ours.pop("lowest_cost")[0], torch.from_numpy(theirs["lowest_cost"])
        assert ((lowest - expected).abs() > 1e-4 * expected).float().mean() < 1e-3
        for name, value in ours.items():
            close(value, theirs[name], name)


@pytest.mark.skipif("HYBRID_ENCODER_SLOW_TESTS" not in os.environ, reason="20 s: set HYBRID_ENCODER_SLOW_TESTS=1")
@pytest.mark.usefixtures("no_random_start")
@torch.no_grad()
def test_manydepths_teacher_equals_the_authors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files: dict[str, dict[str, Any]] = {
        "encoder": {"min_depth_bin": 0.5, "height": 224, "width": 672},
        "mono_encoder": parity_tensors("mono_encoder.", KEYS["encoder.pth"]),
        "mono_depth": alive_head(parity_tensors("mono_depth.", KEYS["depth.pth"])),
    }
    teacher = single_frame.load_released_teacher(in_memory(monkeypatch, files, tmp_path))
    seen = teacher.encoder.forward_features(parity_image(31, 700)[..., 14:686])
    with np.load(DATA / "manydepth_outputs.npz") as theirs:
        close(teacher.decoder(seen)["disp", 0][0, 0, ::4, ::4], theirs["mono_disp"], "disp")
        means = torch.stack([level.double().abs().mean() for level in seen.fused])
        close(means, theirs["mono_level_absmean"], "levels")


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
    images = torch.from_numpy(theirs["image"]).float() / 255
    points = torch.from_numpy(theirs["coords"]).float() * (224 / 720)
    batch = Stage1Batch(images, points, torch.from_numpy(theirs["owner"]).long(), ["a", "b"])
    features, logits = model.logits(batch)
    model.logits = lambda _: (features, logits)  # type: ignore[method-assign]  # the towers need not run twice
    scalars = model(batch)
    scalars["loss"].backward()
    close(model._text()[:, ::4].T, theirs["text"], "text")
    close(features[..., ::4], theirs["features"], "features")
    close(logits, theirs["logits"], "logits")
    for ours, name in (("ranking", "rank_loss"), ("contrastive", "contrastive_loss"), ("loss", "loss")):
        close(scalars[ours], theirs[name], name)
    expected = json.loads((DATA / "released_stage1_norms.json").read_text())
    compare(norms(encoder), by_our_names(expected, encoder, "model."), 2e-3)


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
