"""What patched clones call: old behaviour on today's libraries, and the hybrid nets in an original's own code.

No clone is needed: a made-up `networks` module with our own nets stands in for the original's.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader

from hybrid_encoder.adapters import clone_networks, old_libraries
from hybrid_encoder.adapters.manydepth import upstream as many
from hybrid_encoder.adapters.manydepth.clone_networks import MatchingNetworks
from hybrid_encoder.adapters.monodepth2 import upstream as mono
from hybrid_encoder.config import preset
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.nets import DepthNets
from hybrid_encoder.model.pose import PoseDecoder
from hybrid_encoder.model.resnet import ResnetEncoder, UNetDecoder
from hybrid_encoder.stage2.checkpoint import load_depth_model
from hybrid_encoder.stage2.networks import PoseNetworks
from hybrid_encoder.stage2.options import DepthOptions
from hybrid_encoder.two_frame.checkpoint import load_two_frame_model

H, W = 64, 96


def namespace(**more: Any) -> dict[str, Any]:
    """What a file of an original has imported."""
    return {
        "np": np,
        "torch": torch,
        "Image": Image,
        "transforms": torchvision.transforms,
        "models": torchvision.models,
        "DataLoader": DataLoader,
        **more,
    }


@pytest.fixture
def mended() -> Any:
    names = namespace(F=F, optim=optim, kept=random)
    old_libraries.mend(names, **mono.STACK)
    assert names["kept"] is random
    return types.SimpleNamespace(**names)


@pytest.fixture(autouse=True)
def _cuda_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `use_device` changes in torch is undone after each test."""
    monkeypatch.setattr(Tensor, "cuda", Tensor.cuda)
    monkeypatch.setattr(nn.Module, "cuda", nn.Module.cuda)
    monkeypatch.setattr(old_libraries, "_cpu_only", False)


# Old behaviour


def test_removed_names_are_back(mended: Any) -> None:
    assert mended.Image.ANTIALIAS == Image.Resampling.LANCZOS
    assert np.array([2.7, -1.2]).astype(mended.np.int).tolist() == [2, -1]
    assert mended.models.resnet.model_urls["resnet18"].endswith(".pth")
    assert set(mended.models.resnet.model_urls) == {f"resnet{n}" for n in (18, 34, 50, 101, 152)}
    iterator = iter(mended.DataLoader(torch.arange(4), 2))
    assert iterator.next().tolist() == [0, 1]
    assert next(iterator).tolist() == [2, 3]
    with pytest.raises(StopIteration):
        iterator.next()


def test_libraries_stay_as_they_are(mended: Any) -> None:
    assert not hasattr(np, "int")
    assert not hasattr(Image, "ANTIALIAS")
    assert mended.np.linalg is np.linalg
    assert mended.torch.nn is nn
    assert torchvision.transforms.ColorJitter.get_params((1, 1), None, None, None)[1] == 1.0
    again = {"np": mended.np}
    old_libraries.mend(again)
    assert again["np"] is mended.np


def test_any_host_mends_its_files_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/HOSTS.md says, without a patched clone: modules are known by what they are."""
    host: dict[str, Any] = {}
    exec(
        "import numpy\nimport PIL.Image as pil\nimport torchvision.models\nfrom torchvision import transforms as T",
        host,
    )
    host["transforms"] = own = types.ModuleType("albumentations.augmentations.transforms")
    old_libraries.mend(host)
    assert host["numpy"].int is int
    assert host["pil"].ANTIALIAS == Image.Resampling.LANCZOS
    assert len(host["T"].ColorJitter.get_params((1, 1), None, None, None).steps) == 1
    assert host["transforms"] is own
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    old_libraries.stand_in_for_ipython()
    assert sys.modules["IPython"].embed is None
    monkeypatch.delitem(sys.modules, "IPython")


def test_jitter_is_drawn_once_and_equal_over_frames(mended: Any) -> None:
    ranges = ((0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.1, 0.1))
    random.seed(3)
    jitter = mended.transforms.ColorJitter.get_params(*ranges)
    state = random.getstate()
    frame = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8))
    first, second = np.asarray(jitter(frame)), np.asarray(jitter(frame.copy()))
    assert (first == second).all()
    assert (first != np.asarray(frame)).any()
    assert random.getstate() == state, "nothing is drawn when it is applied"
    # The draws of torchvision 0.8: four factors in this order, then the order of the steps, all from `random`.
    random.seed(3)
    factors = [random.uniform(*span) for span in ranges]
    assert sorted(factor for _, factor in jitter.steps) == sorted(factors)
    assert dict(jitter.steps)["adjust_hue"] == factors[3]
    orders = {tuple(name for name, _ in old_libraries.draw_jitter(*ranges).steps) for _ in range(200)}
    assert len(orders) == 24


def test_jitter_as_a_transform(mended: Any) -> None:
    jitter = mended.transforms.ColorJitter(0.2, 0.2, 0.2, 0.1)
    image = torch.rand(3, 8, 8)
    assert jitter(image).shape == image.shape


def test_grid_sample_aligns_corners(mended: Any) -> None:
    image = torch.arange(4.0).view(1, 1, 1, 4)
    grid = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])
    grid = torch.stack([grid, torch.zeros(4)], dim=-1).view(1, 1, 4, 2)
    assert mended.F.grid_sample(image, grid, padding_mode="border").flatten().tolist() == pytest.approx([0, 1, 2, 3])
    chosen = mended.F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    assert torch.equal(chosen, F.grid_sample(image, grid, padding_mode="border", align_corners=False))


def rates(mended: Any, load: Callable[[Any], None] = lambda _: None) -> list[float]:
    """The learning rate in each of 20 epochs of a trainer that steps the scheduler when an epoch begins."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = mended.optim.Adam([parameter], 1e-5)
    scheduler = mended.optim.lr_scheduler.StepLR(optimizer, 15, 0.1)
    load(optimizer)
    found = []
    for _ in range(20):
        scheduler.step()
        parameter.grad = torch.ones(1)
        optimizer.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_rate_falls_at_epoch_15(mended: Any) -> None:
    assert rates(mended) == pytest.approx([1e-5] * 15 + [1e-6] * 5)


def test_loaded_adam_does_not_override_the_rate(mended: Any) -> None:
    other = optim.Adam([nn.Parameter(torch.zeros(1))], 1e-4)
    optim.lr_scheduler.StepLR(other, 15, 0.1)
    state = other.state_dict()
    assert rates(mended, lambda optimizer: optimizer.load_state_dict(state)) == pytest.approx([1e-5] * 15 + [1e-6] * 5)


def test_ragged_arrays_are_saved_and_read(mended: Any, tmp_path: Path) -> None:
    depths = [np.full((2, 3), 1.5, np.float32), np.full((4, 5), 2.5, np.float32)]
    ragged = mended.np.array(depths)
    assert ragged.dtype == object
    np.savez_compressed(tmp_path / "gt.npz", data=ragged)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(tmp_path / "gt.npz")["data"]
    read = mended.np.load(tmp_path / "gt.npz", fix_imports=True, encoding="latin1")["data"]
    assert [depth.tolist() for depth in read] == [depth.tolist() for depth in depths]
    assert mended.np.array([[1, 2], [3, 4]]).shape == (2, 2)
    with pytest.raises(ValueError, match="inhomogeneous"):
        mended.np.array([[1], [2, 3]], dtype=float)
    np.save(tmp_path / "disps.npy", depths[0])
    assert mended.np.load(tmp_path / "disps.npy").shape == (2, 3)


def test_foreign_pickles_are_not_run(mended: Any, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "run",))

    np.savez(tmp_path / "gt.npz", data=np.array([Hostile(), None], dtype=object))
    with pytest.raises(UserError, match="export the ground truth again"):
        mended.np.load(tmp_path / "gt.npz")["data"]
    assert not (tmp_path / "run").exists()


def test_load_names_no_device(mended: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "load", lambda file, map_location=None, **_: asked.append(map_location))
    mended.torch.load("weights.pth")
    mended.torch.load("weights.pth", map_location="cuda:1")
    assert asked == ["cpu", "cuda:1"]


def test_no_cuda_is_obeyed(mended: Any) -> None:
    old_libraries.use_device(types.SimpleNamespace(no_cuda=True))
    net = nn.Linear(1, 1)
    assert net.cuda() is net
    assert torch.zeros(1).cuda().device.type == "cpu"
    assert mended.torch.cuda.is_available() is False


def test_trainer_needs_no_ipython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "modules", {name: module for name, module in sys.modules.items() if name != "IPython"})
    mono.mend_trainer(namespace(F=F, optim=optim))
    assert sys.modules["IPython"].get_ipython() is None
    assert hasattr(sys.modules["IPython"], "embed")


def test_one_image_may_have_a_leading_dimension() -> None:
    written = []

    class Writer:
        def add_image(self, tag: str, image: Any, step: int) -> None:
            written.append(image.shape)

    names = namespace(SummaryWriter=Writer)
    many.mend(names)
    names["SummaryWriter"]().add_image("a", np.zeros((1, 3, 4, 5)), 0)
    names["SummaryWriter"]().add_image("a", np.zeros((3, 4, 5)), 0)
    assert written == [(3, 4, 5), (3, 4, 5)]


def test_teacher_file_gets_the_sizes(tmp_path: Path) -> None:
    torch.save({"height": 64, "width": 96}, tmp_path / "encoder.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "mono_encoder.pth")
    names = namespace()
    many.mend(names)
    content = names["torch"].load(str(tmp_path / "mono_encoder.pth"))
    assert (content["height"], content["width"]) == (64, 96)


def test_export_script_finds_root_and_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "manydepth" / "export_gt_depth.py"
    assert many.script_of_root(str(file)) == str(tmp_path.resolve() / "export_gt_depth.py")
    assert sys.path[0] == str(tmp_path.resolve() / "manydepth")


# The hybrid nets in an original's code


class TheirDepthDecoder(UNetDecoder):
    def __init__(self, num_ch_enc: Any, scales: Any = range(4), num_output_channels: int = 1) -> None:
        super().__init__(num_ch_enc, tuple(scales))


def their_networks() -> Any:
    """A `networks` module as the originals have it."""
    module: Any = types.ModuleType("networks")
    module.ResnetEncoder = lambda layers, pretrained, num_input_images=1: ResnetEncoder(
        layers, "random", num_input_images
    )
    module.DepthDecoder = TheirDepthDecoder
    module.PoseDecoder = lambda channels, inputs, poses=None: PoseDecoder(
        int(channels[-1]), inputs, inputs - 1 if poses is None else poses
    )
    return module


class Options:
    """The `MonodepthOptions` of a clone, as far as they matter here."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.parser = argparse.ArgumentParser()
        add = self.parser.add_argument
        add("--scales", nargs="+", type=int, default=[0, 1, 2, 3])
        add("--models_to_load", nargs="+", default=["encoder", "depth", "pose_encoder", "pose"])
        for name in ("--no_cuda", "--predictive_mask", "--use_stereo"):
            add(name, action="store_true")
        add("--pose_model_type", default="separate_resnet", choices=["posecnn", "separate_resnet", "shared"])
        add("--pose_model_input", default="pairs", choices=["pairs", "all"])
        for name in ("--load_weights_folder", "--mono_weights_folder"):
            add(name)
        add("--weights_init", default="scratch")
        add("--depth_binning", default="linear")
        add("--height", type=int, default=H)
        add("--width", type=int, default=W)
        add("--min_depth", type=float, default=0.1)
        add("--max_depth", type=float, default=100.0)

    def parse(self, *arguments: str) -> Any:
        self.host.add_options(self.parser)
        self.options = self.parser.parse_args(arguments)
        self.host.parsed(self)
        return self.options


class Trainer:
    """Builds, saves and loads nets as the original Monodepth2 trainer does, with the lines of the patch."""

    def __init__(self, *arguments: str) -> None:
        self.opt = Options(mono).parse(*arguments)
        names = namespace(F=F, optim=optim, networks=their_networks())
        mono.mend_trainer(names)
        self.models: dict[str, Any] = {}
        networks = mono.networks(names, self.opt)
        self.models["encoder"] = networks.ResnetEncoder(18, False)
        self.models["depth"] = networks.DepthDecoder(self.models["encoder"].num_ch_enc, self.opt.scales)
        if self.opt.pose_model_type == "separate_resnet":
            self.models["pose_encoder"] = networks.ResnetEncoder(18, False, num_input_images=2)
            self.models["pose"] = networks.PoseDecoder(self.models["pose_encoder"].num_ch_enc, 1, 2)
        elif self.opt.pose_model_type == "shared":
            self.models["pose"] = networks.PoseDecoder(self.models["encoder"].num_ch_enc, 2)
        if self.opt.pose_model_type == "class_token":
            self.models["pose"] = mono.class_token_pose(self.models["encoder"])
        parameters = [p for model in self.models.values() for p in model.parameters()]
        self.optimizer = names["optim"].Adam(parameters, 1e-4)

    def depth(self, image: Tensor) -> dict[tuple[str, int], Tensor]:
        disparities: dict[tuple[str, int], Tensor] = self.models["depth"](self.models["encoder"](image))
        return disparities

    def eval(self) -> None:
        for model in self.models.values():
            model.eval()

    def save(self, folder: Path) -> Path:
        folder.mkdir()
        for name, model in self.models.items():
            to_save = model.state_dict()
            if name == "encoder":
                to_save.update(height=self.opt.height, width=self.opt.width, use_stereo=self.opt.use_stereo)
            mono.describe(self, name, to_save)
            torch.save(to_save, folder / f"{name}.pth")
        return folder


HYBRID = ("--encoder", "hybrid", "--preset", "tiny")


@pytest.fixture
def image() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(1, 3, H, W)


def test_resnet_stays_theirs(tmp_path: Path) -> None:
    trainer = Trainer()
    assert type(trainer.models["encoder"]) is ResnetEncoder
    assert type(trainer.models["depth"]) is TheirDepthDecoder
    assert type(trainer.optimizer) is optim.Adam
    assert len(trainer.optimizer.param_groups) == 1
    assert trainer.opt.scales == [0, 1, 2, 3]
    folder = trainer.save(tmp_path / "w")
    saved = torch.load(folder / "encoder.pth")
    assert set(saved) == {*trainer.models["encoder"].state_dict(), "height", "width", "use_stereo"}
    theirs = {"networks": their_networks()}
    assert mono.networks_in(theirs, str(folder)) is theirs["networks"]


@pytest.mark.parametrize(
    ("arguments", "scales"),
    [((), [0]), (("--scales", "0", "1"), [0, 1]), (("--decoder", "unet"), [0, 1, 2, 3]), (("--head", "relu"), [0])],
)
def test_hybrid_trains_saves_and_loads(
    arguments: tuple[str, ...], scales: list[int], image: Tensor, tmp_path: Path
) -> None:
    """One step; then the same disparities from the folder, in the original's scripts and in our own loader."""
    trainer = Trainer(*HYBRID, *arguments)
    outputs = trainer.depth(image)
    assert {key: tuple(disp.shape) for key, disp in outputs.items()} == {
        ("disp", s): (1, 1, H // 2**s, W // 2**s) for s in scales
    }
    before = [p.detach().clone() for p in trainer.models["encoder"].parameters()]
    outputs["disp", 0].mean().backward()
    trainer.optimizer.step()
    trained = [p for p in trainer.models["encoder"].parameters() if p.requires_grad]
    assert any((p != old).any() for p, old in zip(trainer.models["encoder"].parameters(), before, strict=True))
    assert len(trained) < len(before)
    trainer.eval()
    with torch.no_grad():
        expected = trainer.depth(image)["disp", 0]
    folder = trainer.save(tmp_path / "w")

    networks = mono.networks_in({"networks": their_networks()}, str(folder))
    encoder = networks.ResnetEncoder(18, False)
    decoder = networks.DepthDecoder(num_ch_enc=encoder.num_ch_enc, scales=range(4))
    saved = torch.load(folder / "encoder.pth")
    encoder.load_state_dict({k: v for k, v in saved.items() if k in encoder.state_dict()})
    decoder.load_state_dict(torch.load(folder / "depth.pth"))
    encoder.eval(), decoder.eval()
    with torch.no_grad():
        assert torch.equal(decoder(encoder(image))["disp", 0], expected)
        ours = load_depth_model(folder)
        assert (ours.height, ours.width) == (H, W)
        features = clone_networks.ListedEncoder.forward_features(ours.encoder, image)
        decoded = ours.decoder(features if ours.encoder.pyramid is None else ours.encoder(image))
        torch.testing.assert_close(decoded["disp", 0], expected)


def loader_of(names: dict[str, Any]) -> DataLoader[Any]:
    return names["DataLoader"](torch.arange(4), 2)  # type: ignore[no-any-return]


def test_a_fork_that_builds_its_own_encoder_stops_at_the_first_step() -> None:
    """Patched by force, it would train its own net and report success."""
    options = Options(mono).parse(*HYBRID)
    names = namespace(F=F, optim=optim, networks=their_networks())
    mono.mend_trainer(names)
    networks = mono.networks(names, options)
    own = names["networks"].ResnetEncoder(18, False)
    pose = networks.ResnetEncoder(18, False, num_input_images=2)
    names["optim"].Adam([*own.parameters(), *pose.parameters()], 1e-4)
    with pytest.raises(UserError, match=r"asked for and not built: .* by networks\.ResnetEncoder\. Put the encoder in"):
        iter(loader_of(names))
    networks.ResnetEncoder(18, False)
    assert iter(loader_of(names)).next().tolist() == [0, 1]  # type: ignore[attr-defined]


def test_a_script_that_builds_its_own_encoder_stops_at_the_first_image(tmp_path: Path) -> None:
    folder = Trainer(*HYBRID).save(tmp_path / "w")
    names = namespace(networks=their_networks())
    mono.mend(names)
    networks = mono.networks_in(names, str(folder))
    with pytest.raises(UserError, match="asked for and not built"):
        iter(loader_of(names))
    networks.ResnetEncoder(18, False)
    iter(loader_of(names))


@pytest.mark.parametrize(
    ("student", "teacher", "unbuilt"),
    [("hybrid", "resnet", "ResnetEncoderMatching"), ("resnet", "hybrid", "ResnetEncoder")],
)
def test_a_fork_of_manydepth_builds_both_of_its_encoders(student: str, teacher: str, unbuilt: str) -> None:
    theirs = their_networks()
    theirs.ResnetEncoderMatching = lambda *_, **__: ResnetEncoder(18, "random")
    names = namespace(networks=theirs)
    many.mend(names)
    options = Options(many).parse("--encoder", student, "--teacher_encoder", teacher, "--preset", "tiny")
    networks = many.networks(names, options)
    with pytest.raises(UserError, match=rf"by networks\.{unbuilt}\. Put"):
        iter(loader_of(names))
    networks.ResnetEncoder(18, False)
    networks.ResnetEncoderMatching(18, False, input_height=H, input_width=W, num_depth_bins=8)
    iter(loader_of(names))


def test_a_script_of_manydepth_may_build_the_teacher_alone() -> None:
    made = MatchingNetworks(their_networks(), DepthNets(config=preset("tiny")), DepthNets())
    with pytest.raises(UserError, match="asked for and not built"):
        made.check_built()
    made.ResnetEncoder(18, False)
    made.check_built()


def test_optimizer_has_our_trainers_groups() -> None:
    trainer = Trainer(*HYBRID, "--encoder_lr", "1e-6")
    assert isinstance(trainer.optimizer, optim.AdamW)
    own = {id(p) for p in trainer.models["encoder"].parameters() if p.requires_grad}
    *groups, rest = trainer.optimizer.param_groups
    assert {id(p) for group in groups for p in group["params"]} == own
    assert {group["lr"] for group in groups} == {1e-6}
    assert rest["lr"] == 1e-4
    everything = {id(p) for model in trainer.models.values() for p in model.parameters() if p.requires_grad}
    assert {id(p) for p in rest["params"]} == everything - own
    teacher_gone = clone_networks.adam(optim.Adam)([nn.Parameter(torch.zeros(1))], 1e-4)
    assert type(teacher_gone) is optim.Adam


@pytest.mark.parametrize("kind", ["class_token", "shared", "separate_resnet"])
def test_poses(kind: str, image: Tensor, tmp_path: Path) -> None:
    """The trainer's poses equal those of our pose nets with the saved weights, and those that evaluate_pose reads."""
    trainer = Trainer(*HYBRID, "--pose_model_type", kind)
    trainer.eval()
    other = torch.rand(1, 3, H, W)
    encoder, pose = trainer.models["encoder"], trainer.models["pose"]
    with torch.no_grad():
        if kind == "separate_resnet":
            expected = pose([trainer.models["pose_encoder"](torch.cat([other, image], 1))])
        elif kind == "shared":
            both = [torch.split(f, 1) for f in encoder(torch.cat([other, image]))]
            first, second = ([f[i] for f in both] for i in range(2))
            assert trainer.models["depth"](second)["disp", 0].shape == (1, 1, H, W)
            expected = pose([first, second])
        else:
            encoder(image)
            expected = pose([other, image])
    folder = trainer.save(tmp_path / "w")
    assert (folder / "pose_encoder.pth").exists() is (kind == "separate_resnet")

    ours = load_depth_model(folder).encoder
    poses = PoseNetworks(DepthOptions(encoder="hybrid", pose_model_type=kind), ours, "random")
    poses.pose.load_state_dict(torch.load(folder / "pose.pth"))
    if poses.pose_encoder is not None:
        poses.pose_encoder.load_state_dict(torch.load(folder / "pose_encoder.pth"))
    poses.eval()
    with torch.no_grad():
        seen = poses._see(ours, {0: image, -1: other}, {})
        for mine, reference in zip(poses.motions([(seen[-1], seen[0])]), expected, strict=True):
            torch.testing.assert_close(mine[:, 0], reference[:, 0])

    path = str(folder / "pose_encoder.pth")
    networks, path = mono.pose_networks_in({"networks": their_networks()}, str(folder), path)
    pose_encoder = networks.ResnetEncoder(18, False, 2)
    pose_encoder.load_state_dict(torch.load(path))
    decoder = networks.PoseDecoder(pose_encoder.num_ch_enc, 1, 2)
    decoder.load_state_dict(torch.load(folder / "pose.pth"))
    pose_encoder.eval(), decoder.eval()
    with torch.no_grad():
        found = decoder([pose_encoder(torch.cat([other, image], 1))])
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine[:, 0], reference[:, 0])


def test_class_token_of_the_current_frame_is_not_computed_twice(image: Tensor) -> None:
    trainer = Trainer(*HYBRID, "--pose_model_type", "class_token")
    encoder, calls = trainer.models["encoder"], []
    encoder.dino.register_forward_hook(lambda *_: calls.append(1))
    encoder(image)
    axis_angle, translation = trainer.models["pose"]([torch.rand(1, 3, H, W), image])
    assert len(calls) == 2
    assert axis_angle.shape == translation.shape == (1, 1, 1, 3)
    (axis_angle.sum() + translation.sum()).backward()
    assert any(p.grad is not None for p in encoder.dino.parameters())
    assert set(trainer.models["pose"].state_dict()) == {"linear.weight", "linear.bias"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--stage1", "x.pth"), "--stage1 x.pth is for the hybrid encoder: add --encoder hybrid"),
        (("--decoder", "dpt"), "--decoder dpt reads the hybrid encoder's levels"),
        (("--head", "relu"), "--head relu is an end of the DPT decoder"),
        (("--pose_model_type", "class_token"), "add --encoder hybrid"),
        ((*HYBRID, "--head", "relu", "--decoder", "unet"), "--head relu is an end of the DPT decoder"),
        ((*HYBRID, "--predictive_mask"), "add --decoder unet"),
        ((*HYBRID, "--pose_model_type", "class_token", "--pose_model_input", "all"), "drop --pose_model_input all"),
    ],
)
def test_contradicting_options(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Options(mono).parse(*arguments)
    assert message in capsys.readouterr().err


def test_class_token_has_no_pose_encoder_to_load() -> None:
    options = Options(mono).parse(*HYBRID, "--pose_model_type", "class_token")
    assert options.models_to_load == ["encoder", "depth", "pose"]


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    trainer = Trainer(*HYBRID)
    other = ResnetEncoder(18, "random").state_dict()
    with pytest.raises(UserError, match=r"encoder\.pth does not fit"):
        mono.check_weights(trainer.models["encoder"], other, "encoder.pth")
    mono.check_weights(trainer.models["encoder"], {**trainer.models["encoder"].state_dict(), "height": 64}, "x")
    mono.check_weights(trainer.models["pose_encoder"], {}, "pose_encoder.pth")


@pytest.mark.parametrize("layers", [18, 50])
def test_random_pose_nets_start_as_ours(layers: int) -> None:
    """torchvision starts every residual block with a scale of 1, ours start with 0; a pretrained net is left alone."""

    class Theirs(nn.Module):
        def __init__(self, layers: int, pretrained: bool, num_input_images: int = 1) -> None:
            super().__init__()
            self.encoder = getattr(torchvision.models, f"resnet{layers}")()

    networks = their_networks()
    networks.ResnetEncoder = Theirs
    options = Options(mono).parse(*HYBRID)
    hybrid = mono.networks({"networks": networks}, options)
    ours = {name: p for name, p in ResnetEncoder(layers, "random", 2).encoder.named_parameters() if ".bn" in name}
    zeros = 0
    for name, parameter in hybrid.ResnetEncoder(layers, False, 2).encoder.named_parameters():
        if ".bn" in name:
            assert torch.equal(parameter, ours[name]), name
            zeros += name.endswith("weight") and not parameter.any()
    assert zeros == {18: 8, 50: 16}[layers]
    for kept in (hybrid.ResnetEncoder(layers, True, 2), networks.ResnetEncoder(layers, False, 2)):
        assert all(p.all() for name, p in kept.encoder.named_parameters() if name.endswith("bn2.weight"))


def test_files_of_ours_do_not_leave_their_nets_as_they_are(tmp_path: Path) -> None:
    """The originals pass over unknown names, so that a run would start from nothing without a word."""
    folder = Trainer(*HYBRID, "--pose_model_type", "class_token").save(tmp_path / "w")
    theirs = Trainer().models
    with pytest.raises(UserError, match=r"encoder\.pth holds a hybrid encoder: add --encoder hybrid"):
        mono.check_weights(theirs["encoder"], torch.load(folder / "encoder.pth"), str(folder / "encoder.pth"))
    with pytest.raises(UserError, match="add --teacher_encoder hybrid"):
        many.check_weights(theirs["encoder"], torch.load(folder / "encoder.pth"), "w/mono_encoder.pth")
    with pytest.raises(UserError, match=r"pose\.pth reads poses from class tokens"):
        mono.check_weights(theirs["pose"], torch.load(folder / "pose.pth"), str(folder / "pose.pth"))


@pytest.mark.parametrize("scales", [(0,), (0, 1, 2, 3)])
def test_scripts_build_a_resnets_decoder_with_the_scales_of_its_run(scales: tuple[int, ...], tmp_path: Path) -> None:
    folder = Trainer("--scales", *map(str, scales)).save(tmp_path / "w")
    networks = their_networks()
    there = mono.networks_in({"networks": networks}, str(folder))
    assert (there is networks) is (len(scales) == 4)
    encoder = there.ResnetEncoder(18, False)
    assert type(encoder) is ResnetEncoder
    decoder = there.DepthDecoder(num_ch_enc=encoder.num_ch_enc, scales=range(4))
    decoder.load_state_dict(torch.load(folder / "depth.pth"))


def test_optimizer_state_of_other_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (optim.Adam([nn.Parameter(torch.zeros(1)) for _ in range(n)]) for n in (1, 2))
    state = one.state_dict()
    assert mono.fitting_state(state, one) is state
    two.load_state_dict(mono.fitting_state(state, two))
    assert "adam.pth is of other parameters" in capsys.readouterr().out


def test_model_name_takes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_name", type=str, choices=["mono_640x192"])
    mono.accept_folders(parser)
    assert parser.parse_args(["--model_name", "mono_640x192"]).model_name == "mono_640x192"
    (tmp_path / "encoder.pth").touch()
    assert parser.parse_args(["--model_name", str(tmp_path)]).model_name == str(tmp_path.resolve())
    with pytest.raises(SystemExit):
        parser.parse_args(["--model_name", str(tmp_path / "none")])
    assert "no folder with encoder.pth, and none of mono_640x192" in capsys.readouterr().err


@pytest.mark.parametrize("teacher", ["resnet", "hybrid"])
def test_manydepth(teacher: str, image: Tensor, tmp_path: Path) -> None:
    """Both nets as the original trainer builds and calls them, saved, and loaded by its scripts and by our loader."""
    options = Options(many).parse(*HYBRID, "--teacher_encoder", teacher)
    assert options.scales == [0]
    names = namespace(optim=optim, networks=their_networks())
    many.mend(names)
    networks = many.networks(names, options)
    settings: dict[str, Any] = {
        "input_height": H,
        "input_width": W,
        "adaptive_bins": True,
        "min_depth_bin": 0.1,
        "max_depth_bin": 20.0,
        "depth_binning": "linear",
        "num_depth_bins": 8,
    }
    models: dict[str, Any] = {"encoder": networks.ResnetEncoderMatching(18, False, **settings)}
    models["depth"] = networks.DepthDecoder(models["encoder"].num_ch_enc, options.scales)
    models["mono_encoder"] = networks.ResnetEncoder(18, False)
    models["mono_depth"] = networks.DepthDecoder(models["mono_encoder"].num_ch_enc, options.scales)
    models["pose_encoder"] = networks.ResnetEncoder(18, False, num_input_images=2)
    models["pose"] = networks.PoseDecoder(models["pose_encoder"].num_ch_enc, 1, 2)
    assert isinstance(models["mono_encoder"], ResnetEncoder) is (teacher == "resnet")
    optimizer = names["optim"].Adam([p for model in models.values() for p in model.parameters()], 1e-4)
    assert isinstance(optimizer, optim.AdamW)

    K = torch.tensor([[0.58 * W / 4, 0, W / 8, 0], [0, 1.92 * H / 4, H / 8, 0], [0, 0, 1, 0], [0, 0, 0, 1]])[None]
    pose = torch.eye(4)[None, None].clone()
    pose[..., 2, 3] = 0.5
    call = {"current_image": image, "lookup_images": torch.rand(1, 1, 3, H, W), "poses": pose}
    call |= {"K": K, "invK": torch.linalg.inv(K), "min_depth_bin": 1.0, "max_depth_bin": 30.0}  # type: ignore[dict-item]
    features, lowest_cost, confidence = models["encoder"](**call)
    assert lowest_cost.shape == confidence.shape == (1, H // 4, W // 4)
    assert lowest_cost.device.type == "cpu"
    assert not lowest_cost.requires_grad
    disp = models["depth"](features)["disp", 0]
    mono_disp = models["mono_depth"](models["mono_encoder"](image))["disp", 0]
    assert disp.shape == mono_disp.shape == (1, 1, H, W)
    (disp.mean() + mono_disp.mean()).backward()
    optimizer.step()
    for model in models.values():
        model.eval()
    with torch.no_grad():
        expected = models["depth"](models["encoder"](**call)[0])["disp", 0]

    trainer = types.SimpleNamespace(models=models, opt=options, matching_ids=[0, -1])
    for name, model in models.items():
        to_save = model.state_dict()
        if name == "encoder":
            to_save.update(height=H, width=W, min_depth_bin=1.0, max_depth_bin=30.0)
        many.describe(trainer, name, to_save)
        torch.save(to_save, tmp_path / f"{name}.pth")

    there = many.networks_in({"networks": their_networks()}, str(tmp_path))
    encoder = there.ResnetEncoderMatching(18, False, **{**settings, "num_depth_bins": 96})
    decoder = there.DepthDecoder(encoder.num_ch_enc, scales=range(4))
    saved = torch.load(tmp_path / "encoder.pth")
    encoder.load_state_dict({k: v for k, v in saved.items() if k in encoder.state_dict()})
    decoder.load_state_dict(torch.load(tmp_path / "depth.pth"))
    encoder.eval(), decoder.eval()
    with torch.no_grad():
        assert torch.equal(decoder(encoder(**call)[0])["disp", 0], expected)
        ours = load_two_frame_model(tmp_path)
        found = ours.net(
            image, call["lookup_images"], pose, K[:, :3, :3] * torch.tensor([[4.0], [4.0], [1.0]]), (1.0, 30.0)
        )
        torch.testing.assert_close(found[0]["disp", 0], expected, rtol=1e-4, atol=1e-5)
    assert load_depth_model(tmp_path, "mono_encoder", "mono_depth").height == H
    alone = there.ResnetEncoder(18, False)
    there.DepthDecoder(alone.num_ch_enc).load_state_dict(torch.load(tmp_path / "mono_depth.pth"))


def test_manydepth_without_hybrid_is_theirs(tmp_path: Path) -> None:
    options = Options(many).parse()
    names = {"networks": their_networks()}
    assert many.networks(names, options) is names["networks"]
    torch.save({"height": 64, "width": 96}, tmp_path / "encoder.pth")
    assert many.networks_in(names, str(tmp_path)) is names["networks"]
