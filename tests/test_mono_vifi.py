"""What a patched clone of Mono-ViFI calls: its options, its nets, shared or not, its checkpoints.

No clone is needed: a made-up trainer with the lines of the patch and a U-Net decoder of ours stands in for the
original's. Where HYBRID_ENCODER_CLONES names a folder that holds a clone `mono_vifi`, its own scripts run on rendered
drives, too; they need `pip install scikit-image tensorboard matplotlib six thop yacs ConfigArgParse opencv-python`.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from hybrid_encoder import create_encoder
from hybrid_encoder.adapters import old_libraries
from hybrid_encoder.adapters.mono_vifi import upstream
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.resnet import ResnetEncoder, UNetDecoder
from hybrid_encoder.patches.apply import patch_clone
from hybrid_encoder.stage1.checkpoint import save_stage1

CLONE = Path(os.environ.get("HYBRID_ENCODER_CLONES", "/nowhere")) / "mono_vifi"
NO_CLONE = not CLONE.is_dir()
H, W = 64, 96
HYBRID = ("--backbone", "Hybrid", "--preset", "tiny")
SHARING = ("shared_all", "shared_encoder", "separate_all")


@pytest.fixture(autouse=True)
def _cuda_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `use_device` changes in torch is undone after each test."""
    monkeypatch.setattr(Tensor, "cuda", Tensor.cuda)
    monkeypatch.setattr(nn.Module, "cuda", nn.Module.cuda)
    monkeypatch.setattr(old_libraries, "_cpu_only", False)


def their_names() -> dict[str, Any]:
    """What the trainer and the scripts have imported, as far as it matters here."""
    return {"monodepth2": types.SimpleNamespace(DepthDecoder=lambda widths, scales: UNetDecoder(widths, tuple(scales)))}


def training_parser() -> argparse.ArgumentParser:
    """Mono-ViFI's, as far as it matters here."""
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--local_rank", default=0, type=int)
    add("--backbone", default="ResNet18", choices=["ResNet18", "ResNet50", "LiteMono", "DHRNet"])
    add("--fuse_model_type", default="shared_encoder", choices=SHARING)
    add("--optimizer", default="adamw", choices=["adamw", "adam", "sgd"])
    for name, value in (
        ("--learning_rate", 1e-4),
        ("--weight_decay", 0.01),
        ("--min_depth", 0.1),
        ("--max_depth", 100.0),
    ):
        add(name, default=value, type=float)
    for name, number in (("--height", H), ("--width", W), ("--num_scales", 1)):
        add(name, default=number, type=int)
    for name, text in (
        ("--weights_init", "scratch"),
        ("--pretrained_path", None),
        ("--log_dir", "."),
        ("--exp_name", "mdp"),
    ):
        add(name, default=text)
    add("--resume", action="store_true")
    return parser


def parsed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    parser = training_parser()
    upstream.accept_local_rank(parser)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    return upstream.add_options(parser).parse_args()


class Trainer:
    """Builds, saves and loads nets as the original, with the lines of the patch."""

    def __init__(self, options: Any) -> None:
        self.opt = options
        self.models: dict[str, Any] = {}
        upstream.add_nets(their_names(), self.opt, self.models)
        if self.opt.backbone == "ResNet18":
            self.models["encoder"] = ResnetEncoder(18, "random")
            self.models["depth"] = UNetDecoder(self.models["encoder"].num_ch_enc, (0,))
        separate = {"shared_all": (), "shared_encoder": ("depth",), "separate_all": ("encoder", "depth")}
        for name in ("encoder", "depth"):
            own = name in separate[self.opt.fuse_model_type]
            self.models[f"{name}_mf"] = copy.deepcopy(self.models[name]) if own else self.models[name]
        self.models["pose"] = nn.Linear(2, 2)
        given = [p for model in self.models.values() for p in model.parameters()]
        self.parameters = upstream.parameters(self.opt, self.models, given)
        self.optimizer = torch.optim.AdamW(self.parameters, self.opt.learning_rate)

    def save(self, path: Path) -> dict[str, Any]:
        to_save: dict[str, Any] = {name: model.state_dict() for name, model in self.models.items()}
        to_save |= {"height": self.opt.height, "width": self.opt.width}
        upstream.describe(self.opt, to_save, self.models)
        torch.save(to_save, path)
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded

    def load(self, checkpoint: dict[str, Any]) -> None:
        upstream.check_weights(self.models, checkpoint, "ckpt.pth")
        for name, model in self.models.items():
            model.load_state_dict({**model.state_dict(), **checkpoint[name]})


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    return Trainer(parsed(monkeypatch, *HYBRID))


# Today's libraries


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")
def test_without_cuda_its_devices_are_the_cpu() -> None:
    names: dict[str, Any] = {"torch": torch, "Image": Image, "transforms": torchvision.transforms}
    upstream.mend(names)
    mended = names["torch"]
    assert mended.device("cuda", 0) == mended.device("cuda") == torch.device("cpu")
    assert mended.device("cpu") == torch.device("cpu")
    assert mended.cuda.device_count() == 1
    assert torch.ones(1).cuda().device.type == "cpu"
    assert names["Image"].ANTIALIAS == Image.Resampling.LANCZOS
    assert names["transforms"] is torchvision.transforms
    assert mended.optim is torch.optim


def test_the_number_of_a_process_is_taken_from_todays_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed(monkeypatch).local_rank == 0
    assert parsed(monkeypatch, "--local-rank=2").local_rank == parsed(monkeypatch, "--local_rank=2").local_rank == 2
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert parsed(monkeypatch).local_rank == 3


def test_a_file_without_folder_and_ending() -> None:
    assert upstream.stem("frames/0000000001.png") == "0000000001"


# Options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stage1", "x.pth"), "--stage1 x.pth is for the hybrid encoder: add --backbone Hybrid"),
        (("--encoder_lr", "1e-5"), "is for the hybrid encoder: add --backbone Hybrid"),
        (("--backbone", "hybrid"), "invalid choice: 'hybrid'"),
    ],
)
def test_contradicting_options(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(monkeypatch, *arguments)
    assert message in capsys.readouterr().err


def test_options_are_plain_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clone writes them to opt.json."""
    options = parsed(monkeypatch, *HYBRID, "--encoder_option", "num_tokens=8")
    assert json.loads(json.dumps(vars(options)))["encoder_option"] == ["num_tokens=8"]


# Nets


def test_resnet_stays_theirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trainer = Trainer(parsed(monkeypatch))
    assert len(trainer.parameters) == len([p for m in trainer.models.values() for p in m.parameters()])
    checkpoint = trainer.save(tmp_path / "ckpt.pth")
    assert set(checkpoint) == {*trainer.models, "height", "width"}
    trainer.load(checkpoint)
    script = argparse.Namespace(backbone="ResNet18", pretrained_path="ckpt.pth")
    assert upstream.nets_in(their_names(), script, checkpoint) == (None, None)


@pytest.mark.parametrize("sharing", SHARING)
def test_single_frame_and_multi_frame_nets_train_and_are_saved(
    sharing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    options = parsed(monkeypatch, *HYBRID, "--fuse_model_type", sharing, "--encoder_lr", "1e-5")
    trainer = Trainer(options)
    models = trainer.models
    assert models["encoder"].num_ch_enc == [64, 64, 128, 256, 512]
    grouped = [p for group in trainer.parameters for p in group["params"]]
    trained = {id(p): p for model in models.values() for p in model.parameters() if p.requires_grad}
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == set(trained)
    image = torch.rand(2, 3, H, W)
    disparities = [models["depth" + kind](models["encoder" + kind](image))["disp", 0] for kind in ("", "_mf")]
    loss: Any = sum(d.square().mean() for d in disparities)
    (loss + models["pose"](torch.ones(2)).sum()).backward()
    assert all(p.grad is not None for p in trained.values())
    trainer.optimizer.step()

    checkpoint = trainer.save(tmp_path / "ckpt.pth")
    torch.manual_seed(1)
    again = Trainer(options)
    again.load(checkpoint)
    again.optimizer.load_state_dict(trainer.optimizer.state_dict())
    script = argparse.Namespace(backbone="Hybrid", pretrained_path=str(tmp_path / "ckpt.pth"))
    encoder, decoder = upstream.nets_in(their_names(), script, checkpoint)
    for net in (*models.values(), *again.models.values(), encoder, decoder):
        net.eval()
    with torch.no_grad():
        for kind in ("", "_mf"):
            encoder.load_state_dict(checkpoint["encoder" + kind])
            decoder.load_state_dict(checkpoint["depth" + kind])
            expected = models["depth" + kind](models["encoder" + kind](image))["disp", 0]
            resumed = again.models["depth" + kind](again.models["encoder" + kind](image))["disp", 0]
            assert torch.equal(resumed, expected)
            assert torch.equal(decoder(encoder(image))["disp", 0], expected)


@pytest.mark.parametrize(("optimizer", "decay"), [("adamw", 0.01), ("adam", 0.0)])
def test_groups_of_the_optimizer(optimizer: str, decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens, norms and biases do not decay, and what is not the encoder's has the host's rate and decay."""
    trainer = Trainer(parsed(monkeypatch, *HYBRID, "--optimizer", optimizer, "--encoder_lr", "1e-5"))
    encoder = trainer.models["encoder"]
    *own, rest = trainer.parameters
    assert (rest["lr"], rest["weight_decay"]) == (1e-4, 0.01)
    assert {group["lr"] for group in own} == {1e-5}
    decays = {id(p): group["weight_decay"] for group in own for p in group["params"]}
    assert decays[id(encoder.language.tokens)] == 0.0
    assert {decays[id(p)] for name, p in encoder.named_parameters() if p.ndim == 4 and p.requires_grad} == {decay}


def test_stage_1_fills_the_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = create_encoder("tiny")
    save_stage1(tmp_path / "stage1.pth", trained, trained.config, {})
    encoder = Trainer(parsed(monkeypatch, *HYBRID, "--stage1", str(tmp_path / "stage1.pth"))).models["encoder"]
    assert torch.equal(encoder.language.tokens, trained.language.tokens)


# What does not go together


def test_a_fork_that_builds_its_own_encoder_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(monkeypatch, *HYBRID)
    with pytest.raises(UserError, match="--backbone Hybrid was asked for and not built"):
        upstream.parameters(options, {"encoder": nn.Linear(1, 1)}, [])
    with pytest.raises(UserError, match="--backbone Hybrid was asked for and not built"):
        upstream.parameters(options, {"encoder": ResnetEncoder(18, "random")}, [])


def test_checkpoints_of_another_backbone_are_refused(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours, resnet = trainer.save(tmp_path / "ours.pth"), Trainer(parsed(monkeypatch))
    theirs = resnet.save(tmp_path / "theirs.pth")
    with pytest.raises(UserError, match="holds a hybrid encoder: add --backbone Hybrid"):
        resnet.load(ours)
    with pytest.raises(UserError, match=r"ckpt\.pth, encoder"):
        trainer.load(theirs)
    script = argparse.Namespace(backbone="ResNet18", pretrained_path="ours.pth")
    with pytest.raises(UserError, match=r"ours\.pth holds a hybrid encoder: add --backbone Hybrid"):
        upstream.nets_in(their_names(), script, ours)
    script = argparse.Namespace(backbone="Hybrid", pretrained_path="theirs.pth")
    with pytest.raises(UserError, match=r"theirs\.pth holds no hybrid encoder: give the --backbone"):
        upstream.nets_in(their_names(), script, theirs)


def test_checkpoints_of_another_preset_are_refused(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Trainer(parsed(monkeypatch, *HYBRID, "--encoder_option", "normalization=none"))
    with pytest.raises(UserError, match="was trained with normalization='own', not 'none'"):
        other.load(trainer.save(tmp_path / "ckpt.pth"))


# The real clone


def run(folder: Path, *command: str) -> str:
    """What a script of the clone prints."""
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A patched clone, its interpolation nets of random numbers; and rendered drives in KITTI's layout."""
    root = tmp_path_factory.mktemp("mono_vifi")
    clone, data = root / "clone", root / "drives" / "kitti"
    subprocess.run(["git", "clone", "-q", str(CLONE), str(clone)], check=True)
    size = ("--sequences", "3", "--frames", "6", "--height", str(H), "--width", "192")
    run(root, "-m", "hybrid_encoder.cli", "synth", str(root / "drives"), *size)
    for frame in data.rglob("*.jpg"):
        Image.open(frame).save(frame.with_suffix(".png"))
    lists = {part: (data / f"splits/synthetic/{part}_files.txt").read_text().split("\n") for part in ("train", "test")}
    for split, part in (("eigen_zhou", "train"), ("eigen", "test"), ("eigen_benchmark", "test")):
        (clone / f"splits/kitti/{split}/{part}_files.txt").write_text("\n".join(lists[part][:2]))
    (clone / "weights").mkdir()
    for scale in ("large", "small"):
        file = f"weights/IFRNet_{scale[0].upper()}_KITTI.pth"
        make = f"import torch, networks; net = networks.IFRNet(scale={scale!r})"
        run(clone, "-c", f"{make}; torch.save({{'VFI': net.state_dict()}}, {file!r})")
    patch_clone("mono_vifi", clone)
    for split in ("eigen", "eigen_benchmark"):
        run(clone, "export_gt_depth.py", "--data_path", str(data), "--split", split)
    return clone, data


def train(clone: Path, data: Path, *more: str) -> str:
    # Outside of the clone, all of whose Python files a run copies to its log.
    fixed = clone / "tiny.txt"
    fixed.write_text(
        f"data_path = {data}\nlog_dir = {clone.parent / 'logs'}\nheight = {H}\nwidth = 192\nbatch_size = 2\n"
        "num_workers = 0\nweights_init = scratch\nuse_affine = True\nlog_frequency = 1\n"
    )
    return run(clone, "train.py", "-c", str(fixed), *more)


@pytest.mark.skipif(NO_CLONE, reason="HYBRID_ENCODER_CLONES has no clone mono_vifi")
def test_the_real_clone_trains_as_it_is(patched: tuple[Path, Path]) -> None:
    assert "Test the model at epoch 0" in train(*patched, "--exp_name", "resnet", "--num_epochs", "1")


@pytest.mark.skipif(NO_CLONE, reason="HYBRID_ENCODER_CLONES has no clone mono_vifi")
@pytest.mark.parametrize("sharing", SHARING)
def test_the_real_clone_trains_resumes_evaluates_and_predicts(sharing: str, patched: tuple[Path, Path]) -> None:
    clone, data = patched
    asked = (*HYBRID, "--exp_name", sharing, "--fuse_model_type", sharing, "--resume")
    assert "No checkpoint to resume" in train(clone, data, *asked, "--num_epochs", "1")
    assert "Start at eopch 1" in train(clone, data, *asked, "--num_epochs", "2")
    checkpoint = str(clone.parent / "logs" / sharing / "models" / "model_1.pth")
    nets = ("--pretrained_path", checkpoint, "--backbone", "Hybrid", "--height", str(H), "--width", "192")
    for script in ("evaluate_depth.py", "evaluate_depth_mf.py"):
        said = run(clone, script, *nets, "--num_workers", "0", "--kitti_path", str(data), "--post_process")
        assert said.count("abs_rel") == 2
    frames = clone / f"frames_{sharing}"
    frames.mkdir()
    for frame in sorted((data / "2000_01_01/2000_01_01_drive_0003_sync/image_02/data").glob("*.png"))[:3]:
        (frames / frame.name).write_bytes(frame.read_bytes())
    run(clone, "test_simple.py", *nets, "--image_path", str(frames / "0000000001.png"), "--no_cuda")
    run(clone, "test_video.py", *nets, "--image_path", str(frames))
    assert len(list(frames.glob("*_disp.jpeg"))) == 6
