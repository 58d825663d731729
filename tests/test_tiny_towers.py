"""The towers of the preset `tiny` against open_clip's and timm's of the same sizes, with the same tensors."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn

from hybrid_encoder import create_encoder
from hybrid_encoder.config import DEPTH_WORDS, PRESETS
from hybrid_encoder.model.backbones import build_clip, build_timm
from hybrid_encoder.model.dino_tower import DinoTower
from hybrid_encoder.model.image_towers import clip_image_tower
from hybrid_encoder.model.language import _encode
from hybrid_encoder.model.tiny import TinyClip, TinyDino


def open_clip_twin(clip: nn.Module) -> CLIP:
    """open_clip's model of the tiny sizes, with the tensors of ours."""
    vision = CLIPVisionCfg(layers=(1, 1, 1, 1), width=16, image_size=64, patch_size=None)
    twin = CLIP(64, vision, CLIPTextCfg(width=32, heads=2, layers=2), quick_gelu=True)
    missing, surplus = twin.load_state_dict(clip.state_dict(), strict=False)
    assert not surplus
    assert all(name.startswith("visual.attnpool.") or name == "logit_scale" for name in missing)
    return twin.eval()


def timm_twin(dino: nn.Module) -> nn.Module:
    """timm's model of the tiny sizes, with the tensors of ours."""
    sizes: dict[str, Any] = {"embed_dim": 64, "depth": 4, "num_heads": 2, "num_classes": 0, "dynamic_img_size": True}
    twin: nn.Module = timm.create_model("vit_small_patch8_224", pretrained=False, **sizes)
    twin.load_state_dict(dino.state_dict())
    return twin.eval()


def randomised(module: nn.Module) -> nn.Module:
    """With values in which no part is without effect, such as norms of zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(1 + 0.1 * torch.rand_like(value) if name.endswith("running_var") else 0.2 * value.normal_())
    return module.eval()


@torch.no_grad()
def test_clip_s_image_half_is_open_clip_s() -> None:
    clip = randomised(build_clip("tiny", "random"))
    tower = clip_image_tower(clip.visual, "own").eval()  # type: ignore[arg-type]
    twin = clip_image_tower(open_clip_twin(clip).visual, "own").eval()
    assert tower.channels == twin.channels
    image = torch.rand(2, 3, 64, 96)
    for ours, theirs in zip(tower(image), twin(image), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("size", [(64, 96), (224, 224), (96, 320)])
@pytest.mark.parametrize("resize", ["timm", "facebook"])
@torch.no_grad()
def test_dino_is_timm_s(size: tuple[int, int], resize: str) -> None:
    dino = randomised(build_timm("tiny", "random", "dino"))
    ours, theirs = (DinoTower(vit, None, 4, None, resize).eval() for vit in (dino, timm_twin(dino)))
    assert (ours.channels, ours.patch, ours.blocks) == (theirs.channels, theirs.patch, theirs.blocks)
    image = torch.rand(2, 3, *size)
    found, expected = ours(image), theirs(image)
    for pair in zip([*found.maps, found.class_token], [*expected.maps, expected.class_token], strict=True):
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_starting_values_are_spread_as_in_the_libraries() -> None:
    """Their deviations, tensor by tensor; so the preset starts as it did when it was built from the libraries."""
    torch.manual_seed(0)
    clip, dino = TinyClip(16, 32, 2, 2, 64), TinyDino(64, 4, 2, 8)
    fresh_clip = CLIP(
        64,
        CLIPVisionCfg(layers=(1, 1, 1, 1), width=16, image_size=64, patch_size=None),
        CLIPTextCfg(width=32, heads=2, layers=2),
        quick_gelu=True,
    )
    sizes: dict[str, Any] = {"embed_dim": 64, "depth": 4, "num_heads": 2, "num_classes": 0}
    pairs = [(clip, fresh_clip), (dino, timm.create_model("vit_small_patch8_224", pretrained=False, **sizes))]
    for ours, theirs in pairs:
        expected = dict(theirs.named_parameters())
        for name, value in ours.named_parameters():
            if name == "pos_embed":
                continue
            spread, wanted = deviation(value), deviation(expected[name])
            assert spread == pytest.approx(wanted, rel=0.3, abs=1e-8 if value.numel() > 64 else 0.03), name


def test_positions_start_as_sines_and_cosines() -> None:
    places = build_sincos2d_pos_embed([28, 28], dim=64)
    torch.testing.assert_close(TinyDino(64, 4, 2, 8).pos_embed[0, 1:].detach(), 0.5 * places)


def deviation(value: Tensor) -> float:
    return float(value.float().std(correction=0))


def test_tokens_of_the_usual_words_are_clip_s() -> None:
    tokenizer = open_clip.SimpleTokenizer()
    for word in (*DEPTH_WORDS, "x"):
        sentence = PRESETS["tiny"].prompt.format(depth=word)
        assert _encode(sentence) == tokenizer.encode(sentence)
    assert _encode("Distant trees, 20 m away") == tokenizer.encode("Distant trees, 20 m away")
    assert open_clip.tokenize("x")[0, :3].tolist() == [tokenizer.sot_token_id, 343, tokenizer.eot_token_id]


def test_the_tiny_preset_is_built_without_the_libraries() -> None:
    script = (
        "import sys, torch; from hybrid_encoder import create_encoder\n"
        "create_encoder('tiny').eval()(torch.rand(1, 3, 64, 64))\n"
        "print(sorted({'timm', 'open_clip', 'torchvision', 'torch._dynamo', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_card_of_a_tiny_encoder_names_no_third_party_weights() -> None:
    assert create_encoder("tiny").about["towers"] == "- random start, no third-party weights"
