"""The encoder contract over towers, sizes and options; frozen parts; language cache; decoders and poses."""

import dataclasses
import time
import warnings
from collections.abc import Callable

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from hybrid_encoder import PRESETS, DepthModel, DPTDecoder, HybridEncoder, UserError, create_encoder
from hybrid_encoder.config import DEPTH_WORDS
from hybrid_encoder.engine.inference import faster_precision, inference
from hybrid_encoder.model.backbones import build_clip
from hybrid_encoder.model.language import Language, align
from hybrid_encoder.model.pose import ClassTokenPose, PoseDecoder
from hybrid_encoder.model.resnet import ConvElu, JoinElu, ResnetEncoder, UNetDecoder
from hybrid_encoder.weights.reading import load_state

from .test_tiny_towers import open_clip_twin

STRIDES = (2, 4, 8, 16, 32)


def tiny(**changes: object) -> HybridEncoder:
    torch.manual_seed(0)
    return create_encoder("tiny", **changes)


@pytest.mark.parametrize("size", [(64, 96), (192, 640), (96, 32), (320, 64)])
def test_five_maps_at_the_drop_in_strides(size: tuple[int, int]) -> None:
    encoder = tiny().eval()
    image = torch.rand(1, 3, *size)
    with torch.no_grad():
        maps = encoder(image)
    assert [m.shape[1] for m in maps] == encoder.num_ch_enc.tolist() == [64, 64, 128, 256, 512]
    assert [tuple(m.shape[-2:]) for m in maps] == [(size[0] // s, size[1] // s) for s in STRIDES]
    assert all(torch.isfinite(m).all() for m in maps)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_tower": None},
        {"dino": None},
        {"fusion": "convs2_interp"},
        {"alignment": "replace"},
        {"alignment": "none"},
        {"image_tower": "resnet18", "image_tower_weights": "random"},
        {"clip": "ViT-S-32", "fusion_channels": 32},
        {"dino": "vit_small_patch16_224.dino"},
        {"dino": "vit_small_patch14_dinov2"},
        {"dino": "vit_small_patch14_reg4_dinov2"},
        {"dino": "vit_small_patch16_dinov3"},
        {"dino_blocks": (0, 1, 2, 3), "token_init": "random", "num_tokens": 5},
    ],
    ids=lambda changes: ",".join(f"{k}={v}" for k, v in changes.items()),
)
def test_every_tower_and_option_keeps_the_contract(changes: dict[str, object]) -> None:
    encoder = tiny(**changes).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        features = encoder.forward_features(image)
        maps = encoder.drop_in_maps(features)
        disparity = DPTDecoder(encoder)(features)["disp", 0]
    assert [m.shape[-1] for m in maps] == [48, 24, 12, 6, 3]
    assert [level.shape[1] for level in features.fused] == list(encoder.fused_channels)
    assert [level.shape[1] for level in features.aligned] == list(encoder.aligned_channels)
    assert disparity.shape == (1, 1, 64, 96)
    if encoder.dino is None:
        assert features.class_token is None
    else:
        assert features.class_token is not None
        assert features.class_token.shape == (1, encoder.class_width)


@pytest.mark.parametrize(
    ("size", "message"), [((200, 640), "use 192 or 224"), ((192, 650), "width 650"), ((0, 64), "32")]
)
def test_a_wrong_size_names_the_right_ones(size: tuple[int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny()(torch.rand(1, 3, *size))


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("huge", {}, "unknown preset 'huge'"),
        ("tiny", {"fuison": "x"}, "unknown encoder option 'fuison'"),
        ("tiny", {"fusion": "sum"}, "expected one of 'interp_conv1x1'"),
        ("tiny", {"image_tower": None, "dino": None}, "keep at least one tower"),
        ("tiny", {"prompt": "no slot"}, "{depth}"),
        ("tiny", {"dino_blocks": (1, 2, 3, 9)}, "blocks 0 to 3"),
        ("tiny", {"clip": "RN5000"}, "open_clip knows no architecture"),
        ("tiny", {"dino": "vit_none"}, "timm knows no model"),
        ("small", {"dino_weights": "random", "clip_weights": "/nowhere/RN50.pt"}, "/nowhere/RN50.pt: no such file"),
        ("small", {"clip_weights": "random", "dino_weights": "/nowhere/d.pth"}, "/nowhere/d.pth: no such file"),
        ("small", {"clip_weights": "laion9000"}, "has no weights 'laion9000'"),
    ],
)
def test_wrong_configs_say_what_to_do(source: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_encoder(source, **changes)


def test_presets_are_buildable_configs() -> None:
    assert {"paper", "released", "small", "dinov3", "tiny"} <= set(PRESETS)
    for config in PRESETS.values():
        assert type(config).from_dict(config.to_dict()) == config
        assert dataclasses.replace(config) == config


def test_frozen_parts_stay_frozen_and_in_eval_mode() -> None:
    encoder = tiny(train_dino_blocks=1, train_image_tower=False).train()
    assert encoder.dino is not None
    assert encoder.image_tower is not None
    assert not any(m.training for m in encoder.image_tower.children())
    assert not encoder.dino.vit.training
    trained = {name for name, p in encoder.dino.vit.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith("blocks.3.") for name in trained)
    before = {name: value.clone() for name, value in encoder.image_tower.state_dict().items()}
    sum(m.square().mean() for m in encoder(torch.rand(2, 3, 64, 64))).backward()
    assert all(torch.equal(before[name], value) for name, value in encoder.image_tower.state_dict().items())
    assert encoder.language.tokens.grad is not None
    assert all(p.grad is None for name, p in encoder.language.named_parameters() if name != "tokens")


def test_parameter_groups_hold_every_trained_parameter_once() -> None:
    encoder = tiny(train_dino_blocks=1)
    groups = encoder.parameter_groups(1e-3)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in encoder.parameters() if p.requires_grad)
    assert groups[1]["weight_decay"] == 0
    assert any(p is encoder.language.tokens for p in groups[1]["params"])


def test_text_features_follow_every_change() -> None:
    encoder = tiny().eval()
    language = encoder.language
    with torch.no_grad():
        first = language.text_features()
        assert language.text_features() is first
        language.tokens.add_(1.0)
        second = language.text_features()
        assert not torch.allclose(first, second)
        language.projection.mul_(-1.0)
        assert torch.allclose(language.text_features(), -second, atol=1e-6)
        language.load_state_dict(
            {k: torch.zeros_like(v) if k == "tokens" else v for k, v in language.state_dict().items()}
        )
        zeroed = language.text_features()
        assert not torch.allclose(zeroed, -second)
    with torch.inference_mode():
        inside = language.text_features()
    (inside @ torch.rand(inside.shape[1], requires_grad=True)).sum().backward()  # kept tensors serve training, too
    encoder.train()
    optimizers = [
        torch.optim.SGD(encoder.parameters(), lr=1.0),
        torch.optim.AdamW(encoder.parameters(), lr=1.0, fused=True),
    ]
    encoder.forward_features(torch.rand(1, 3, 64, 64)).logits[0].square().mean().backward()
    before = zeroed
    for optimizer in optimizers:
        optimizer.step()
        with torch.no_grad():
            after = language.text_features()
        assert not torch.allclose(after, before)
        before = after


def test_text_written_through_data_is_seen_at_the_next_switch_of_modes() -> None:
    encoder = tiny().eval()
    with torch.no_grad():
        before = encoder.text()
        encoder.language.tokens.data.mul_(-1)
        assert not torch.allclose(encoder.train().eval().text(), before)


def fused_step(language: Language) -> None:
    """A foreign loop's, on the tokens and on what else of the text tower requires gradients."""
    trained = [parameter for parameter in language.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, fused=True)
    language.text_features()[:, 0].sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def unfrozen_step(language: Language) -> None:
    """The tower trains for one step and is frozen again before anyone looks."""
    language.requires_grad_(True)
    fused_step(language)
    language.requires_grad_(False)


def gradient_by_hand(language: Language) -> None:
    language.tokens.grad = torch.ones_like(language.tokens)
    torch.optim.AdamW([language.tokens], lr=0.1, fused=True).step()
    language.tokens.grad = None


def assigned(language: Language) -> None:
    state = {name: value + 0.1 if name == "position" else value for name, value in language.state_dict().items()}
    language.load_state_dict(state, assign=True)


def moved(language: Language) -> None:
    language.double()


CHANGES = {
    "fused optimiser": fused_step,
    "unfrozen tower": unfrozen_step,
    "gradient by hand": gradient_by_hand,
    "token in place": lambda language: language.tokens.detach().add_(0.1),
    "token through .data": lambda language: language.tokens.data.add_(0.1),
    "tower in place": lambda language: language.projection.detach().mul_(-1),
    "tower's .data replaced": lambda language: setattr(language.projection, "data", -language.projection.data),
    "tower's parameter replaced": lambda language: setattr(
        language, "projection", torch.nn.Parameter(-language.projection.detach(), requires_grad=False)
    ),
    "assigned state": assigned,
    "moved": moved,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_kept_text_is_never_old(change: Callable[[Language], None]) -> None:
    """In eval mode all the time, as foreign loops may leave it."""
    language = tiny().eval().language
    for _ in range(2):
        with torch.no_grad():
            before = language.text_features()
            assert language.text_features() is before
        change(language)
        with torch.no_grad():
            after = language.text_features()
            fresh = language._token_features()
        assert torch.equal(after, fresh)
        assert after.dtype != before.dtype or not torch.equal(after, before)
        language.float()


def test_kept_words_follow_a_tower_that_trains() -> None:
    language = tiny().eval().language
    with torch.no_grad():
        before = language.word_features()
        assert language.word_features() is before
    unfrozen_step(language)
    with torch.no_grad():
        assert not torch.equal(language.word_features(), before)
        assert torch.equal(language.word_features(), language._word_features())


def test_text_of_inference_tensors_is_followed() -> None:
    with torch.inference_mode():
        language = tiny().eval().language
        for change in (language.tokens, language.projection):
            before = language.text_features()
            assert language.text_features() is before
            change.mul_(-1)
            assert torch.equal(language.text_features(), language._token_features())
            assert not torch.equal(language.text_features(), before)


def test_text_of_other_parameters_for_one_call() -> None:
    """torch.func puts them in the place of a model's own; vmap runs several models at once."""
    models = [tiny().eval(), create_encoder("tiny").eval()]
    with torch.no_grad():
        models[1].language.tokens.add_(1)
    image = torch.rand(1, 3, 64, 64)
    state = torch.func.stack_module_state(models)  # type: ignore[arg-type]

    def call(parameters: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(models[0], (parameters, buffers), (image,))[4]  # type: ignore[no-any-return]

    with torch.no_grad():
        alone = [model(image)[4] for model in models]
        together = torch.vmap(call)(*state)
        assert torch.equal(models[0](image)[4], alone[0])
    for one, all_ in zip(alone, together, strict=True):
        torch.testing.assert_close(one, all_, rtol=1e-3, atol=1e-4)


def test_no_hook_is_left_on_all_optimisers() -> None:
    from torch.optim.optimizer import _global_optimizer_post_hooks

    tiny()
    assert not _global_optimizer_post_hooks


def test_encoders_are_built_on_meta_and_filled() -> None:
    image = torch.rand(1, 3, 64, 64)
    source = tiny().eval()
    with torch.device("meta"):
        sketch = create_encoder("tiny").eval()
        assert [m.shape for m in sketch(torch.rand(1, 3, 64, 64))] == [m.shape for m in source(image)]
    with pytest.raises(UserError, match="on the device 'meta'"):
        load_state(sketch, source.state_dict(), "x.pth")
    filled = sketch.to_empty(device="cpu")
    load_state(filled, source.state_dict(), "x.pth")
    with torch.no_grad():
        assert torch.equal(filled(image)[0], source(image)[0])


@pytest.mark.parametrize("warm", [False, True])
def test_encoders_can_be_traced(warm: bool) -> None:
    encoder = tiny(dino="vit_small_patch14_dinov2", dino_blocks=(0, 1, 2, 3), position_resize="facebook").eval()
    first, second = torch.rand(2, 1, 3, 64, 96)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes become constants
        if warm:
            encoder(first)
        traced = torch.jit.trace(encoder, first, strict=False)
        for ours, theirs in zip(traced(second), encoder(second), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_copies_for_data_parallel_resize_their_own_positions() -> None:
    vit = tiny(dino="vit_small_patch14_dinov2", dino_blocks=(0, 1, 2, 3), position_resize="facebook").dino.vit
    copied = vit._replicate_for_data_parallel()
    copied.pos_embed, patches = torch.zeros_like(vit.pos_embed), torch.rand(1, 5, 7, 384)
    copied.cls_token = vit.cls_token
    with torch.no_grad():
        assert torch.equal(copied._pos_embed(patches)[:, 1:], patches.flatten(1, 2))
        assert not torch.equal(vit._pos_embed(patches)[:, 1:], patches.flatten(1, 2))


class _Aligned(torch.nn.Module):
    def __init__(self, language: Language) -> None:
        super().__init__()
        self.language = language

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        return align(level, self.language.text_features())


def test_strict_export_has_the_text() -> None:
    model, level = _Aligned(tiny().eval().language), torch.rand(1, 64, 2, 3)
    with torch.no_grad():
        expected = model(level)
        model.language.ln_final.register_forward_pre_hook(lambda *_: pytest.fail("the text tower was run"))
        assert torch.equal(torch.export.export(model, (level,), strict=True).module()(level), expected)


WRONG_PIXELS = {
    "0 to 255": 255 * torch.rand(1, 3, 64, 64),
    "normalised": (torch.rand(1, 3, 64, 64) - 0.45) / 0.225,
    "uint8": (255 * torch.rand(1, 3, 64, 64)).byte(),
}


@pytest.mark.parametrize("image", WRONG_PIXELS.values(), ids=WRONG_PIXELS)
@pytest.mark.parametrize("kind", ["hybrid", "dino", "resnet"])
def test_pixels_out_of_range_are_refused(kind: str, image: torch.Tensor) -> None:
    encoder = (
        ResnetEncoder(18, "random") if kind == "resnet" else tiny(**{"image_tower": None} if kind == "dino" else {})
    )
    with pytest.raises(UserError, match=r"expected .* in \[0, 1\]"):
        encoder.eval()(image)


def test_the_values_of_pixels_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, calls = tiny().eval(), []
    aminmax = torch.Tensor.aminmax
    monkeypatch.setattr(torch.Tensor, "aminmax", lambda self: calls.append(1) or aminmax(self))
    for _ in range(3):
        encoder(torch.rand(1, 3, 64, 64))
    assert len(calls) == 2  # by each of the two towers


PROMPTS = ["This patch appears to be {depth}", "Along the x axis it is {depth}", "{depth} from the camera, in metres"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_are_read_as_clip_reads_them(prompt: str) -> None:
    """Against open_clip's own encode_text over all 77 positions, of words and of a token that is one."""
    torch.manual_seed(0)
    clip = build_clip("tiny", "random").eval()
    language = Language(clip, PRESETS["tiny"].replace(prompt=prompt, num_tokens=1))
    twin = open_clip_twin(clip)
    expected = twin.encode_text(open_clip.tokenize([prompt.format(depth=word) for word in DEPTH_WORDS]), normalize=True)
    assert (language.word_features() - expected).abs().max() < 1e-6
    token = open_clip.SimpleTokenizer().encode("near")
    with torch.no_grad():
        language.tokens.copy_(clip.token_embedding.weight[token])
        expected = twin.encode_text(open_clip.tokenize([prompt.format(depth="near")]), normalize=True)
        assert (language.text_features() - expected).abs().max() < 1e-6


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tokens_start_from_the_words_alone(prompt: str) -> None:
    torch.manual_seed(0)
    clip = build_clip("tiny", "random")
    language = Language(clip, PRESETS["tiny"].replace(prompt=prompt, num_tokens=7))
    ids = [open_clip.SimpleTokenizer().encode(word) for word in DEPTH_WORDS]
    expected = torch.stack([clip.token_embedding.weight[word].mean(0) for word in ids])
    assert torch.allclose(language.tokens, expected)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("It is {depth}m away", "stand on its own"), ("far " * 80 + "{depth}", "longer than CLIP's 77")],
)
def test_prompts_that_cannot_be_read_are_refused(prompt: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(prompt=prompt)


def test_blocks_behind_the_last_map_are_not_run() -> None:
    """As many blocks train as asked for, and each of them gets a gradient."""
    encoder = tiny(dino="vit_small_patch14_dinov2", dino_blocks=(1, 3, 5, 8), train_dino_blocks=2, pyramid=False)
    assert encoder.dino is not None
    encoder.dino.vit.blocks[9].register_forward_hook(lambda *_: pytest.fail("a block behind the last map was run"))
    features = encoder.train().forward_features(torch.rand(1, 3, 64, 96))
    sum(level.mean() for level in features.aligned).backward()
    trained = {name.split(".")[1] for name, p in encoder.dino.vit.named_parameters() if p.requires_grad}
    assert trained == {"7", "8"}
    assert all(p.grad is not None for p in encoder.dino.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "changes",
    [
        {"dino": "resnet18"},
        {"dino": "swin_tiny_patch4_window7_224"},
        {"dino": "vit_small_patch16_dinov3", "position_resize": "facebook"},
        {"dino": "vit_small_patch14_reg4_dinov2", "position_resize": "facebook"},
    ],
)
def test_a_dino_that_cannot_be_used_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"dino|facebook"):
        tiny(**changes)


def test_torch_export_takes_the_text_as_a_constant() -> None:
    encoder = tiny(pyramid=False).eval()
    model = DepthModel(encoder, DPTDecoder(encoder), 64, 96).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(image)["disp", 0]
        encoder.language.ln_final.register_forward_pre_hook(lambda *_: pytest.fail("the text tower was run"))
        program = torch.export.export(_Finest(model).eval(), (image,), strict=False)
    assert torch.equal(program.module()(image), expected)


def test_export_after_new_weights_has_their_text() -> None:
    torch.manual_seed(0)
    encoder = tiny(pyramid=False).eval()
    model = _Finest(DepthModel(encoder, DPTDecoder(encoder), 64, 96)).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        before = model(image)
        state = model.state_dict()
        model.load_state_dict(
            {k: torch.randn_like(v) if k.endswith("language.tokens") else v for k, v in state.items()}
        )
        program = torch.export.export(model, (image,), strict=False)
    assert (program.module()(image) - model(image)).abs().max() < 1e-6
    assert not torch.equal(before, model(image))


def test_files_without_normalisation_leave_the_towers_own() -> None:
    """Plain strict loading, as resuming does and the original's scripts."""
    encoder = tiny()
    assert encoder.image_tower is not None
    mean = encoder.image_tower.mean.clone()
    encoder.load_state_dict({k: v for k, v in encoder.state_dict().items() if not k.endswith((".mean", ".std"))})
    assert torch.equal(encoder.image_tower.mean, mean)


class _Finest(torch.nn.Module):
    """An exported program's outputs have names, not pairs."""

    def __init__(self, model: DepthModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model(image)["disp", 0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["dpt", "unet"])
def test_bf16_keeps_far_disparities_apart(kind: str) -> None:
    encoder = tiny().eval()
    decoder = DPTDecoder(encoder) if kind == "dpt" else UNetDecoder(encoder.num_ch_enc)
    head = decoder.heads["0"].conv3 if isinstance(decoder, DPTDecoder) else decoder.decoder[10].conv
    torch.nn.init.constant_(head.bias, -7.0)
    model = DepthModel(encoder, decoder, 64, 96).eval()
    with inference(torch.device("cpu"), "bf16"):
        disparity = model(torch.rand(1, 3, 64, 96))["disp", 0]
    assert disparity.dtype == torch.float32
    assert len(disparity.unique()) > 1000


def test_alignment_equals_its_definition() -> None:
    text = F.normalize(torch.randn(6, 20), dim=-1)
    for channels in (20, 12, 33):
        level = torch.randn(2, channels, 3, 4)
        resized = F.interpolate(level.permute(0, 2, 3, 1).flatten(1, 2), size=20, mode="nearest")
        expected = 100 * F.normalize(resized, dim=-1) @ text.T
        assert torch.allclose(align(level, text), expected.transpose(1, 2).view(2, 6, 3, 4), atol=1e-4)


def test_towers_apply_their_own_normalisation() -> None:
    own, none = tiny(), tiny(normalization="none")
    assert own.dino is not None
    assert none.dino is not None
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(none.dino.normalize(image), image)
    assert not torch.allclose(own.dino.normalize(image), image)


@pytest.mark.parametrize("scales", [(0,), (0, 1, 2, 3), (3, 0)])
def test_dpt_decoder_scales(scales: tuple[int, ...]) -> None:
    encoder = tiny(pyramid=False)
    decoder = DPTDecoder(encoder, scales)
    out = decoder(encoder.forward_features(torch.rand(2, 3, 64, 96)))
    assert set(out) == {("disp", s) for s in scales}
    assert all(out["disp", s].shape == (2, 1, 64 >> s, 96 >> s) for s in scales)
    assert all(0 < d.min() and d.max() < 1 for d in out.values())
    sum(d.mean() for d in out.values()).backward()
    assert all(p.grad is not None for p in decoder.parameters())
    with pytest.raises(UserError, match="pyramid=False"):
        encoder(torch.rand(1, 3, 64, 64))


def test_relu_head_and_wrong_arguments() -> None:
    encoder = tiny()
    disparity = DPTDecoder(encoder, head="relu")(encoder.forward_features(torch.rand(1, 3, 64, 64)))["disp", 0]
    assert disparity.min() >= 0
    with pytest.raises(UserError, match="scales"):
        DPTDecoder(encoder, scales=(4,))
    with pytest.raises(UserError, match="head"):
        DPTDecoder(encoder, head="tanh")  # type: ignore[arg-type]


def test_stock_decoder_reads_resnet_and_hybrid_alike() -> None:
    for encoder in (ResnetEncoder(18, "random"), tiny()):
        out = UNetDecoder(encoder.num_ch_enc)(encoder(torch.rand(1, 3, 64, 96)))  # type: ignore[arg-type]
        assert [out["disp", s].shape[-1] for s in range(4)] == [96, 48, 24, 12]


@pytest.mark.parametrize("skip", [0, 5])
def test_decoder_step_equals_doubling_joining_and_padding(skip: int) -> None:
    """Values and gradients of `JoinElu` and `ConvElu` against what they stand for, in float64."""
    torch.manual_seed(0)
    join, convolve = JoinElu(3, skip).double(), ConvElu(3, 4).double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    finer = torch.randn(2, skip, 8, 12, dtype=torch.float64, requires_grad=True) if skip else None

    def plain() -> torch.Tensor:
        doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
        joined = doubled if finer is None else torch.cat([doubled, finer], dim=1)
        for step in (join, convolve):
            joined = F.elu(step.conv.conv(F.pad(joined, (1, 1, 1, 1), mode="reflect")))
        return joined

    inputs = [x, *([finer] if finer is not None else []), *join.parameters(), *convolve.parameters()]
    ours, expected = convolve(join(x, finer)), plain()
    torch.testing.assert_close(ours, expected)
    towards = torch.randn_like(expected)
    for mine, reference in zip(
        torch.autograd.grad(ours, inputs, towards), torch.autograd.grad(expected, inputs, towards), strict=True
    ):
        torch.testing.assert_close(mine, reference)


def test_resnet_has_the_originals_tensors() -> None:
    encoder, pairs = ResnetEncoder(18, "random"), ResnetEncoder(18, "random", num_input_images=2)
    assert len(encoder.state_dict()) == 122
    assert pairs.state_dict()["encoder.conv1.weight"].shape == (64, 6, 7, 7)
    assert len(UNetDecoder(encoder.num_ch_enc).state_dict()) == 28
    assert ResnetEncoder(50, "random").num_ch_enc.tolist() == [64, 256, 512, 1024, 2048]
    pose = PoseDecoder(512)
    assert pose.state_dict()["net.3.weight"].shape == (12, 256, 1, 1)
    axis_angle, translation = pose([pairs(torch.rand(2, 6, 64, 64))])
    assert axis_angle.shape == translation.shape == (2, 2, 1, 3)
    axis_angle, _ = ClassTokenPose(8)(torch.rand(2, 8), torch.rand(2, 8))
    assert axis_angle.shape == (2, 1, 1, 3)
    assert axis_angle.abs().max() < 0.05


def test_matching_tower_splits_where_the_cost_volume_enters() -> None:
    encoder = tiny().eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        tower = encoder.matching_tower
        shallow = tower.shallow(image)
        rejoined = encoder.combine(image, [shallow, *tower.deep(shallow)], encoder.text())
        whole = encoder.forward_features(image)
    assert shallow.shape == (1, tower.channels[0], 16, 16)
    assert all(torch.equal(a, b) for a, b in zip(rejoined.aligned, whole.aligned, strict=True))
    with pytest.raises(UserError, match="stride-4"):
        _ = tiny(image_tower=None).matching_tower


def test_num_ch_enc_is_what_stock_decoders_index() -> None:
    num_ch_enc = tiny().num_ch_enc
    assert [num_ch_enc[-1], num_ch_enc[1], *num_ch_enc[2:4]] == [512, 64, 128, 256]
    assert (np.asarray(num_ch_enc) == np.array([64, 64, 128, 256, 512])).all()


@pytest.mark.parametrize(("bf16_seconds", "expected"), [(0.0, "bf16"), (0.02, "float32")])
def test_precision_of_inference_is_the_faster_one(bf16_seconds: float, expected: str) -> None:
    def see() -> None:
        time.sleep(bf16_seconds if torch.is_autocast_enabled("cpu") else 0.01)

    assert faster_precision(see) == expected
