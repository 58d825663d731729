"""Hosts' own decoders on the hybrid encoder: the shapes that they want, frozen encoders, files without frozen parts.

The decoders are generated: a U-Net on as many maps as a host has, at its widths and strides, or on its nested lists.
docs/HOSTS.md names the hosts.
"""

from __future__ import annotations

import copy
import importlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hybrid_encoder
from hybrid_encoder import PRESETS, DepthModel, HybridEncoder, HybridEncoderConfig, UserError, create_encoder
from hybrid_encoder.model.channels import Channels
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.host_shapes import probe
from hybrid_encoder.model.nets import DepthNets
from hybrid_encoder.model.resnet import ResnetEncoder, UNetDecoder
from hybrid_encoder.stage1.checkpoint import load_stage1, save_stage1

DOCS = Path(__file__).parents[1] / "docs"

HOSTS = {
    "Lite-Mono": ((48, 80, 128), (4, 8, 16)),
    "MonoViT": ((64, 128, 216, 288, 288), (2, 4, 8, 16, 32)),
    "SQLdepth R50": ((64, 256, 512, 1024, 2048), (2, 4, 8, 16, 32)),
    "HR-Depth mobile": ((16, 24, 40, 80, 160), (2, 4, 8, 16, 32)),
    "four maps": ((96, 192, 384, 768), (4, 8, 16, 32)),
}
DIFFNET = {"num_ch_enc": (64, 118, 36, 72, 144), "nesting": (0, 1, 3, 2, 0)}
DIFFNET_LISTS = ((64,), (64, 18, 18, 18), (36, 36, 36), (72, 72), (144,))
"""Widths of the maps in DIFFNet's lists, read off the real encoder (tests/test_host_clones.py)."""


def tiny(**changes: Any) -> HybridEncoder:
    torch.manual_seed(0)
    return create_encoder("tiny", **changes)


def flat(maps: Sequence[Any]) -> list[Tensor]:
    return [part for entry in maps for part in (entry if isinstance(entry, list) else [entry])]


class HostDecoder(nn.Module):
    """From coarse to fine: doubles until it has the next map's size, joins it; then the image's size."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.read = nn.ModuleList(nn.Conv2d(width, 8, 1) for width in widths)

    def forward(self, maps: Sequence[Any]) -> Tensor:
        found = [read(m) for read, m in zip(self.read, flat(maps), strict=True)]
        x = found[-1]
        for finer in reversed(found[:-1]):
            scale = finer.shape[-1] // x.shape[-1]
            x = F.interpolate(x, scale_factor=scale) + finer if scale > 1 else x + finer
        return x.mean(1, keepdim=True).sigmoid()


class HostEncoder(nn.Module):
    """A host's: as many convolutions as it has maps."""

    def __init__(self, widths: Sequence[int], strides: Sequence[int], nesting: Sequence[int] | None = None) -> None:
        super().__init__()
        given = (3, *widths[:-1])
        steps = [stride // before for stride, before in zip(strides, (1, *strides[:-1]), strict=True)]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(g, out, 3, step, padding=1), nn.BatchNorm2d(out))
            for g, out, step in zip(given, widths, steps, strict=True)
        )
        self.nesting = nesting or (0,) * len(widths)

    def forward(self, x: Tensor) -> list[Any]:
        maps: list[Any] = []
        for layer, count in zip(self.layers, self.nesting, strict=True):
            x = layer(x)
            maps.append([x] * count if count else x)
        return maps


def assert_all_train(encoder: nn.Module, loss: Tensor) -> None:
    loss.backward()
    dead = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not dead


@pytest.mark.parametrize("host", HOSTS)
def test_a_hosts_decoder_trains(host: str, tmp_path: Path) -> None:
    """Forward, backward, one step, no trainable tensor without a gradient; saved and opened again."""
    widths, strides = HOSTS[host]
    encoder = tiny(num_ch_enc=widths, strides=strides).train()
    decoder = HostDecoder(encoder.num_ch_enc)
    image = torch.rand(2, 3, 64, 96)
    maps = encoder(image)
    assert [tuple(m.shape[1:]) for m in maps] == [(w, 64 // s, 96 // s) for w, s in zip(widths, strides, strict=True)]
    optimizer = torch.optim.AdamW([*encoder.parameter_groups(1e-3), {"params": decoder.parameters()}])
    assert_all_train(encoder, decoder(maps).mean())
    optimizer.step()
    with torch.no_grad():
        expected = encoder.eval()(image)
        again = create_encoder(str(encoder.save_pretrained(tmp_path / "saved")))
        assert again.config == encoder.config.without_downloads()
        for ours, theirs in zip(again(image), expected, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"alignment": "replace"},
        {"alignment": "none"},
        {"dino": None},
        {"image_tower": None},
        {"fusion": "convs2_interp"},
        {"train_image_tower": False},
        {"train_dino_blocks": 1},
        {"image_tower": "resnet18", "image_tower_weights": "random"},
    ],
    ids=lambda changes: ",".join(f"{k}={v}" for k, v in changes.items()) or "as it is",
)
def test_no_trainable_tensor_is_without_a_gradient(changes: dict[str, Any]) -> None:
    widths, strides = HOSTS["Lite-Mono"]
    encoder = tiny(num_ch_enc=widths, strides=strides, **changes).train()
    assert_all_train(encoder, sum(m.square().mean() for m in encoder(torch.rand(2, 3, 64, 64))))  # type: ignore[arg-type]


def test_fewer_maps_leave_the_levels_as_they_are(tmp_path: Path) -> None:
    """The DPT decoder and stage 1 read four levels, whatever a host takes."""
    widths, strides = HOSTS["Lite-Mono"]
    encoder, usual = tiny(num_ch_enc=widths, strides=strides).eval(), tiny(pyramid=False).eval()
    save_stage1(tmp_path / "stage1.pth", usual, usual.config, {})
    load_stage1(encoder, tmp_path / "stage1.pth")
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(
            encoder.forward_features(image).fused, usual.forward_features(image).fused, strict=True
        ):
            assert torch.equal(ours, theirs)
        assert DPTDecoder(encoder)(encoder.forward_features(image))["disp", 0].shape == (1, 1, 64, 96)


def test_the_usual_maps_have_their_old_tensors() -> None:
    names = [name for name in tiny(stride4_skip=False).state_dict() if name.startswith("pyramid.")]
    assert len(names) == 5 * (1 + 5 + 2)
    assert {"pyramid.project.4.0.weight", "pyramid.project.0.1.running_mean", "pyramid.smooth.4.bias"} <= set(names)


def test_old_configs_are_read() -> None:
    new = ("num_ch_enc", "strides", "nesting", "size")
    old = {name: value for name, value in tiny().config.to_dict().items() if name not in new}
    assert HybridEncoderConfig.from_dict(old) == tiny().config
    config = tiny().config.replace(num_ch_enc=(48, 80, 128), strides=(4, 8, 16), nesting=(0, 2, 0), size="pad")
    assert HybridEncoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_ch_enc": (48, 80, 128)}, "are 3 maps and strides"),
        ({"num_ch_enc": (), "strides": ()}, "1 to 5 maps"),
        ({"num_ch_enc": (48, 80, 0), "strides": (4, 8, 16)}, "each 1 to 8192"),
        ({"num_ch_enc": (48, 80, 128), "strides": (4, 16, 8)}, "expected ascending ones of 2, 4, 8, 16, 32"),
        ({"num_ch_enc": (48, 80, 128), "strides": (4, 8, 8)}, "expected ascending ones of 2, 4, 8, 16, 32"),
        ({"num_ch_enc": (48, 80, 128), "strides": (1, 2, 4)}, "expected ascending ones of 2, 4, 8, 16, 32"),
        ({"nesting": (0, 4)}, "expected 5 numbers"),
        ({"nesting": (0, 4, -1, 0, 0)}, "expected 5 numbers"),
        ({"size": "crop"}, "expected one of 'strict', 'pad'"),
        ({"num_ch_enc": 64}, r"expected tuple\[int, \.\.\.\]"),
    ],
)
def test_maps_that_cannot_be_built_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(**changes)


def test_the_u_net_decoder_reads_five_maps() -> None:
    config = tiny().config.replace(num_ch_enc=(48, 80, 128), strides=(4, 8, 16))
    with pytest.raises(UserError, match="reads five maps"):
        UNetDecoder(config.num_ch_enc)
    with pytest.raises(UserError, match="reads five maps"):
        DepthNets(config=config)
    encoder = create_encoder(config)
    assert DepthModel(encoder, DPTDecoder(encoder), 64, 96).predict(np.zeros((40, 60, 3), np.uint8)).shape == (40, 60)


def test_saved_maps_keep_their_strides(tmp_path: Path) -> None:
    """Other strides would fit the tensors and compute something else."""
    folder = tiny(num_ch_enc=(48, 80, 128), strides=(4, 8, 16)).save_pretrained(tmp_path / "saved")
    with pytest.raises(UserError, match="was trained with strides"):
        create_encoder(str(folder), strides=(8, 16, 32))
    assert create_encoder(str(folder), size="pad").config.size == "pad"


# What hosts ask an encoder for


def test_num_ch_enc_is_a_list_of_plain_ints() -> None:
    """What the originals and their forks do with theirs, a numpy array."""
    for widths in (tiny().num_ch_enc, ResnetEncoder(18, "random").num_ch_enc):
        assert repr(widths) == str(widths) == json.dumps(widths) == "[64, 64, 128, 256, 512]"
        assert type(widths[-1]) is type(next(iter(widths))) is int
        assert widths[::-1] == [512, 256, 128, 64, 64]
        assert widths == copy.deepcopy(widths) == widths.tolist() == [64, 64, 128, 256, 512]
        assert np.array(widths).dtype.kind == "i"
        assert widths * 2 == 2 * widths == [128, 128, 256, 512, 1024]
        assert widths * np.array(2) == widths * 2
        assert widths // 2 == [32, 32, 64, 128, 256]
        assert (widths / 2).astype("int").tolist() == [32, 32, 64, 128, 256]
        larger = widths.copy()
        larger[1:] *= 4
        assert larger == [64, 256, 512, 1024, 2048]
        assert isinstance(larger[1:], Channels)
        assert widths[1] == 64


def test_the_maps_are_described_as_timm_describes_them() -> None:
    encoder = tiny(num_ch_enc=(48, 80, 128), strides=(4, 8, 16))
    assert encoder.strides == (4, 8, 16)
    info = encoder.feature_info
    assert (info.channels(), info.reduction()) == ([48, 80, 128], [4, 8, 16])
    assert (info.channels(1), info.reduction(2), len(info)) == (80, 16, 3)
    resnet = timm.create_model("resnet18", features_only=True, pretrained=False)
    ours = ResnetEncoder(18, "random")
    assert ours.feature_info.channels() == resnet.feature_info.channels()
    assert ours.feature_info.reduction() == list(ours.strides) == resnet.feature_info.reduction()


def test_nested_maps_and_diffnets_decoder() -> None:
    encoder = tiny(**DIFFNET).train()
    maps = encoder(torch.rand(2, 3, 64, 96))
    assert [len(entry) if isinstance(entry, list) else 0 for entry in maps] == [0, 1, 3, 2, 0]
    assert all(part is maps[2][0] for part in maps[2])
    joined = [torch.cat(entry, 1).shape[1] for entry in maps[1:4]]
    assert joined == [sum(widths) for widths in DIFFNET_LISTS[1:4]]
    repeated = [w for w, count in zip(encoder.num_ch_enc, (1, 1, 3, 2, 1), strict=True) for _ in range(count)]
    assert_all_train(encoder, HostDecoder(repeated)(maps).mean())
    features = encoder.forward_features(torch.rand(2, 3, 64, 96))
    assert len(encoder.drop_in_maps(features)) == 5, "our own decoders take plain maps"


@pytest.mark.parametrize("size", [(70, 100), (64, 96), (33, 65), (200, 31)])
def test_padded_images_give_cropped_maps(size: tuple[int, int]) -> None:
    """As many cells as a ResNet's maps have; those inside equal the ones of the padded image."""
    image = torch.rand(1, 3, *size)
    strict, padding = tiny().eval(), tiny(size="pad").eval()
    with torch.no_grad():
        maps = padding(image)
        padded = F.pad(image, (0, -size[1] % 32, 0, -size[0] % 32), mode="replicate")
        expected = strict(padded)
        theirs = ResnetEncoder(18, "random").eval()
        cells = [tuple(m.shape[-2:]) for m in theirs.drop_in_maps(_features_of_any_size(theirs, image))]
    assert [tuple(m.shape[-2:]) for m in maps] == cells
    for found, whole in zip(maps, expected, strict=True):
        assert torch.equal(found, whole[..., : found.shape[-2], : found.shape[-1]])
    if size != (64, 96):
        with pytest.raises(UserError, match="is not a multiple of 32"):
            strict(image)
        with pytest.raises(UserError, match="is not a multiple of 32"):
            padding.forward_features(image)


def _features_of_any_size(encoder: ResnetEncoder, image: Tensor) -> Any:
    padded_away = encoder.encoder
    x = padded_away.act1(padded_away.bn1(padded_away.conv1(image)))  # type: ignore[operator]
    maps = [x, padded_away.layer1(padded_away.maxpool(x))]  # type: ignore[operator]
    for layer in (padded_away.layer2, padded_away.layer3, padded_away.layer4):
        maps.append(layer(maps[-1]))  # type: ignore[operator]
    return hybrid_encoder.HybridFeatures(maps, [], [], None, (image.shape[-2], image.shape[-1]))


# like


@pytest.mark.parametrize("host", HOSTS)
def test_like_takes_a_hosts_shapes(host: str) -> None:
    widths, strides = HOSTS[host]
    theirs = HostEncoder(widths, strides)
    encoder = hybrid_encoder.like(theirs, "tiny")
    assert (tuple(encoder.num_ch_enc), encoder.strides, encoder.config.nesting) == (widths, strides, None)
    image = torch.rand(2, 3, 64, 96)
    assert [m.shape for m in encoder(image)] == [m.shape for m in theirs(image)]


def test_probing_leaves_the_host_as_it_is() -> None:
    theirs = HostEncoder(*HOSTS["Lite-Mono"]).train()
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    drawn = torch.get_rng_state()
    probe(theirs, (64, 96))
    assert theirs.training
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in theirs.state_dict().items())


def test_like_takes_nested_lists_and_other_changes() -> None:
    theirs = HostEncoder(DIFFNET["num_ch_enc"], (2, 4, 8, 16, 32), DIFFNET["nesting"])
    encoder = hybrid_encoder.like(theirs, "tiny", (64, 96), alignment="none")
    assert encoder.config.nesting == DIFFNET["nesting"]
    assert encoder.config.alignment == "none"
    for ours, expected in zip(encoder(torch.rand(1, 3, 64, 96)), theirs(torch.rand(1, 3, 64, 96)), strict=True):
        assert [part.shape for part in flat([ours])] == [part.shape for part in flat([expected])]


def test_like_joins_maps_of_several_widths_in_a_list() -> None:
    """DIFFNet's list at stride 4 holds 64 and three times 18 channels, which its decoder concatenates."""
    strides = (2, 4, 8, 16, 32)
    sizes = [(192 // s, 640 // s) for s in strides]
    lists = [maps_of(*((w, *size) for w in widths)) for widths, size in zip(DIFFNET_LISTS, sizes, strict=True)]
    found = probe(_Returns([lists[0][0], *lists[1:4], lists[4][0]]))
    assert (found.num_ch_enc, found.nesting) == (DIFFNET["num_ch_enc"], DIFFNET["nesting"])
    assert found.strides == strides


def test_like_takes_timms_features() -> None:
    theirs = timm.create_model("resnet18", features_only=True, pretrained=False)
    encoder = hybrid_encoder.like(theirs, "tiny", (64, 96))
    assert encoder.num_ch_enc == theirs.feature_info.channels()


class _Returns(nn.Module):
    def __init__(self, returned: Any) -> None:
        super().__init__()
        self.returned = returned

    def forward(self, image: Tensor) -> Any:
        if isinstance(self.returned, Exception):
            raise self.returned
        return self.returned


def maps_of(*sizes: tuple[int, int, int]) -> list[Tensor]:
    return [torch.zeros(1, *size) for size in sizes]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.zeros(1, 8, 6, 20), "returns a Tensor: expected a list of feature maps"),
        ([*maps_of((8, 48, 160)), "text"], "returns no map as number 1"),
        ([*maps_of((8, 48, 160)), []], "returns no map as number 1"),
        ([maps_of((8, 48, 160), (8, 24, 80))], r"maps of .* in list 0: expected maps of one height and width"),
        (maps_of((8, 50, 160)), "map 0 of _Returns has 50 x 160 cells of an image of 192 x 640"),
        (maps_of((8, 192, 640), (8, 96, 320), (8, 48, 160)), r"strides=\(1, 2, 4\): expected ascending"),
        (maps_of(*[(8, 96, 320)] * 6), "1 to 5 maps"),
        (RuntimeError("wants 3 frames"), r"fails on an image of \(1, 3, 192, 640\) \(RuntimeError: wants 3 frames\)"),
    ],
)
def test_hosts_that_return_something_else_are_refused(returned: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        hybrid_encoder.like(_Returns(returned), "tiny")


# Freezing, rates, files


def test_a_frozen_encoder_stays_as_it_is_and_trains_again() -> None:
    encoder = tiny(train_dino_blocks=1).train()
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    modes = {name: module.training for name, module in encoder.named_modules()}
    assert encoder.freeze() is encoder
    assert encoder.freeze().train().parameter_groups(1e-3) == []
    assert not any(module.training for module in encoder.modules())
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert not any(m.requires_grad for m in encoder(torch.rand(2, 3, 64, 64)))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert encoder.unfreeze() is encoder
    assert {name for name, p in encoder.named_parameters() if p.requires_grad} == trained
    assert {name: module.training for name, module in encoder.named_modules()} == modes
    encoder.freeze().eval()
    assert not encoder.unfreeze().training
    assert ResnetEncoder(18, "random").freeze().parameter_groups(1e-3) == []


def test_every_part_may_have_its_rate() -> None:
    encoder = tiny(train_dino_blocks=1)
    groups = encoder.parameter_groups(1e-3, rates={"dino": 1e-5, "image_tower": 1e-4})
    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    wanted = {"dino": 1e-5, "image_tower": 1e-4}
    for name, parameter in encoder.named_parameters():
        assert rate_of.get(id(parameter)) == (
            wanted.get(name.partition(".")[0], 1e-3) if parameter.requires_grad else None
        ), name
    assert all(group["params"] for group in groups)
    usual = {id(p): group["weight_decay"] for group in encoder.parameter_groups(1e-3) for p in group["params"]}
    assert usual == {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    with pytest.raises(
        UserError, match="rates name 'clip', which is no part of this encoder: it has image_tower, dino"
    ):
        encoder.parameter_groups(1e-3, rates={"clip": 1e-5})


def saved_and_read(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("frozen", [False, True])
def test_files_without_frozen_parameters(frozen: bool) -> None:
    """The config stands beside the tensors; a host's own evaluate script reads both."""
    trained = tiny(train_dino_blocks=1).train()
    published = copy.deepcopy(trained.state_dict())
    image = torch.rand(2, 3, 64, 64)
    optimizer = torch.optim.AdamW(trained.parameter_groups(1e-2))
    sum(m.square().mean() for m in trained(image)).backward()  # type: ignore[union-attr]
    optimizer.step()
    if frozen:
        trained.freeze()
    saved = saved_and_read({"config": trained.config.to_dict(), "encoder": trained.trainable_state_dict()})
    assert [name for name in saved["encoder"] if name.startswith("language.")] == ["language.tokens"]
    assert not any(name.startswith("dino.vit.blocks.0.") for name in saved["encoder"])
    encoder = create_encoder(HybridEncoderConfig.from_dict(saved["config"]))
    encoder.load_state_dict(published)  # as the towers' published weights would
    encoder.load_state_dict(saved["encoder"])
    with torch.no_grad():
        for ours, theirs in zip(encoder.eval()(image), trained.eval()(image), strict=True):
            assert torch.equal(ours, theirs)
    within = nn.ModuleDict({"encoder": encoder, "decoder": nn.Conv2d(1, 1, 1)})
    within.load_state_dict(
        {f"encoder.{k}": v for k, v in saved["encoder"].items()}
        | {f"decoder.{k}": v for k, v in within["decoder"].state_dict().items()}
    )


def test_other_frozen_parameters_are_refused() -> None:
    state = tiny(train_dino_blocks=1).trainable_state_dict()
    torch.manual_seed(1)
    other = create_encoder("tiny", train_dino_blocks=1)
    with pytest.raises(UserError, match="not those that it was saved with: build the encoder from the same config"):
        other.load_state_dict(state)
    del state["language.tokens"]
    with pytest.raises(UserError, match="not those that it was saved with"):
        tiny(train_dino_blocks=1).load_state_dict(state)
    state.pop("frozen_checksum")
    with pytest.raises(RuntimeError, match="Missing key"):
        tiny(train_dino_blocks=1).load_state_dict(state)


def test_the_page_of_hosts_names_what_is_tried_here() -> None:
    """Every shape that docs/HOSTS.md tells to type is one of those above, and its host is marked."""
    page = (DOCS / "HOSTS.md").read_text(encoding="utf-8")
    for host, (widths, strides) in HOSTS.items():
        if host != "four maps":
            row = next(line for line in page.splitlines() if line.startswith("| ") and host in line)
            assert f"num_ch_enc={widths}" in row
            assert row.endswith(f"| {host} |")
            assert (f"strides={strides}" in row) is (len(widths) != 5)
    typed = re.findall(r'create_encoder\("paper", num_ch_enc=(\([\d, ]+\))', page)
    assert {str(widths) for widths, _ in HOSTS.values()} | {str(DIFFNET["num_ch_enc"])} >= set(typed)
    assert f"nesting={DIFFNET['nesting']}" in page


def test_timm_creates_hybrid_encoders() -> None:
    importlib.import_module("hybrid_encoder.adapters.timm_models")
    assert {f"hybrid_encoder_{preset}" for preset in PRESETS} == set(timm.list_models("hybrid_encoder_*"))
    encoder = timm.create_model("hybrid_encoder_tiny", features_only=True, num_tokens=8)
    assert (encoder.feature_info.channels(), encoder.config.num_tokens) == ([64, 64, 128, 256, 512], 8)
    some = timm.create_model("hybrid_encoder_tiny", features_only=True, out_indices=(1, 2, -1))
    assert some.feature_info.reduction() == [4, 8, 32]
    assert [m.shape[-1] for m in some(torch.rand(1, 3, 64, 96))] == [24, 12, 3]
    with pytest.raises(UserError, match="add features_only=True"):
        timm.create_model("hybrid_encoder_tiny")
    with pytest.raises(UserError, match="unknown encoder option 'in_chans'"):
        timm.create_model("hybrid_encoder_tiny", features_only=True, in_chans=4)


def test_segmentation_models_build_on_hybrid_encoders() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    importlib.import_module("hybrid_encoder.adapters.smp")
    assert {f"hybrid_encoder_{preset}.published" for preset in PRESETS} <= set(smp.encoders.get_encoder_names())
    image = torch.rand(2, 3, 64, 96)
    for name in ("Unet", "UnetPlusPlus", "FPN", "Linknet", "MAnet", "UPerNet", "Segformer"):
        model = getattr(smp, name)("hybrid_encoder_tiny", encoder_weights=None, classes=4)
        masks = model(image)
        assert masks.shape == (2, 4, 64, 96)
        masks.square().mean().backward()
        without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert all(n.startswith("encoder.pyramid.") for n in without), name  # of the map at stride 2
        assert bool(without) == (name in ("FPN", "UPerNet")), name
    shallow = smp.Unet("hybrid_encoder_tiny", encoder_weights=None, encoder_depth=3, decoder_channels=(32, 16, 8))
    assert shallow(image).shape == (2, 1, 64, 96)
    for name in ("DeepLabV3", "DeepLabV3Plus", "PAN"):
        with pytest.raises(UserError, match="cannot be dilated"):
            getattr(smp, name)("hybrid_encoder_tiny", encoder_weights=None)
    with pytest.raises(UserError, match="RGB"):
        smp.Unet("hybrid_encoder_tiny", encoder_weights=None, in_channels=4)
    with pytest.raises(UserError, match="3 to 5 maps"):
        smp.Unet("hybrid_encoder_tiny", encoder_weights=None, encoder_depth=2, decoder_channels=(16, 8))


def test_torch_hub_builds_encoders_and_opens_models(tmp_path: Path) -> None:
    root = str(Path(__file__).parent.parent)
    encoder = torch.hub.load(root, "encoder", "tiny", source="local", pretrained=False, pyramid=False, num_tokens=8)
    assert isinstance(encoder, HybridEncoder)
    assert encoder.config.num_tokens == 8
    model = DepthModel(encoder, DPTDecoder(encoder), 64, 96)
    model.save_pretrained(tmp_path)
    opened = torch.hub.load(root, "depth_model", str(tmp_path), source="local")
    assert torch.equal(opened.encoder.language.tokens, encoder.language.tokens)
    again = torch.hub.load(root, "encoder", str(tmp_path), source="local")
    assert torch.equal(again.language.tokens, encoder.language.tokens)
