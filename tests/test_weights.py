"""Reading files of tensors: right ones exactly, wrong ones with a telling error, hostile ones without running them."""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hybrid_encoder.errors import UserError
from hybrid_encoder.weights.reading import load_state, read_checkpoint, read_tensors, tensors_of


class Hyperparameters:
    """A class of some library: what Lightning checkpoints are full of."""

    def __init__(self) -> None:
        self.lr = 1e-3
        self.inner = {"steps": [1, 2, 3]}


class Touch:
    """Creates a file when unpickled the ordinary way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Block()
        self.layers = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2).half())
        self.scale = nn.Parameter(torch.tensor(2.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) * self.scale


def equal(given: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(given) == set(expected)
    for name, value in expected.items():
        assert given[name].dtype == value.dtype, name
        torch.testing.assert_close(given[name], value, rtol=0, atol=0)


def test_reads_every_layout(tmp_path: Path) -> None:
    state = Net().state_dict()
    torch.save(state, tmp_path / "zip.pth")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "state_dict": state, "hyper_parameters": Hyperparameters()}, tmp_path / "foreign.ckpt")
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "parallel.pth")
    save_file(state, tmp_path / "plain.safetensors")
    (tmp_path / "named_otherwise.bin").write_bytes((tmp_path / "plain.safetensors").read_bytes())
    files = sorted(path for path in tmp_path.iterdir())
    assert len(files) == 6
    for path in files:
        equal(read_tensors(path), state)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_reads_torchscript_without_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net().eval()
    torch.jit.trace(net, torch.rand(1, 3, 8, 8)).save(str(tmp_path / "scripted.pt"))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("TorchScript was loaded as code")

    monkeypatch.setattr(torch.jit, "load", refuse)
    equal(read_tensors(tmp_path / "scripted.pt"), net.state_dict())


def test_views_and_shared_storages_survive(tmp_path: Path) -> None:
    whole = torch.arange(24.0)
    state = {"part": whole[4:16].view(3, 4).t(), "again": whole, "bytes": whole.to(torch.bfloat16), "none": whole[:0]}
    torch.save({"state_dict": state, "config": Hyperparameters()}, tmp_path / "views.ckpt")
    equal(read_tensors(tmp_path / "views.ckpt"), state)


def test_plain_values_come_along(tmp_path: Path) -> None:
    torch.save({"height": 192, "hybrid_config": "{}", "w": torch.ones(2)}, tmp_path / "encoder.pth")
    content = read_checkpoint(tmp_path / "encoder.pth")
    assert content["height"] == 192
    assert content["hybrid_config"] == "{}"
    assert set(read_tensors(tmp_path / "encoder.pth")) == {"w"}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_hostile_pickles_run_nothing(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    state = {"w": torch.ones(2)}
    torch.save({"state_dict": state, "hyper_parameters": Touch(touched)}, tmp_path / "lightning.ckpt")
    torch.save({"state_dict": {**state, "x": Touch(touched)}}, tmp_path / "inside.ckpt")
    torch.save(Touch(touched), tmp_path / "top.ckpt")
    torch.save(
        {"state_dict": state, "h": Touch(touched)}, tmp_path / "legacy.ckpt", _use_new_zipfile_serialization=False
    )
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps(Touch(touched)))
    (tmp_path / "raw.safetensors").write_bytes(pickle.dumps(Touch(touched)))
    equal(read_tensors(tmp_path / "lightning.ckpt"), state)
    equal(read_tensors(tmp_path / "inside.ckpt"), state)
    for name in ("top.ckpt", "legacy.ckpt", "raw.pkl", "raw.safetensors"):
        with pytest.raises(UserError, match=name):
            read_tensors(tmp_path / name)
    assert not touched.exists()
    # The files do bite when opened carelessly: the test would notice.
    torch.load(tmp_path / "lightning.ckpt", weights_only=False)
    assert touched.exists()


# Pickle instructions that try to overwrite our own readers' attributes, to build rings, and to name storages elsewhere.
_GLOBAL = b"ctorch._utils\n_rebuild_tensor_v2\n"
_PICKLES = {
    "patches a reader class": b"\x80\x02" + _GLOBAL + b"}X\x08\x00\x00\x00__init__X\x01\x00\x00\x00xsb.",
    "patches an inert class": b"\x80\x02cos\nsystem\n}X\x05\x00\x00\x00stateX\x01\x00\x00\x00xsb.",
    "patches builtins": b"\x80\x02c__builtin__\ndict\n}X\x04\x00\x00\x00keysX\x01\x00\x00\x00xsb.",
    "a list": b"\x80\x02]q\x00h\x00a.",
    "a ring": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "no end": b"\x80\x02}",
    "escaping storage": b"\x80\x02}X\x01\x00\x00\x00w"
    + _GLOBAL
    + b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x0b\x00\x00\x00../../../xyX\x03\x00\x00\x00cpuK\x02tQK\x00"
    + b"K\x02\x85K\x01\x85\x89NtRs.",
    "tensor past its storage": b"\x80\x02}X\x01\x00\x00\x00w"
    + _GLOBAL
    + b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQK\x00"
    + b"K\x63\x85K\x01\x85\x89NtRs.",
}


@pytest.mark.parametrize("name", _PICKLES)
def test_crafted_archives_end_in_an_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / "crafted.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", _PICKLES[name])
        archive.writestr("a/constants.pkl", b"\x80\x02).")  # sends it to our own unpickler
        archive.writestr("a/data/0", bytes(8))
        archive.writestr("../../../xy", bytes(8))
    with pytest.raises(UserError, match="crafted"):
        read_tensors(path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/constants.pkl", b"\x80\x02).")
    with pytest.raises(UserError, match="compressed"):
        read_tensors(path)


def test_compressed_tensors_are_not_mapped(tmp_path: Path) -> None:
    """PyTorch takes the compressed bytes for numbers where it maps an archive."""
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"weight": torch.zeros(4096)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UserError, match=r"packed\.pth .*compressed.*zip -0"):
        read_tensors(packed)


WRAPPED = ["module.", "module.module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module."]


@pytest.mark.parametrize("prefix", WRAPPED)
def test_wrappers_of_nets_are_seen_through(prefix: str, tmp_path: Path) -> None:
    net, other = Net(), Net()
    state = {prefix + name: value for name, value in net.state_dict().items()}
    for content in ({**state, "height": 64}, {"state_dict": state}):
        torch.save(content, tmp_path / "x.pth")
        load_state(other, read_tensors(tmp_path / "x.pth"), "x.pth")
        assert all(torch.equal(value, net.state_dict()[name]) for name, value in other.state_dict().items())
    torch.save({**state, "height": 64}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").keys() == {*net.state_dict(), "height"}


def test_wrapped_parts_and_averages_are_seen_through() -> None:
    net = Net()
    inner = {name.replace(".", "._orig_mod.", 1): value for name, value in net.state_dict().items()}
    assert tensors_of(inner, "x").keys() == net.state_dict().keys()
    averaged = torch.optim.swa_utils.AveragedModel(net).state_dict()
    assert tensors_of(averaged, "x").keys() == net.state_dict().keys()
    both = {"module.weight": torch.zeros(1), "weight": torch.ones(1)}
    assert tensors_of(both, "x").keys() == both.keys()


def test_repeated_views_do_not_make_a_small_file_large() -> None:
    net = nn.Linear(1000, 1000)
    tensors = {"weight": torch.zeros(1).expand(1000, 1000), "bias": torch.zeros(1000)}
    with pytest.raises(UserError, match=r"states tensors of 4004000 bytes and holds 4004"):
        load_state(net, tensors, "x.pth")


def test_wrong_files_are_named_and_described(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "whole.pth")
    save_file(Net().state_dict(), tmp_path / "whole.safetensors")
    whole, safe = (tmp_path / "whole.pth").read_bytes(), (tmp_path / "whole.safetensors").read_bytes()
    cases = {
        "cut.pth": (whole[: len(whole) // 2], "truncated"),
        "cut.safetensors": (safe[: len(safe) // 2], "truncated"),
        "empty.pth": (b"", "empty file"),
        "page.pth": (b"<!DOCTYPE html><html>", "web page"),
        "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
        "text.ckpt": (b"lr: 0.1\nbatch: 3\n", "a text"),
    }
    for name, (data, meaning) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=meaning) as raised:
            read_tensors(tmp_path / name)
        assert name in str(raised.value)
    for missing in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(UserError, match=missing.name):
            read_tensors(missing)


def test_damaged_bytes_never_fill_a_model(tmp_path: Path) -> None:
    path = tmp_path / "bad.ckpt"
    torch.save({"state_dict": {"w": torch.full((4096,), 1.5)}, "h": Hyperparameters()}, path)
    data = bytearray(path.read_bytes())
    middle = data.find(torch.full((8,), 1.5).numpy().tobytes()) + 4096
    data[middle] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"bad\.ckpt"):
        read_tensors(path)


def test_any_damage_ends_in_an_error_or_in_tensors(tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole.ckpt", tmp_path / "damaged.ckpt"
    torch.save({"state_dict": Net().state_dict(), "h": Hyperparameters()}, whole)
    data, rng = whole.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(150):
        changed = bytearray(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data)
        for _ in range(rng.choice([1, 3, 30])):
            # Most of the pickle's instructions lie at the start, most of the archive's directory at the end.
            changed[rng.choice([1, -1]) * rng.randrange(min(3000, len(changed)))] = rng.randrange(256)
        damaged.write_bytes(changed)
        try:
            read_tensors(damaged)
        except UserError:  # nothing else may come through
            refused += 1
    assert refused > 100


def test_load_state_is_strict_and_all_or_nothing() -> None:
    net, other = Net(), Net()
    load_state(net, other.state_dict(), "x.pth")
    equal(net.state_dict(), other.state_dict())
    counters = {name: value for name, value in other.state_dict().items() if "num_batches" not in name}
    load_state(net, counters, "old.pth")

    before = {name: value.clone() for name, value in net.state_dict().items()}
    wrong = {name: value + 1 for name, value in other.state_dict().items()}
    del wrong["first.conv.weight"], wrong["first.norm.running_var"]
    wrong["surplus.weight"] = torch.ones(1)
    wrong["scale"] = torch.ones(3)
    wrong["layers.0.bias"] = torch.ones(2, dtype=torch.int8)
    with pytest.raises(UserError) as raised:
        load_state(net, wrong, "y.pth")
    message = str(raised.value)
    for part in (
        "y.pth does not fit Net",
        "2 missing (first.conv.weight, first.norm.running_var)",
        "1 surplus (surplus.weight)",
        "scale (3,) float32, expected () float32",
        "int8",
        "something unknown",
    ):
        assert part in message, part
    equal(net.state_dict(), before)


def test_foreign_files_are_recognised() -> None:
    resnet = {"encoder.conv1.weight": torch.ones(1), "encoder.layer1.0.conv1.weight": torch.ones(1)}
    with pytest.raises(UserError, match="a ResNet encoder of the Monodepth2 family"):
        load_state(Net(), resnet, "encoder.pth")
    dino = {"patch_embed.proj.weight": torch.ones(1), "blocks.0.norm1.weight": torch.ones(1)}
    with pytest.raises(UserError, match="a vision transformer"):
        load_state(Net(), dino, "dino.pth")
