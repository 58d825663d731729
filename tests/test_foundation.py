"""Towers filled from the files of other foundation models, under their publishers' names: Depth Anything, DINOv2 with
registers, DINOv3, SigLIP and EVA02. Small files are filled and run; the real architectures have names and shapes."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from torch import Tensor, nn

from hybrid_encoder import DPTDecoder, UserError, create_encoder
from hybrid_encoder.cli import main
from hybrid_encoder.commands.inventory import format_inventory, inventory
from hybrid_encoder.config import preset
from hybrid_encoder.model.backbones import build_clip, build_image_tower, build_timm
from hybrid_encoder.model.dino_tower import DinoTower
from hybrid_encoder.model.filling import timm_tensors
from hybrid_encoder.model.image_towers import timm_image_tower
from hybrid_encoder.model.vit_towers import TimmVitTower
from hybrid_encoder.weights.published import towers_and_licences

Shapes = dict[str, tuple[int, ...]]
NARROW = {"embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 0, "dynamic_img_size": True}


def linear(name: str, out: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (out, inputs), f"{name}.bias": (out,)}


def blocks(width: int, depth: int, hidden: int, gated: tuple[str, ...]) -> Shapes:
    """Of Meta's transformers; `gated`: the names of a gated second half's layers."""
    found: Shapes = {}
    for number in range(depth):
        inner = {f"norm{i}.{kind}": (width,) for i in (1, 2) for kind in ("weight", "bias")}
        inner |= {"ls1.gamma": (width,), "ls2.gamma": (width,)}
        inner |= linear("attn.qkv", 3 * width, width) | linear("attn.proj", width, width)
        if gated == ("w12", "w3"):
            inner |= linear("mlp.w12", 2 * hidden, width) | linear("mlp.w3", width, hidden)
        elif gated:
            inner |= linear("mlp.w1", hidden, width) | linear("mlp.w2", hidden, width)
            inner |= linear("mlp.w3", width, hidden)
        else:
            inner |= linear("mlp.fc1", hidden, width) | linear("mlp.fc2", width, hidden)
        found |= {f"blocks.{number}.{name}": shape for name, shape in inner.items()}
    return found


def dinov2(width: int, depth: int, registers: int = 0, gated: bool = False) -> Shapes:
    """The tensors of dinov2_vit*_pretrain.pth."""
    shapes: Shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 1370, width), "mask_token": (1, width)}
    shapes |= {"register_tokens": (1, registers, width)} if registers else {}
    shapes |= {"patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,)}
    shapes |= blocks(width, depth, 4096 if gated else 4 * width, ("w12", "w3") if gated else ())
    return shapes | {"norm.weight": (width,), "norm.bias": (width,)}


def depth_anything(width: int, depth: int) -> Shapes:
    """The tensors of depth_anything_v2_vit*.pth, of its head a few."""
    inner = {f"pretrained.{name}": shape for name, shape in dinov2(width, depth).items()}
    head = linear("depth_head.projects.0", 48, width) | linear("depth_head.scratch.output_conv1", 32, 64)
    return inner | head


def dinov3(width: int, depth: int, hidden: int = 0) -> Shapes:
    """The tensors of dinov3_vit*16_pretrain_*.pth; `hidden`: width within gated blocks."""
    shapes: Shapes = {"cls_token": (1, 1, width), "storage_tokens": (1, 4, width), "mask_token": (1, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,)}
    shapes |= {"rope_embed.periods": (16,)}
    shapes |= blocks(width, depth, hidden or 4 * width, ("w1", "w2", "w3") if hidden else ())
    shapes |= {f"blocks.{number}.attn.qkv.bias_mask": (3 * width,) for number in range(depth)}
    return shapes | {"norm.weight": (width,), "norm.bias": (width,)}


def filled(shapes: Shapes) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def without_biases(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As DINOv3's distilled models are: biases of queries and values are zero, and those of keys anything."""
    for name, value in tensors.items():
        if name.endswith("attn.qkv.bias"):
            queries, keys, values = value.chunk(3)
            tensors[name] = torch.cat([0 * queries, keys, 0 * values])
    return tensors


@pytest.mark.parametrize(
    ("architecture", "shapes"),
    [
        ("vit_small_patch14_dinov2", depth_anything(384, 12)),
        ("vit_base_patch14_dinov2", depth_anything(768, 12)),
        ("vit_large_patch14_dinov2", depth_anything(1024, 24)),
        ("vit_base_patch14_dinov2", dinov2(768, 12)),
        ("vit_small_patch14_reg4_dinov2", dinov2(384, 12, registers=4)),
        ("vit_large_patch14_reg4_dinov2", dinov2(1024, 24, registers=4)),
        ("vit_giant_patch14_reg4_dinov2", dinov2(1536, 40, registers=4, gated=True)),
        ("vit_small_patch16_dinov3_qkvb", dinov3(384, 12)),
        ("vit_base_patch16_dinov3_qkvb", dinov3(768, 12)),
        ("vit_large_patch16_dinov3_qkvb", dinov3(1024, 24)),
        ("vit_small_plus_patch16_dinov3_qkvb", dinov3(384, 12, hidden=1536)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_of_the_real_sizes_have_the_towers_names_and_shapes(architecture: str, shapes: Shapes) -> None:
    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=0, dynamic_img_size=True)
        found = timm_tensors(model, {name: torch.empty(shape) for name, shape in shapes.items()}, "x")
    expected = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in found.items()} == expected


def narrow(architecture: str, path: Path, tensors: dict[str, Tensor]) -> nn.Module:
    torch.save(tensors, path)
    return build_timm(architecture, str(path), "dino", **NARROW).eval()


def test_depth_anythings_encoder_is_taken_without_its_head(tmp_path: Path) -> None:
    tensors = filled(depth_anything(32, 4))
    vit = narrow("vit_small_patch14_dinov2", tmp_path / "depth_anything_v2_vits.pth", tensors)
    own = {name.removeprefix("pretrained."): value for name, value in tensors.items() if name.startswith("pretrained.")}
    same = narrow("vit_small_patch14_dinov2", tmp_path / "dinov2.pth", own)
    image = torch.rand(1, 3, 64, 96)
    seen, expected = (DinoTower(one, None, 0, None, "facebook")(image) for one in (vit, same))
    assert torch.equal(seen.maps[3], expected.maps[3])
    assert torch.equal(vit.blocks[1].mlp.fc2.weight, tensors["pretrained.blocks.1.mlp.fc2.weight"])  # type: ignore[index, union-attr]
    del tensors["pretrained.blocks.1.ls1.gamma"]
    with pytest.raises(UserError, match=r"1 missing \(blocks\.1\.ls1\.gamma\)"):
        narrow("vit_small_patch14_dinov2", tmp_path / "lacking.pth", tensors)


def test_registers_come_with_the_class_tokens_position(tmp_path: Path) -> None:
    tensors = filled(dinov2(32, 4, registers=4))
    vit = narrow("vit_small_patch14_reg4_dinov2", tmp_path / "dinov2_vits14_reg4_pretrain.pth", dict(tensors))
    assert torch.equal(vit.reg_token, tensors["register_tokens"])  # type: ignore[arg-type]
    assert torch.equal(vit.cls_token, tensors["cls_token"] + tensors["pos_embed"][:, :1])  # type: ignore[arg-type]
    seen = DinoTower(vit, None, 0, None)(torch.rand(1, 3, 64, 96))
    assert seen.maps[0].shape == (1, 32, 5, 7)


def test_dinov3_under_the_official_names_keeps_its_biases_or_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, path = filled(dinov3(32, 4)), tmp_path / "dinov3_vits16_pretrain.pth"
    with pytest.raises(UserError, match=r"holds biases that vit_small_patch16_dinov3 .*: choose dino=\S+_qkvb"):
        narrow("vit_small_patch16_dinov3", path, tensors)
    biased = narrow("vit_small_patch16_dinov3_qkvb", path, tensors)
    queries, _, values = tensors["blocks.1.attn.qkv.bias"].chunk(3)
    state = biased.state_dict()
    assert torch.equal(state["blocks.1.attn.q_bias"], queries)
    assert torch.equal(state["blocks.1.attn.v_bias"], values)

    vit = narrow("vit_small_patch16_dinov3", path, without_biases(tensors))
    same = narrow("vit_small_patch16_dinov3_qkvb", path, tensors)
    assert torch.equal(vit.reg_token, tensors["storage_tokens"])  # type: ignore[arg-type]
    assert torch.equal(vit.state_dict()["blocks.0.gamma_1"], tensors["blocks.0.ls1.gamma"])
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        seen, expected = (DinoTower(one, None, 0, None)(image).maps[3] for one in (vit, same))
    torch.testing.assert_close(seen, expected)
    timms = narrow("vit_small_patch16_dinov3", tmp_path / "timm.pth", vit.state_dict())
    assert all(torch.equal(value, vit.state_dict()[name]) for name, value in timms.state_dict().items())
    assert capsys.readouterr().out == "", "timm prints where it drops a bias"


@pytest.mark.parametrize(
    ("shapes", "use", "licence"),
    [
        (depth_anything(384, 1), "vit_small_patch14_dinov2 --encoder_option position_resize=facebook", "Apache-2.0"),
        (depth_anything(768, 1), "dino=vit_base_patch14_dinov2", "CC-BY-NC-4.0, no commercial use"),
        (depth_anything(1024, 1), "dino=vit_large_patch14_dinov2", "CC-BY-NC-4.0, no commercial use"),
        (dinov2(384, 1), "dino=vit_small_patch14_dinov2", "Apache-2.0"),
        (dinov2(768, 1, registers=4), "dino=vit_base_patch14_reg4_dinov2 --dino_weights", "Apache-2.0"),
        (dinov3(384, 1), "dino=vit_small_patch16_dinov3_qkvb", "DINOv3 License"),
        (dinov3(384, 1, hidden=8), "dino=vit_small_plus_patch16_dinov3_qkvb", "DINOv3 License"),
        ({"visual.trunk.patch_embed.proj.weight": (8, 3, 2, 2), "visual.trunk.attn_pool.latent": (1, 1, 8)},
         "image_tower=NAME", "Apache-2.0 where it is Google's"),
        ({"visual.trunk.patch_embed.proj.weight": (8, 3, 2, 2)}, "EVA02-B-16", "MIT where it is BAAI's"),
    ],
)  # fmt: skip
def test_info_says_what_a_file_is_its_terms_and_what_to_type(
    shapes: Shapes, use: str, licence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file.pth"
    torch.save(filled(shapes), path)
    assert main(["info", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert use in lines[2]
    assert str(path) in lines[2]
    assert lines[1].startswith(f"  licence: {licence}")


def test_terms_are_those_of_the_file_not_of_the_architecture(tmp_path: Path) -> None:
    """On the model card and in the inventory: a Depth Anything ViT-B in DINOv2's architecture."""
    path = tmp_path / "depth_anything_v2_vitb.pth"
    torch.save(filled(depth_anything(768, 1)), path)
    config = preset("tiny").replace(dino="vit_base_patch14_dinov2", dino_weights=str(path))
    card = towers_and_licences(config)
    assert "vit_base_patch14_dinov2: from the file depth_anything_v2_vitb.pth; CC-BY-NC-4.0, no commercial use" in card
    assert "licence: CC-BY-NC-4.0, no commercial use" in format_inventory(inventory(config))
    torch.save(filled({"norm.weight": (8,)}), path)
    assert "Apache-2.0" in towers_and_licences(config), "of a file that is not recognised, the architecture's"


@pytest.fixture(scope="module")
def small_open_clip(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Small models of open_clip's kinds: CLIP's text beside EVA02, SigLIP's beside a transformer."""
    folder = tmp_path_factory.mktemp("configs")
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    eva = {"image_size": 224, "timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "timm_proj": None}
    siglip = {"image_size": 160, "timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none"}
    other = {**text, "hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "no_causal_mask": True, "pool_type": "last"}
    configs: dict[str, dict[str, Any]] = {
        "EVA02-test": {"embed_dim": 64, "vision_cfg": eva, "text_cfg": text, "custom_text": True},
        "SigLIP-test": {"embed_dim": 96, "vision_cfg": siglip, "text_cfg": {**other, "width": 96}, "custom_text": True},
    }
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder / f"{name}.json")


@pytest.mark.usefixtures("small_open_clip")
def test_an_eva02_of_open_clip_is_taken_whole(tmp_path: Path) -> None:
    theirs = open_clip.create_model("EVA02-test", load_weights=False)
    assert type(theirs).__name__ == "CustomTextCLIP"
    torch.save(theirs.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    path = str(tmp_path / "open_clip_pytorch_model.bin")
    encoder = create_encoder("tiny", clip="EVA02-test", clip_weights=path).eval()
    assert isinstance(encoder.image_tower, TimmVitTower)
    assert encoder.image_tower.mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    # The text that the language part computes is that of open_clip's own model.
    sentence = encoder.config.prompt.format(depth="very close")
    with torch.no_grad():
        expected = theirs.eval().encode_text(open_clip.tokenize([sentence]), normalize=True)[0]
        torch.testing.assert_close(encoder.language.word_features()[0], expected, rtol=1e-4, atol=1e-5)
        image = torch.rand(1, 3, 224, 224)
        maps = encoder.image_tower(image)
        trunk = theirs.visual.trunk
        [theirs_last] = trunk.forward_intermediates(
            encoder.image_tower.normalize(image), indices=[11], norm=False, intermediates_only=True
        )
        torch.testing.assert_close(maps[3], theirs_last)
    encoder.save_pretrained(tmp_path / "saved")
    again = create_encoder(str(tmp_path / "saved"))
    with torch.no_grad():
        wide = torch.rand(1, 3, 64, 128)
        assert torch.equal(again(wide)[0], encoder(wide)[0])


@pytest.mark.usefixtures("small_open_clip")
def test_siglips_image_tower_stands_beside_another_models_text(tmp_path: Path) -> None:
    tensors = open_clip.create_model("SigLIP-test", load_weights=False).state_dict()
    torch.save(tensors, tmp_path / "siglip.bin")
    changes = {"image_tower": "SigLIP-test", "image_tower_weights": str(tmp_path / "siglip.bin")}
    encoder = create_encoder("tiny", **changes).train()
    tower = encoder.image_tower
    assert isinstance(tower, TimmVitTower)
    assert torch.equal(tower.vit.blocks[8].mlp.fc1.weight, tensors["visual.trunk.blocks.8.mlp.fc1.weight"])  # type: ignore[index, union-attr]
    features = encoder.forward_features(torch.rand(1, 3, 64, 96))
    assert DPTDecoder(encoder)(features)["disp", 0].shape == (1, 1, 64, 96)
    sum(level.square().mean() for level in features.aligned).backward()
    idle = [name for name, p in tower.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, "what comes after the last map would be without gradients"
    with pytest.raises(UserError, match=r"SigLIP-test: its text tower is not supported.*image_tower='SigLIP-test'"):
        build_clip("SigLIP-test", "random")
    with pytest.raises(UserError, match="has no weights 'pretrained'"):
        create_encoder("tiny", image_tower="SigLIP-test")


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "EVA02-B-16"])
def test_image_towers_of_open_clip_at_their_real_sizes(name: str) -> None:
    with torch.device("meta"):
        theirs = open_clip.create_model(name, load_weights=False, device="meta").state_dict()
        model = build_image_tower(name, "random")
        found = timm_tensors(model, theirs, "x")
        own = {key: value.shape for key, value in model.state_dict().items()}
        tower = timm_image_tower(model, "own")
    assert {key: value.shape for key, value in found.items()} == own
    assert (type(tower), tower.channels) == (TimmVitTower, (768,) * 4)
    [entry] = inventory(preset("tiny").replace(image_tower=name, image_tower_weights="webli"))
    assert (entry.option, entry.licence) == ("image_tower_weights", "Apache-2.0" if "SigLIP" in name else "MIT")
    assert 330e6 < entry.size < 380e6
