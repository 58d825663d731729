"""Saved models come back equal from folders and the hub, and the towers' weights from every kind of published file."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import open_clip
import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from hybrid_encoder.cli import main
from hybrid_encoder.commands.convert import convert, open_depth_model
from hybrid_encoder.commands.info import format_inventory, inventory
from hybrid_encoder.config import HybridEncoderConfig, list_presets
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.backbones import build_clip, build_timm
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.depth_model import DepthModel
from hybrid_encoder.model.encoder import HybridEncoder, create_encoder
from hybrid_encoder.model.pixels import to_pixels
from hybrid_encoder.model.resnet import ResnetEncoder, UNetDecoder
from hybrid_encoder.stage1.checkpoint import load_stage1, save_stage1
from hybrid_encoder.stage2.checkpoint import newest_weights

IMAGE = np.random.default_rng(0).integers(0, 255, (70, 100, 3), dtype=np.uint8)


def tiny_model(kind: str, **changes: object) -> DepthModel:
    torch.manual_seed(0)
    if kind == "resnet":
        resnet = ResnetEncoder(18, "random")
        return DepthModel(resnet, UNetDecoder(resnet.num_ch_enc), 64, 96).eval()
    encoder = create_encoder("tiny", **changes)
    decoder: nn.Module = DPTDecoder(encoder, (0, 1), "relu") if kind == "dpt" else UNetDecoder(encoder.num_ch_enc)
    return DepthModel(encoder, decoder, 64, 96, min_depth=0.5, max_depth=50).eval()


@pytest.mark.parametrize("kind", ["dpt", "unet", "resnet"])
def test_depth_models_come_back_equal(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    model.save_pretrained(tmp_path / "saved", training_data="rendered scenes")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    again = DepthModel.from_pretrained(tmp_path / "saved")
    assert not again.training
    depth = model.predict(IMAGE)
    assert depth.shape == (70, 100)
    assert depth.dtype == np.float32
    assert model.min_depth <= depth.min() < depth.max() <= model.max_depth
    np.testing.assert_array_equal(again.predict(IMAGE), depth)
    assert "rendered scenes" in (tmp_path / "saved" / "README.md").read_text()
    again.save_pretrained(tmp_path / "twice")
    for name in ("config.json", "README.md"):
        assert (tmp_path / "twice" / name).read_text() == (tmp_path / "saved" / name).read_text()


def test_predict_takes_files_arrays_and_tensors(tmp_path: Path) -> None:
    import cv2

    model = tiny_model("unet").train()
    cv2.imwrite(str(tmp_path / "image.png"), IMAGE[..., ::-1])
    expected = model.predict(IMAGE)
    chw = torch.from_numpy(IMAGE).permute(2, 0, 1)
    for image in (tmp_path / "image.png", str(tmp_path / "image.png"), chw, chw[None], chw.float() / 255):
        np.testing.assert_array_equal(model.predict(image), expected)
    assert model.training
    for floats in (IMAGE / 255, (IMAGE / 255).astype(np.float32), np.dstack([IMAGE, IMAGE[..., 0]])):
        np.testing.assert_array_equal(model.predict(floats), expected)
    for wrong in (IMAGE.transpose(2, 0, 1), IMAGE.astype(np.float32), IMAGE * 1j, chw[:2]):
        with pytest.raises(UserError, match="expected"):
            model.predict(wrong)
    # disparity is 1 / depth, between the limits.
    disparity = model.eval().disparity(torch.rand(2, 3, 64, 96))
    assert disparity.shape == (2, 1, 64, 96)
    assert 1 / 50 <= disparity.min()
    assert disparity.max() <= 1 / 0.5


def test_depth_models_reject_what_cannot_work() -> None:
    resnet = ResnetEncoder(18, "random")
    with pytest.raises(UserError, match="reads the levels of a HybridEncoder"):
        DepthModel(resnet, DPTDecoder(create_encoder("tiny")), 64, 96)
    with pytest.raises(UserError, match="not a multiple of 32"):
        DepthModel(resnet, UNetDecoder(resnet.num_ch_enc), 60, 96)
    with pytest.raises(UserError, match="min_depth"):
        DepthModel(resnet, UNetDecoder(resnet.num_ch_enc), 64, 96, 5, 1)


def test_encoders_come_back_alone_or_out_of_a_depth_model(tmp_path: Path) -> None:
    model = tiny_model("unet")
    image = torch.rand(1, 3, 64, 96)
    encoder = model.encoder
    assert isinstance(encoder, HybridEncoder)
    encoder.save_pretrained(tmp_path / "encoder")
    model.save_pretrained(tmp_path / "model")
    for folder in ("encoder", "model"):
        again = create_encoder(tmp_path / folder, train_dino_blocks=0)
        assert not any(p.requires_grad for p in again.dino.parameters())  # type: ignore[union-attr]
        for ours, theirs in zip(again(image), encoder(image), strict=True):
            assert torch.equal(ours, theirs)
    with pytest.raises(UserError, match="HybridEncoder without decoder"):
        DepthModel.from_pretrained(tmp_path / "encoder")
    with pytest.raises(UserError, match="missing"):
        create_encoder(tmp_path / "encoder", fusion_channels=32)
    tiny_model("resnet").save_pretrained(tmp_path / "resnet")
    with pytest.raises(UserError, match="no hybrid encoder"):
        create_encoder(tmp_path / "resnet")


def test_hub_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny_model("dpt"), {}

    class Api:
        def __init__(self, token: str | None) -> None:
            seen["token"] = token

        def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> None:
            seen["repo"] = (repo_id, private, exist_ok)

        def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> str:
            for path in Path(folder_path).iterdir():
                (tmp_path / path.name).write_bytes(path.read_bytes())
            return "https://hub/commit"

    def download(repo_id: str, allow_patterns: list[str], **options: Any) -> str:
        seen["download"] = (repo_id, sorted(allow_patterns), options["revision"])
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert model.push_to_hub("me/depth", private=True, token="t") == "https://hub/commit"
    again = DepthModel.from_pretrained("me/depth", revision="v1")
    np.testing.assert_array_equal(again.predict(IMAGE), model.predict(IMAGE))
    assert create_encoder("me/depth").config.clip == "tiny"
    assert seen == {
        "token": "t",
        "repo": ("me/depth", True, True),
        "download": ("me/depth", ["config.json", "model.safetensors"], None),
    }

    def offline(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match="me/depth: no such folder, and the hub could not be reached"):
        create_encoder("me/depth")
    for wrong in ("me/depth/more", "../me"):
        with pytest.raises(UserError, match="no hub id"):
            DepthModel.from_pretrained(wrong)


def test_configs_of_files_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config names architectures alone: no file, address or format string in it is followed."""
    folder = tiny_model("dpt").save_pretrained(tmp_path / "saved")
    right = json.loads((folder / "config.json").read_text())

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a config was followed elsewhere")

    for module, name in ((open_clip, "download_pretrained"), (huggingface_hub, "hf_hub_download")):
        monkeypatch.setattr(module, name, refuse)
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"x")
    harmless = {"clip_weights": str(outside), "dino_weights": "pretrained"}
    hostile = (
        {"clip": f"local-dir:{tmp_path}"},
        {"clip": "hf-hub:me/clip"},
        {"dino": "../../other"},
        {"image_tower": "hf-hub:me/resnet"},
        {"prompt": "{depth:>999999999}"},
        {"prompt": "{depth.__class__}"},
        {"num_tokens": "many"},
        {"num_tokens": True},
        {"surprise": 1},
    )
    for changes in (harmless, *hostile):
        config = json.loads(json.dumps(right))
        config["encoder"]["config"] |= changes
        (folder / "config.json").write_text(json.dumps(config))
        if changes is harmless:
            assert DepthModel.from_pretrained(folder).height == 64
            continue
        with pytest.raises(UserError, match=r"config\.json"):
            DepthModel.from_pretrained(folder)


def test_damaged_folders_name_the_file(tmp_path: Path) -> None:
    folder = tiny_model("resnet").save_pretrained(tmp_path / "saved")
    config = json.loads((folder / "config.json").read_text())
    wrong: list[tuple[str, str]] = [
        ("{", "could not be read as JSON"),
        ("[]", "not by this package"),
        (json.dumps({"model_type": "bert"}), "not by this package"),
        (json.dumps({**config, "height": "tall"}), "does not describe"),
        (json.dumps({**config, "height": 50}), "not a multiple of 32"),
        (json.dumps({**config, "encoder": {}}), "does not describe"),
        (json.dumps({**config, "encoder": {"kind": "resnet", "num_layers": 34}}), "does not fit DepthModel"),
    ]
    for text, message in wrong:
        (folder / "config.json").write_text(text)
        with pytest.raises(UserError, match=message) as raised:
            DepthModel.from_pretrained(folder)
        assert str(folder) in str(raised.value)
    (folder / "config.json").write_text(json.dumps(config))
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors.*truncated"):
        DepthModel.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"holds no config\.json"):
        DepthModel.from_pretrained(folder)
    (folder / "encoder.pth").touch()
    with pytest.raises(UserError, match="open_depth_model"):
        DepthModel.from_pretrained(folder)


def test_folders_of_the_original_code_pass_both_ways(tmp_path: Path) -> None:
    """In the original, encoder.pth holds 122 tensors and three numbers, depth.pth 28 tensors."""
    model = tiny_model("resnet")
    expected = model.predict(IMAGE)
    model.save_pretrained(tmp_path / "hub")
    folder = tmp_path / "weights_19"
    convert(tmp_path / "hub", folder, layout="monodepth2")
    encoder = torch.load(folder / "encoder.pth", weights_only=True)
    tensors = {name: value for name, value in encoder.items() if isinstance(value, Tensor)}
    assert len(tensors) == 122
    assert {name.split(".")[1] for name in tensors} == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}
    assert (encoder["height"], encoder["width"], encoder["use_stereo"]) == (64, 96, False)
    depth = torch.load(folder / "depth.pth", weights_only=True)
    assert len(depth) == 28
    assert depth["decoder.13.conv.weight"].shape == (1, 128, 3, 3)

    # As torch 1.0 wrote them: no zip archive, and nothing but tensors and the three numbers.
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    sizes = {"height": 64, "width": 96, "use_stereo": False}
    torch.save({**tensors, **sizes}, theirs / "encoder.pth", _use_new_zipfile_serialization=False)
    torch.save(depth, theirs / "depth.pth", _use_new_zipfile_serialization=False)
    convert(theirs, tmp_path / "back", training_data="KITTI raw")
    np.testing.assert_array_equal(open_depth_model(folder).predict(IMAGE), expected)
    model.resize = "lanczos"  # as the originals resize images; their files do not say so
    for source in (theirs, tmp_path / "back"):
        np.testing.assert_array_equal(open_depth_model(source).predict(IMAGE), model.predict(IMAGE))


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP ResNet of OpenAI's make, small enough to write to disk in a test."""
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 64,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    for name in ("RNtest-quickgelu", "RNtest"):
        (folder / f"{name}.json").write_text(json.dumps({**config, "quick_gelu": name != "RNtest"}))
        open_clip.add_model_config(folder / f"{name}.json")
    return "RNtest-quickgelu"


def equal(module: nn.Module, expected: dict[str, Tensor]) -> None:
    own = module.state_dict()
    assert set(own) <= set(expected)
    for name, value in own.items():
        torch.testing.assert_close(value, expected[name].to(value.dtype), rtol=0, atol=0, msg=name)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_clip_files(small_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = build_clip(small_clip, "random").eval()
    state = {name: value.clone() for name, value in clip.state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    for name in (str(tmp_path / "open_clip_model.safetensors"), f"local-dir:{tmp_path}"):
        equal(build_clip(small_clip, name), state)

    # As OpenAI publishes them: a TorchScript archive in half precision, with three numbers beside the weights.
    class Published(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, child in clip.named_children():
                self.add_module(name, child)
            for name, parameter in clip.named_parameters(recurse=False):
                self.register_parameter(name, parameter)
            for name, number in (("input_resolution", 64), ("context_length", 77), ("vocab_size", 49408)):
                self.register_buffer(name, torch.tensor(number))
            self.visual.half()  # type: ignore[operator, union-attr]

        def forward(self, image: Tensor) -> Tensor:
            return self.visual(image)  # type: ignore[no-any-return, operator]

    path = tmp_path / "RN50.pt"
    torch.jit.trace(Published(), torch.rand(1, 3, 64, 64).half(), check_trace=False).save(str(path))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("TorchScript was loaded as code")

    monkeypatch.setattr(torch.jit, "load", refuse)
    half = {
        name: value.half() if name.startswith("visual.") and value.is_floating_point() else value
        for name, value in state.items()
    }
    equal(build_clip(small_clip, str(path)), half)
    with pytest.raises(UserError, match="QuickGELU"):
        build_clip("RNtest", str(path))
    with pytest.raises(UserError, match=r"RN50\.pt does not fit CLIP"):
        build_clip("ViT-B-32-quickgelu", str(path))


def test_facebook_and_timm_files(tmp_path: Path) -> None:
    options = {"num_classes": 0, "dynamic_img_size": True}
    vit = build_timm("vit_small_patch14_dinov2", "random", "dino", **options)
    state = {name: value.clone() for name, value in vit.state_dict().items()}
    path = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save({**state, "mask_token": torch.zeros(1, 384)}, path)
    equal(build_timm("vit_small_patch14_dinov2", str(path), "dino", **options), state)
    folder = tmp_path / "vit"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    equal(build_timm("vit_small_patch14_dinov2", f"local-dir:{folder}", "dino", **options), state)

    # Half a file must not leave the other half random.
    lacking = {name: value for name, value in state.items() if not name.startswith("blocks.7.")}
    torch.save(lacking, path)
    with pytest.raises(UserError, match=r"dinov2_vits14_pretrain\.pth does not fit.*missing \(blocks\.7\."):
        build_timm("vit_small_patch14_dinov2", str(path), "dino", **options)
    with pytest.raises(UserError, match="does not fit"):
        build_timm("vit_base_patch14_dinov2", str(folder), "dino", **options)


def test_resnet_files_with_classifier_and_image_pairs(tmp_path: Path) -> None:
    full = timm.create_model("resnet18", pretrained=False).state_dict()
    torch.save(full, tmp_path / "resnet18.pth")
    equal(build_timm("resnet18", str(tmp_path / "resnet18.pth"), "image_tower", num_classes=0), full)
    pairs = ResnetEncoder(18, str(tmp_path / "resnet18.pth"), num_input_images=2)
    one = ResnetEncoder(18, str(tmp_path / "resnet18.pth"))
    image = torch.rand(1, 3, 32, 32)
    for both, single in zip(pairs.eval()(torch.cat([image, image], 1)), one.eval()(image), strict=True):
        torch.testing.assert_close(both, single, rtol=1e-4, atol=1e-4)


def test_info_without_a_preset_lists_them(capsys: pytest.CaptureFixture) -> None:
    assert main(["info"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[1:-1]] == list_presets()
    assert table[1].split() == ["paper", "RN50-quickgelu", "vit_base_patch14_dinov2", "256"]


def test_weights_folder_is_searched_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = build_timm("vit_small_patch14_dinov2", "random", "dino", num_classes=0, dynamic_img_size=True).state_dict()
    torch.save({**state, "mask_token": torch.zeros(1, 384)}, tmp_path / "dinov2_vits14_pretrain.pth")
    changes = {"clip": "tiny", "clip_weights": "random", "fusion_channels": 64, "num_tokens": 4}
    monkeypatch.delenv("HYBRID_ENCODER_WEIGHTS", raising=False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)

    entries = inventory("small")
    assert [entry.option for entry in entries] == ["clip_weights", "dino_weights"]
    assert not any(entry.found for entry in entries)
    assert "RN50.pt" in entries[0].names
    assert 300e6 < entries[0].size < 500e6

    entries = inventory("small", tmp_path)
    assert [entry.found for entry in entries] == [False, True]
    assert entries[1].size == (tmp_path / "dinov2_vits14_pretrain.pth").stat().st_size
    text = format_inventory(entries)
    for part in (str(tmp_path), "dinov2_vits14_pretrain.pth", "MIT", "Apache-2.0", "not found"):
        assert part in text, part

    encoder = create_encoder("small", weights_dir=tmp_path, **changes)
    assert torch.equal(encoder.dino.vit.pos_embed, state["pos_embed"])  # type: ignore[union-attr]
    monkeypatch.setenv("HYBRID_ENCODER_WEIGHTS", str(tmp_path))
    encoder = create_encoder("small", **changes)
    assert torch.equal(encoder.dino.vit.pos_embed, state["pos_embed"])  # type: ignore[union-attr]
    assert inventory("small")[1].found

    monkeypatch.setenv("HYBRID_ENCODER_WEIGHTS", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="HYBRID_ENCODER_WEIGHTS names"):
        create_encoder("small", **changes)
    assert inventory("tiny") == []
    named = HybridEncoderConfig(clip_weights=str(tmp_path / "gone.pt"))
    assert [entry.found for entry in inventory(named, tmp_path)] == [False, False]


@pytest.mark.parametrize("changes", [{"prompt": "That patch appears to be {depth}"}, {"normalization": "none"}])
def test_changes_that_would_alter_features_are_refused(changes: dict[str, str], tmp_path: Path) -> None:
    """The same shapes, and other numbers: of weights on loading, and of stage 1."""
    encoder = create_encoder("tiny", pyramid=False)
    encoder.save_pretrained(tmp_path / "saved")
    with pytest.raises(UserError, match="was trained with"):
        create_encoder(tmp_path / "saved", **changes)
    save_stage1(tmp_path / "stage1.pth", encoder, encoder.config, {})
    load_stage1(create_encoder("tiny", num_tokens=5, text_norm="matrix"), tmp_path / "stage1.pth")
    with pytest.raises(UserError, match=r"stage1\.pth was trained with"):
        load_stage1(create_encoder("tiny", **changes), tmp_path / "stage1.pth")


def test_a_clip_with_another_mean_keeps_it(small_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by its tag in a weights folder, and through saving and loading."""
    published = {"url": "https://x/rn.pt", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "quick_gelu": True}
    for name in (small_clip, "RNtest"):
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, {"mine": published})
    (tmp_path / "weights").mkdir()
    torch.save(build_clip(small_clip, "random").state_dict(), tmp_path / "weights" / "rn.pt")
    changes = {"clip": small_clip, "clip_weights": "mine", "pyramid": False}
    encoder = create_encoder("tiny", tmp_path / "weights", **changes).eval()
    assert encoder.image_tower is not None
    assert encoder.image_tower.mean.unique().tolist() == [0.5]
    assert encoder.config.clip_weights == "mine"
    encoder.save_pretrained(tmp_path / "saved")
    again = create_encoder(tmp_path / "saved")
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(again.forward_features(image).aligned[0], encoder.forward_features(image).aligned[0])
    with pytest.raises(UserError, match="QuickGELU"):
        create_encoder("tiny", tmp_path / "weights", **{**changes, "clip": "RNtest"})


def test_subclasses_are_saved_as_what_they_are(tmp_path: Path) -> None:
    class Mine(DepthModel):
        pass

    model = tiny_model("dpt")
    mine = Mine(model.encoder, model.decoder, model.height, model.width).eval()
    mine.save_pretrained(tmp_path)
    np.testing.assert_array_equal(DepthModel.from_pretrained(tmp_path).predict(IMAGE), mine.predict(IMAGE))


def test_predict_leaves_modes_as_they_were_and_takes_any_precision() -> None:
    published = {"decoder_style": "published", "stride4_skip": False}  # whose random depth is nowhere close to infinite
    model = tiny_model("dpt", **published).train()
    model.encoder.eval()
    depth = model.predict(IMAGE)
    assert model.training
    assert not any(module.training for module in model.encoder.modules())
    assert model.decoder.training
    for precision in (torch.float16, torch.bfloat16, torch.float64):
        np.testing.assert_allclose(model.to(precision).predict(IMAGE), depth, rtol=0.1)
        model = tiny_model("dpt", **published)


def test_threads_predict_alike_while_a_model_trains() -> None:
    """One encoder at three sizes, for which CLIP's ViT resamples its position embeddings."""
    torch.manual_seed(0)
    encoder = create_encoder("tiny", clip="ViT-S-32", fusion_channels=32, dino=None)
    models = [DepthModel(encoder, UNetDecoder(encoder.num_ch_enc), *size) for size in ((64, 96), (96, 64), (64, 64))]
    expected = [model.eval().predict(IMAGE) for model in models]
    for model in models:
        model.train()
    before = {name: value.clone() for name, value in models[0].state_dict().items()}
    modes = [module.training for module in models[0].modules()]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda i: (i, models[i % 3].predict(IMAGE)), range(12)))
    for i, depth in found:
        np.testing.assert_allclose(depth, expected[i % 3], rtol=1e-5)
    assert [module.training for module in models[0].modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in models[0].state_dict().items())


def test_predict_sees_the_weights_of_now_and_calls_hooks() -> None:
    model, calls = tiny_model("unet").train(), []

    class Hooked:
        def __init__(self) -> None:
            self.lock = threading.Lock()  # which cannot be copied

        def __call__(self, *_: Any) -> None:
            calls.append(1)

    model.decoder.register_forward_hook(Hooked().__call__)
    before = model.predict(IMAGE)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(0.5)
    assert not np.allclose(model.predict(IMAGE), before)
    assert len(calls) == 2


def test_predict_takes_lists_batches_and_pil_images() -> None:
    model = tiny_model("unet")
    other = IMAGE[::-1].copy()
    expected = model.predict(IMAGE), model.predict(other)
    stacked = np.stack([IMAGE, other])
    for batch in (
        stacked,
        torch.from_numpy(stacked).permute(0, 3, 1, 2),
        torch.from_numpy(stacked.transpose(0, 3, 1, 2)) / 255,
    ):
        found = model.predict(batch)
        assert found.shape == (2, *IMAGE.shape[:2])
        np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4)
    smaller = np.ascontiguousarray(IMAGE[:40])
    depths = model.predict([IMAGE, Image.fromarray(other), torch.from_numpy(smaller).permute(2, 0, 1)] + 7 * [smaller])
    assert isinstance(depths, list)
    assert [depth.shape for depth in depths] == 2 * [(70, 100)] + 8 * [(40, 100)]
    np.testing.assert_allclose(depths[1], expected[1], rtol=1e-4)
    assert model.predict([]) == []
    grey = Image.fromarray(IMAGE[..., 0])
    np.testing.assert_array_equal(model.predict(grey), model.predict(np.stack(3 * [IMAGE[..., 0]], axis=-1)))
    see_through = Image.fromarray(np.dstack([IMAGE, IMAGE[..., 0]]))
    assert see_through.mode == "RGBA"
    np.testing.assert_array_equal(model.predict(see_through), expected[0])


def test_pil_images_of_every_mode_are_seen_as_they_look() -> None:
    colours = np.array([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]], np.uint8)
    picture = Image.fromarray(colours)
    for mode in ("RGB", "CMYK", "RGBA", "RGBX", "RGBa", "HSV", "YCbCr", "P"):
        (found,) = to_pixels((picture.convert("RGBA") if mode == "RGBa" else picture).convert(mode))
        assert np.abs(found.astype(int) - colours).max() <= 2, mode
    grey = np.asarray(picture.convert("L"))
    for image in (picture.convert("LA"), picture.convert("LA").convert("La"), grey, grey / 255):
        np.testing.assert_array_equal(to_pixels(image)[0], np.dstack(3 * [grey]))
    for deep in (np.full((2, 3), 0x8012, np.uint16), np.full((2, 3), 0x8012, np.int32)):
        assert to_pixels(Image.fromarray(deep))[0].tolist() == np.full((2, 3, 3), 0x80).tolist()
    floats = Image.fromarray(np.full((2, 3), 0.5, np.float32))
    assert to_pixels(floats)[0].tolist() == np.full((2, 3, 3), 128).tolist()
    assert to_pixels(picture.convert("1"))[0].max() == 255


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((3, 64, 96), 200.0), r"from 200 to 200: expected RGB in \[0, 1\]"),
        (torch.full((3, 64, 96), -1.0), r"expected RGB in \[0, 1\]"),
        (torch.full((3, 64, 96), 300), "whole numbers from 0 to 255"),
        (torch.zeros(0, 3, 64, 96), "without pixels"),
        (np.zeros((0, 96, 3), np.uint8), "without pixels"),
        (Image.fromarray(np.full((64, 96), 4095, np.uint16)), "of which it uses 12"),
        (Image.fromarray(np.full((64, 96), -1, np.int32)), "from -1 to 0: expected 0 to 65535"),
        (Image.fromarray(np.full((64, 96), 200, np.float32)), r"expected RGB in \[0, 1\]"),
        (np.full((64, 96, 3), 256, np.uint16), "whole numbers from 0 to 255"),
        (3, "of type int"),
    ],
)
def test_predict_refuses_pixels_that_would_be_misread(image: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_model("unet").predict(image)


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_what_others_wrote_is_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"model_type": "clip"}')
    for encoder in (tiny_model("dpt").encoder, tiny_model("dpt")):
        with pytest.raises(UserError, match=f"{name} that this package did not write"):
            encoder.save_pretrained(tmp_path)  # type: ignore[operator]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == '{"model_type": "clip"}'


def test_a_described_net_takes_no_memory_before_its_tensors_fit(tmp_path: Path) -> None:
    folder = tiny_model("dpt").save_pretrained(tmp_path / "saved")
    config = json.loads((folder / "config.json").read_text())
    for field in ("num_tokens", "decoder_channels", "fusion_channels"):
        hostile = json.loads(json.dumps(config))
        hostile["encoder"]["config"][field] = 4000
        (folder / "config.json").write_text(json.dumps(hostile))
        with pytest.raises(UserError, match="of another shape"):
            DepthModel.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    convert(folder, tmp_path / "run", "monodepth2")
    encoder = torch.load(tmp_path / "run" / "encoder.pth")
    for field, file in (("num_tokens", "encoder"), ("fusion_channels", "encoder"), ("decoder_channels", "depth")):
        changed = json.dumps({**json.loads(encoder["hybrid_config"]), field: 4000})
        torch.save({**encoder, "hybrid_config": changed}, tmp_path / "run" / "encoder.pth")
        with pytest.raises(UserError, match=rf"{file}\.pth .*of another shape"):
            open_depth_model(tmp_path / "run")


def test_a_run_that_kept_its_best_weights_alone_is_opened(tmp_path: Path) -> None:
    for name in ("weights_best", "weights_²", "weights_03", "weights_copy"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "encoder.pth").touch()
    assert newest_weights(tmp_path).name == "weights_best"
    for epoch in (2, 10):
        (tmp_path / "models" / f"weights_{epoch}").mkdir()
        (tmp_path / "models" / f"weights_{epoch}" / "encoder.pth").touch()
    assert newest_weights(tmp_path).name == "weights_10"


def test_a_model_made_in_inference_mode_runs(tmp_path: Path) -> None:
    model = tiny_model("dpt")
    model.save_pretrained(tmp_path)
    with torch.inference_mode():
        depth = DepthModel.from_pretrained(tmp_path).predict(IMAGE)
    np.testing.assert_array_equal(depth, model.predict(IMAGE))


def test_decoders_of_another_encoder_are_refused() -> None:
    encoder = create_encoder("tiny", pyramid=False)
    with pytest.raises(UserError, match="pyramid=True"):
        DepthModel(encoder, UNetDecoder(encoder.num_ch_enc), 64, 96)
    with pytest.raises(UserError, match="the decoder was built for"):
        DepthModel(encoder, DPTDecoder(create_encoder("tiny", num_tokens=5)), 64, 96)
    with pytest.raises(UserError, match="64 pixels a side"):
        DepthModel(create_encoder("tiny"), UNetDecoder(encoder.num_ch_enc), 32, 96).predict(IMAGE)


def test_inventory_of_what_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYBRID_ENCODER_WEIGHTS", raising=False)
    config = HybridEncoderConfig()
    for changes in ({"clip": "RN51"}, {"dino": "vit_x"}, {"clip": "tiny"}):
        with pytest.raises(UserError, match=r"RN51|vit_x|tiny clip"):
            inventory(config.replace(**changes))
