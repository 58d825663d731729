"""The commands on folders as the authors' code writes them: small ones, and those of the paper's size.

The latter take minutes and gigabytes: HYBRID_ENCODER_SLOW_TESTS=1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from hybrid_encoder.cli import main
from hybrid_encoder.commands.convert import open_depth_model
from hybrid_encoder.config import PRESETS
from hybrid_encoder.two_frame.checkpoint import load_two_frame_model
from hybrid_encoder.weights.reading import read_checkpoint

from .released_files import (
    TINY_RELEASED,
    manydepth_files,
    parity_files,
    pose_files,
    teacher_files,
    tiny_decoder,
    tiny_encoder,
)

PAPER = pytest.param(
    "paper",
    marks=pytest.mark.skipif("HYBRID_ENCODER_SLOW_TESTS" not in os.environ, reason="set HYBRID_ENCODER_SLOW_TESTS=1"),
)
STUDENT = ["--encoder_option", "normalization=imagenet", "--encoder_option", "dino_normalization=none"]
TEACHER = ["--teacher_encoder_option", "normalization=none", "--teacher_encoder_option", "dino_normalization=same"]


@dataclass(frozen=True)
class World:
    """Generated folders of the authors, and data.

    Attributes:
        path: where results go.
        single, two_frame: their folders.
        stage1: their Lightning file.
        data: options that name a data set of three samples, one a part.
        image: of it.
        size: options of the image size.
        nets: options that build nets of this size.
        bins: depth bins of the cost volume.
    """

    path: Path
    single: Path
    two_frame: Path
    stage1: Path
    data: list[str]
    image: Path
    size: list[str]
    nets: list[str]
    bins: int


@pytest.fixture(scope="module", params=["tiny", PAPER])
def world(request: pytest.FixtureRequest, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    path = tmp_path_factory.mktemp(request.param)
    for part in ("train", "val", "test"):
        lines = (scenes / "kitti" / "splits" / "synthetic" / f"{part}_files.txt").read_text().splitlines()
        (path / "split").mkdir(exist_ok=True)
        (path / "split" / f"{part}_files.txt").write_text(lines[0])
    data = ["--data_path", str(scenes / "kitti"), "--split", str(path / "split")]
    image = next((scenes / "kitti").rglob("image_02/data/*.*"))
    height, width, tokens, bins = (224, 672, 16, 24) if request.param == "paper" else (64, 96, 5, 8)
    size = ["--height", str(height), "--width", str(width)]
    nets = ["--preset", "released", "--encoder_option", f"num_tokens={tokens}", "--head", "relu"]
    single, two_frame = (paper_folders if request.param == "paper" else tiny_folders)(path)
    encoder = torch.load(single / "encoder.pth")
    kept = {f"model.{k}": v for k, v in encoder.items() if isinstance(v, Tensor) and not k.startswith("extra_tkns")}
    torch.save({"state_dict": kept}, path / "stage1.ckpt")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "tiny":
            patch.setitem(PRESETS, "released", TINY_RELEASED)
        yield World(path, single, two_frame, path / "stage1.ckpt", data, image, size, nets, bins)
    for file in path.rglob("*.pth"):
        file.unlink()


def save(folder: Path, files: dict[str, dict[str, Any]]) -> Path:
    folder.mkdir()
    for name, entries in files.items():
        torch.save(entries, folder / f"{name}.pth")
    return folder


def paper_folders(path: Path) -> tuple[Path, Path]:
    """Of 224 x 672, filled by the parity rule."""
    files = parity_files()
    many = manydepth_files(files)
    sizes = {"height": 224, "width": 672, "use_stereo": False}
    single = {"encoder": {**files["encoder.pth"], **sizes}, "depth": many["depth"], **pose_files()}
    return save(path / "single", single), save(path / "two_frame", {**many, **teacher_files()})


def tiny_folders(path: Path) -> tuple[Path, Path]:
    """Of 64 x 96, around the tiny towers."""
    decoder, size = tiny_decoder(TINY_RELEASED.replace(num_tokens=5)), {"height": 64, "width": 96}
    single = {"encoder": {**tiny_encoder(), **size, "use_stereo": False}, "depth": decoder, **pose_files()}
    student = {
        **tiny_encoder(seed=1),
        "reduce_conv.0.0.weight": 0.01 * torch.randn(64, 64 + 8, 3, 3),
        "reduce_conv.0.0.bias": torch.zeros(64),
        "prematching_conv.0.weight": torch.zeros(16, 64, 1, 1),
        "min_depth_bin": 0.5,
        "max_depth_bin": 12.0,
    }
    two_frame = {
        "encoder": {**student, **size},
        "depth": decoder,
        "mono_encoder": tiny_encoder(seed=2),
        "mono_depth": decoder,
        **pose_files(),
    }
    return save(path / "single", single), save(path / "two_frame", two_frame)


def run(*arguments: Any) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def test_evaluate(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, more in ((world.single, []), (world.two_frame, []), (world.two_frame, ["--eval_teacher"])):
        run("evaluate", "--weights", folder, *world.data, *world.size, "--device", "cpu", *more)
        said = capsys.readouterr()
        assert f"{folder}: " in said.err
        numbers = [float(word) for word in said.out.replace("|", " ").split() if word.replace(".", "").isdigit()]
        assert len(numbers) >= 7
        assert np.isfinite(numbers).all()


def test_predict(world: World) -> None:
    for folder, more in ((world.single, []), (world.two_frame, ["--sequence", "--intrinsics", "190,190,160,48"])):
        out = world.path / f"predicted {folder.name}"
        run("predict", world.image, "--weights", folder, "--out", out, "--npy", "--device", "cpu", *more)
        depth = np.load(next(out.glob("*.npy")))
        assert depth.shape == cv2.imread(str(world.image)).shape[:2]
        assert np.isfinite(depth).all()
        assert np.ptp(depth) > 0


def test_info_and_convert(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    run("info", world.two_frame)
    student, teacher = capsys.readouterr().out.splitlines()[:2]
    assert "CLIP sees images with ImageNet's mean and deviation, DINO sees raw [0, 1]" in student
    assert "CLIP sees raw [0, 1], DINO sees raw [0, 1]" in teacher
    for folder, is_teacher in ((world.single, False), (world.two_frame, True)):
        out = world.path / f"converted {folder.name}"
        run("convert", folder, "--out", out, *(["--teacher"] if is_teacher else []))
        expected = open_depth_model(folder, teacher=is_teacher).predict(world.image)
        np.testing.assert_array_equal(open_depth_model(out).predict(world.image), expected)


def train(world: World, kind: str, name: str, *more: str) -> Path:
    """One step; the weights' folder."""
    base = ["--log_dir", world.path, "--model_name", name, "--num_epochs", 1, "--batch_size", 1, "--num_workers", 0]
    run("train", kind, *world.data, *world.size, *base, "--device", "cpu", "--weights_init", "scratch", *more)
    return world.path / name / "models" / "weights_0"


def moved(before: Path, after: Path, theirs: str, ours: str) -> float:
    """How far training has moved a tensor."""
    return float((read_checkpoint(before)[theirs] - read_checkpoint(after)[ours]).abs().max())


def test_stage_2_starts_from_their_stage_1(world: World) -> None:
    more = ["--stage1", str(world.stage1), "--stage1_pixels", "any", "--pose_model_type", "class_token", *world.nets]
    weights = train(world, "monodepth2", "from_stage1", *more)
    names = "dinov2.blocks.0.attn.qkv.weight", "dino.vit.blocks.0.attn.qkv.weight"
    frozen = moved(world.single / "encoder.pth", weights / "encoder.pth", *names)
    names = "clip_align_conv.1.weight", "fusion.project.1.weight"
    assert 0 < moved(world.single / "encoder.pth", weights / "encoder.pth", *names) < 1e-3
    assert frozen == 0 or world.bins == 8  # all of the tiny DINO trains
    # What stage 1 saw is no matter: the encoder's own way with pixels is what is saved.
    assert json.loads(read_checkpoint(weights / "encoder.pth")["hybrid_config"])["normalization"] == "none"
    assert not read_checkpoint(weights / "encoder.pth")["image_tower.mean"].any()


def test_training_goes_on_from_their_stage_2(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["train", "monodepth2", *world.data, *world.size, "--load_weights_folder", str(world.single)]
    here = ["--log_dir", str(world.path), "--device", "cpu", "--batch_size", "1"]
    assert main([*start, *here, "--preset", "released"]) == 2
    tokens = world.nets[3]
    expected = (
        f"holds another encoder than these options build: give --encoder hybrid --preset released --encoder_option "
        f"{tokens} --head relu --pose_model_type separate_resnet --pose_normalization none"
    )
    assert expected in capsys.readouterr().err
    more = ["--load_weights_folder", str(world.single), *world.nets, "--pose_normalization", "none"]
    weights = train(world, "monodepth2", "from_stage2", *more)
    for file, theirs, ours in (
        ("encoder", "clip.visual.layer1.0.conv1.weight", "image_tower.layer1.0.conv1.weight"),
        ("depth", "depth_head.projects.0.weight", "project.0.weight"),
        ("pose_encoder", "encoder.layer1.0.conv1.weight", "encoder.layer1.0.conv1.weight"),
    ):
        assert 0 < moved(world.single / f"{file}.pth", weights / f"{file}.pth", theirs, ours) < 1e-3
    assert read_checkpoint(weights / "pose_encoder.pth")["normalization"] == "none"


def test_training_goes_on_from_their_manydepth(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--encoder", "hybrid", "--teacher_encoder", "hybrid", "--load_weights_folder", str(world.two_frame)]
    start = ["train", "manydepth", *world.data, *world.size, *common, *world.nets]
    assert main([*start, "--log_dir", str(world.path), "--device", "cpu", "--batch_size", "1"]) == 2
    said = capsys.readouterr().err
    for expected in (
        *STUDENT[1::2],
        *TEACHER[1:2],
        f"--num_depth_bins {world.bins}",
        "--pose_normalization monodepth2",
    ):
        assert expected in said
    more = [*common, *world.nets, *STUDENT, *TEACHER, "--num_depth_bins", str(world.bins)]
    weights = train(world, "manydepth", "from_manydepth", *more)
    kept = [
        json.loads(read_checkpoint(weights / f"{name}.pth")["hybrid_config"]) for name in ("encoder", "mono_encoder")
    ]
    assert [(c["normalization"], c["dino_normalization"]) for c in kept] == [("imagenet", "none"), ("none", "same")]
    for file, theirs, ours in (
        ("encoder", "reduce_conv.0.0.weight", "reduce_conv.0.weight"),
        ("encoder", "clip_align_conv.1.weight", "encoder.fusion.project.1.weight"),
        ("mono_encoder", "clip_align_conv.1.weight", "fusion.project.1.weight"),
        ("mono_depth", "depth_head.projects.0.weight", "project.0.weight"),
        ("pose", "net.0.weight", "net.0.weight"),
    ):
        assert 0 < moved(world.two_frame / f"{file}.pth", weights / f"{file}.pth", theirs, ours) < 1e-3, file
    near = read_checkpoint(weights / "encoder.pth")["min_depth_bin"]
    assert near == pytest.approx(0.5, abs=0.1)
    # What was saved opens as what it was trained as.
    model: Any = load_two_frame_model(weights).net.encoder
    assert model.config.normalization == "imagenet"
    assert not open_depth_model(weights, teacher=True).encoder.image_tower.mean.any()  # type: ignore[union-attr]
