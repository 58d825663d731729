"""Hosts' own decoders, unmodified, on the hybrid encoder, with the lines that docs/HOSTS.md tells a user to type.

Nothing is cloned here: where HYBRID_ENCODER_CLONES names a folder that holds a host's clone, its rows are tried. The
preset is "tiny" in place of "paper": shapes and gradients are the same.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import hybrid_encoder

CLONES = Path(os.environ.get("HYBRID_ENCODER_CLONES", "/nowhere"))
PAGE = (Path(__file__).parents[1] / "docs" / "HOSTS.md").read_text(encoding="utf-8")
SIZE = (64, 192)

PLAIN = 'encoder = create_encoder("paper")'
LITE_MONO = 'encoder = create_encoder("paper", num_ch_enc=(48, 80, 128), strides=(4, 8, 16))'


@dataclass(frozen=True)
class Trial:
    """One row: what is typed in a host, and what of the host runs on the encoder.

    Attributes:
        clone: folder of the clone in HYBRID_ENCODER_CLONES, named as the repository; that of Mono-ViFI is mono_vifi, as
            `hybrid-encoder patch` names it.
        typed: the lines that give `encoder`.
        net: from the encoder, what takes its maps: the host's decoder, or one with what surrounds it.
        theirs: the host's own encoder, which `like` reads the same shapes from; None: it is not built here.
    """

    clone: str
    typed: tuple[str, ...]
    net: Callable[[Any], nn.Module]
    theirs: Callable[[], nn.Module] | None = None


def module(name: str) -> Any:
    return importlib.import_module(name)


def decoder(name: str, *arguments: Any, **settings: Any) -> Callable[[Any], nn.Module]:
    """A decoder of the Monodepth2 family: by its module and class, built from `num_ch_enc`."""
    path, _, kind = name.rpartition(".")
    return lambda encoder: getattr(module(path), kind)(encoder.num_ch_enc, *arguments, **settings)


class VideoNet(nn.Module):
    """Mono-ViFI's decoder on one frame, and on three frames that its fusion module joins."""

    def __init__(self, encoder: Any, backbone: str, kind: str) -> None:
        super().__init__()
        options = types.SimpleNamespace(backbone=backbone)
        self.fusion = module("networks.fusion_module").FusionModule(options, encoder.num_ch_enc)
        self.decoder = module(f"networks.{kind}").DepthDecoder(encoder.num_ch_enc, range(1))

    def forward(self, maps: list[Tensor]) -> list[Any]:
        flows = [torch.randn(len(maps[0]), 2, *SIZE) for _ in range(2)]
        fused = self.fusion([maps, maps, maps], flows, torch.rand(len(maps[0]), 1, *SIZE))
        return [self.decoder(maps), self.decoder(fused)]


def mono_vifi(backbone: str, kind: str, typed: str, *arguments: Any, **settings: Any) -> Trial:
    return Trial(
        "mono_vifi",
        (typed,),
        lambda encoder: VideoNet(encoder, backbone, kind),
        lambda: module(f"networks.{kind}").DepthEncoder(*arguments, **settings),
    )


def sql_depth(encoder: Any) -> nn.Module:
    """SQLdepth's U-Net in whose place of the ResNet-50 the hybrid encoder stands, and its decoder."""
    net = module("networks.resnet_encoder").ResnetEncoderDecoder(num_layers=50, num_features=64, model_dim=16)
    head = module("networks.depth_decoder_QTR").Depth_Decoder_QueryTr(16, 16, 8, query_nums=8, dim_out=16)
    return nn.Sequential(net.decoder, head)


def slowtv(encoder: Any) -> nn.Module:
    """slowtv_monodepth's `DepthNet`, which builds its encoder by timm's name."""
    package = module("src.registry")
    vars(sys.modules["src"]).update(register=package.register, DEC_REG=package.DEC_REG)
    module("src.networks.decoders.monodepth")
    net = module("src.networks.depth").DepthNet("hybrid_encoder_tiny", pretrained=False)
    assert (net.num_ch_enc, net.enc_sc) == (encoder.feature_info.channels(), encoder.feature_info.reduction())
    disparities: nn.Module = net.decoders["disp"]
    return disparities


def diffnet(encoder: Any) -> nn.Module:
    """Its trainer sets these widths itself, whatever encoder it has built."""
    encoder.num_ch_enc = [64, 18, 36, 72, 144]
    return decoder("networks.HR_Depth_Decoder.HRDepthDecoder")(encoder)


TRIALS = {
    "Mono-ViFI, ResNet18": mono_vifi("ResNet18", "monodepth2", PLAIN, 18, False),
    "Mono-ViFI, DHRNet": mono_vifi("DHRNet", "DHRNet", PLAIN, 18, False),
    "Mono-ViFI, LiteMono": mono_vifi("LiteMono", "LiteMono", LITE_MONO, model="lite-mono", width=640, height=192),
    "Lite-Mono": Trial("Lite-Mono", (LITE_MONO,), decoder("networks.depth_decoder.DepthDecoder", range(3))),
    "DIFFNet": Trial(
        "DIFFNet",
        ('encoder = create_encoder("paper", num_ch_enc=(64, 118, 36, 72, 144), nesting=(0, 1, 3, 2, 0))',),
        diffnet,
        lambda: module("networks.test_hr_encoder").hrnet18(False),
    ),
    "MonoViT": Trial(
        "MonoViT",
        ('encoder = create_encoder("paper", num_ch_enc=(64, 128, 216, 288, 288))',),
        lambda _: module("networks.hr_decoder").DepthDecoder(),
    ),
    "CADepth": Trial("CADepth-master", (PLAIN,), decoder("networks.depth_decoder.DepthDecoder")),
    "RA-Depth": Trial("RA-Depth", (PLAIN,), decoder("networks.depth_decoder_msf.DepthDecoder_MSF")),
    "HR-Depth": Trial("HR-Depth", (PLAIN,), decoder("networks.HR_Depth_Decoder.HRDepthDecoder")),
    "HR-Depth mobile": Trial(
        "HR-Depth",
        ('encoder = create_encoder("paper", num_ch_enc=(16, 24, 40, 80, 160))',),
        decoder("networks.HR_Depth_Decoder.HRDepthDecoder", mobile_encoder=True),
    ),
    "SQLdepth R50": Trial(
        "SfMNeXt-Impl",
        ('encoder = create_encoder("paper", num_ch_enc=(64, 256, 512, 1024, 2048))',),
        sql_depth,
    ),
    "slowtv_monodepth": Trial(
        "slowtv_monodepth",
        (
            "import hybrid_encoder.adapters.timm_models",
            'encoder = timm.create_model("hybrid_encoder_paper", pretrained=True, features_only=True)',
        ),
        slowtv,
    ),
    "sc_depth_pl": Trial("sc_depth_pl", (PLAIN,), decoder("models.DepthNet.DepthDecoder")),
}


@pytest.fixture
def clone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """A trial whose clone can be imported from, without what `__init__.py` files of 2019 to 2023 ask for."""
    trial = TRIALS[request.param]
    folder = CLONES / trial.clone
    if not folder.is_dir():
        pytest.skip(f"HYBRID_ENCODER_CLONES has no clone {trial.clone}")
    before = set(sys.modules)
    monkeypatch.syspath_prepend(folder)

    def stand_in(name: str, **names: Any) -> None:
        found = types.ModuleType(name)
        vars(found).update(names)
        monkeypatch.setitem(sys.modules, name, found)

    for name in ("networks", "models", "src", "src.networks", "src.networks.decoders"):
        stand_in(name, __path__=[str(folder / name.replace(".", "/"))])
    stand_in("torchvision.models.utils", load_state_dict_from_url=None)  # gone since torchvision 0.13
    stand_in("src.tools", blend_stereo=None)
    stand_in("src.utils", sort_dict=lambda found: dict(sorted(found.items())), Timer=None, get_logger=logging.getLogger)
    resnet50 = torchvision.models.resnet50
    monkeypatch.setattr(torchvision.models, "resnet50", lambda *_: resnet50())  # without a download
    yield trial
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


def typed(lines: tuple[str, ...], **names: Any) -> Any:
    """The encoder that these lines give: tiny, and with random towers."""
    text = "\n".join(lines).replace('"paper"', '"tiny"').replace("_paper", "_tiny")
    text = text.replace("pretrained=True", "pretrained=False")
    scope = {"create_encoder": hybrid_encoder.create_encoder, "hybrid_encoder": hybrid_encoder, **names}
    scope["timm"] = importlib.import_module("timm")
    exec(text, scope)
    return scope["encoder"]


def tensors(found: Any) -> list[Tensor]:
    """All tensors in nested lists and dictionaries."""
    if isinstance(found, Tensor):
        return [found]
    parts = list(found.values()) if isinstance(found, dict) else list(found)
    return [tensor for part in parts for tensor in tensors(part)]


def train_one_step(encoder: Any, net: nn.Module) -> None:
    """Forward and backward pass, one step; every trainable tensor of the encoder has a gradient and moves or may."""
    encoder.train()
    optimizer = torch.optim.AdamW([*encoder.parameter_groups(1e-3), {"params": net.parameters()}])
    outputs = tensors(net(encoder(torch.rand(2, 3, *SIZE))))
    loss: Any = sum(output.square().mean() for output in outputs)
    loss.backward()
    dead = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not dead
    before = [p.detach().clone() for p in encoder.parameters() if p.requires_grad]
    optimizer.step()
    after = [p for p in encoder.parameters() if p.requires_grad]
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert loss.isfinite()


@pytest.mark.parametrize("clone", TRIALS, indirect=True)
def test_a_hosts_own_decoder_trains(clone: Trial) -> None:
    torch.manual_seed(0)
    encoder = typed(clone.typed)
    train_one_step(encoder, clone.net(encoder))


@pytest.mark.parametrize("clone", [name for name, trial in TRIALS.items() if trial.theirs], indirect=True)
def test_like_reads_a_hosts_own_encoder(clone: Trial) -> None:
    """One line, `like`, gives maps of the shapes that the host's own encoder gives, and its decoder trains."""
    assert clone.theirs is not None
    theirs = clone.theirs()
    encoder = typed(('encoder = hybrid_encoder.like(host_encoder, "paper")',), host_encoder=theirs)
    expected = [tuple(m.shape) for m in tensors(theirs.eval()(torch.rand(1, 3, 192, 640)))]
    with torch.no_grad():
        found = [tuple(m.shape) for m in tensors(encoder.eval()(torch.rand(1, 3, 192, 640)))]
    if clone.clone == "DIFFNet":  # its list of four maps of stride 4 is one map here: its decoder joins them
        expected = [expected[0], (1, 118, 48, 160), *expected[5:]]
    assert found == expected
    train_one_step(encoder, clone.net(encoder))


@pytest.mark.parametrize("name", TRIALS)
def test_the_page_says_what_is_typed_here(name: str) -> None:
    lines = TRIALS[name].typed
    assert len(lines) <= 3
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {name} |"))
    assert row.split("|")[4].strip() == str(len(lines))
    assert all(f"`{line.removeprefix('encoder = ')}`" in row for line in lines)
