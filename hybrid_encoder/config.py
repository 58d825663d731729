"""What a hybrid encoder is made of: one frozen dataclass, and the presets by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .errors import UserError

DEPTH_WORDS = (
    "very close",
    "close",
    "slightly close",
    "neither close nor distant",
    "slightly distant",
    "distant",
    "very distant",
)
"""The seven words of stage 1, near to far (docs/METHOD.md, section 2)."""

MAX_PIXELS = 1 << 27
"""Pixels of an image or a depth map beyond which its size is a mistake: 134 million, 400 MB as RGB."""
MIN_EVAL_DEPTH, MAX_EVAL_DEPTH = 1e-3, 80.0
"""Metres between which depth is evaluated, as in published metrics on KITTI."""

SIZE_MULTIPLE = 32
"""Image heights and widths are multiples of this: the coarsest map has stride 32."""
MAX_SIDE = 16384
"""Pixels of a side beyond which a size is a mistake."""
MAX_CROP_BOTTOM = 0.9
"""Share of an image's height beyond which cutting off below is a mistake."""
MIN_DEPTH, MAX_DEPTH = 0.1, 100.0
"""Nearest and farthest depth that a net can say, unless it is built for others; those of the Monodepth2 family."""
ResnetNormalization = Literal["monodepth2", "none"]
"""What a ResNet does to pixels in [0, 1]. "monodepth2": (x - 0.45) / 0.225, which the family's published weights
expect; "none": nothing, as the pose ResNet of the released Monodepth2 run."""
Resize = Literal["area", "lanczos"]
"""How images are brought to a net's size. "area": bilinear to a multiple of the size, then averaged; "lanczos":
Pillow's filter, as in the originals and the released runs: it leaves edges 7 to 14% stronger."""
SEED_OFFSETS = {"train": 0, "val": 50_000, "test": 90_000}
"""Added to the seed of rendered scenes, so that the three parts share none."""
_FEATURES = (
    "clip", "image_tower", "dino", "dino_blocks", "fusion", "convs2_output_padding", "prompt",
    "normalization", "dino_normalization", "position_resize", "text_norm", "strides", "decoder_style",
)  # fmt: skip
"""Fields that change what trained tensors compute, in part without changing their shapes."""
_MAX_WIDTHS = {"num_tokens": 65536, "fusion_channels": 4096, "decoder_channels": 4096}
_MAX_MAP_WIDTH = 8192
_STRIDES = (2, 4, 8, 16, 32)


def _is_prompt(prompt: str) -> bool:
    """Whether a prompt has one field, {depth}, and nothing that formats or looks into it."""
    try:
        fields = [field for _, *field in Formatter().parse(prompt) if field[0] is not None]
    except ValueError:
        return False
    return fields == [["depth", "", None]]


def _in_words(hint: Any) -> str:
    """An annotation as messages say it: "str", "tuple[int, ...] | None"."""
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a value fits an annotation of `HybridEncoderConfig`; lists count as tuples."""
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(type(item) is int for item in value)
    if get_args(hint):
        return any(_has_type(value, choice) for choice in get_args(hint))
    return type(value) is hint


@dataclass(frozen=True)
class HybridEncoderConfig:
    """Architecture, weights and trainable parts of a `HybridEncoder`; the defaults are the preset `paper`.

    Weights are named, never guessed: `"random"`, a hub tag (`"openai"` and the like for CLIP, `"pretrained"` for timm
    models) or the path of a local file.
    """

    clip: str = "RN50-quickgelu"
    """open_clip architecture (ModifiedResNet or ViT); its text tower is always used. "tiny" is ours, for tests and
    the demo."""
    clip_weights: str = "openai"
    image_tower: str | None = "clip"
    """What looks for "what things are": "clip"; in its place a timm ResNet such as "resnet50.tv_in1k", a timm vision
    transformer, or the image tower of an open_clip model such as "ViT-B-16-SigLIP"; or None."""
    image_tower_weights: str = "pretrained"
    """Weights of another image tower than "clip": a file, "random", "pretrained" (timm's), or an open_clip tag."""
    dino: str | None = "vit_base_patch14_dinov2"
    """timm ViT of the DINO family (v1, v2, v3), "tiny", or None."""
    dino_weights: str = "pretrained"
    dino_blocks: tuple[int, ...] | None = None
    """The four blocks whose maps are taken, 0-based; None: the end of each quarter, 2, 5, 8, 11 of 12."""

    fusion: Literal["interp_conv1x1", "convs2_interp"] = "interp_conv1x1"
    convs2_output_padding: bool = True
    """Whether the transposed convolution of convs2_interp adds a row and a column at the end of its map, which is then
    exactly twice as large; not so in the released code: 13 x 41 from 7 x 21."""
    fusion_channels: int = 256
    alignment: Literal["concat", "replace", "none"] = "concat"
    """What the decoder gets: [logits, fused], logits alone, fused alone."""
    prompt: str = "This patch appears to be {depth}"
    num_tokens: int = 256
    """K learnable depth tokens."""
    token_init: Literal["random", "words"] = "random"
    """Tokens drawn from N(0, 0.02^2), or interpolated between the embeddings of the seven words."""

    train_image_tower: bool = True
    train_dino_blocks: int = 1
    """How many of DINO's last blocks that are used train; its full depth or more: all of DINO."""
    train_tokens: bool = True
    train_text: Literal["none", "ends", "all"] = "none"
    """What of CLIP's text tower trains with the tokens: nothing; "ends": word and position embeddings, last norm and
    projection around a frozen transformer, as in the released Monodepth2 run; "all", as in the released ManyDepth
    run."""

    normalization: Literal["own", "imagenet", "none"] = "own"
    """Mean and deviation before the image tower: its own, ImageNet's, or none: it sees raw [0, 1], as in the released
    Monodepth2 run."""
    dino_normalization: Literal["same", "own", "imagenet", "none"] = "same"
    """The same before DINO; "same": what `normalization` says. In the released ManyDepth run, CLIP saw ImageNet's mean
    and deviation and DINO raw pixels."""
    text_norm: Literal["prompt", "matrix"] = "prompt"
    """"matrix" divides the text features once more by the norm of the whole matrix, as the released weights expect."""
    ranking: Literal["unknown", "one_way", "both_ways"] = "unknown"
    """How stage 1 ranked the patches of these weights: against nearer ones alone, or against all. Not a choice: stage 1
    sets it, its weights bring it, and `HybridEncoder.closeness` reads the logits by it."""
    rank_order: Literal["near_to_far", "far_to_near"] = "near_to_far"
    """How patches ran in stage 1 beside the words, which run near to far; "far_to_near" in the released weights."""
    position_resize: Literal["timm", "facebook"] = "timm"
    """How DINO's position embeddings are brought to the image's grid; "facebook" as in the released weights."""

    pyramid: bool = True
    """Build the drop-in maps. A DPT decoder does not need them: False saves their parameters."""
    num_ch_enc: tuple[int, ...] = (64, 64, 128, 256, 512)
    """Channels of the drop-in maps, fine to coarse, one to five of them. The default: a ResNet-18's."""
    strides: tuple[int, ...] = _STRIDES
    """Strides of the drop-in maps, ascending, each one of 2, 4, 8, 16, 32."""
    nesting: tuple[int, ...] | None = None
    """For hosts that take lists in place of maps: one number a map, 0 for the map itself, n for a list that holds it n
    times. DIFFNet's: (0, 1, 3, 2, 0)."""
    size: Literal["strict", "pad"] = "strict"
    """Of images whose sides are no multiples of 32: refuse them, or pad them and crop the drop-in maps."""
    decoder_channels: int = 256
    """Width of the DPT decoder; its projections are (1, 2, 4, 4) times as wide."""
    stride4_skip: bool = False
    """Lead the image tower's stride-4 map past the fusion into the decoder, for edges that the fused grid is too coarse
    for; transformers have no such map and go without. Published weights have no such layers."""
    decoder_style: Literal["published", "smooth"] = "published"
    """How the DPT decoder works. "smooth" is for nets that start from random numbers: no frame at the border, no grid,
    and a head that cannot die; `DPTDecoder` says how. The weights of one style mean nothing to the other."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not _has_type(value, hint):
                choices = get_args(hint) if get_origin(hint) is Literal else ()
                expected = f"one of {', '.join(map(repr, choices))}" if choices else _in_words(hint)
                raise UserError(f"{name}={value!r}: expected {expected}")
            if isinstance(value, list):  # as JSON has tuples
                object.__setattr__(self, name, tuple(value))
        self._check_maps()
        if self.image_tower is None and self.dino is None:
            raise UserError("image_tower and dino are both None: keep at least one tower")
        if not _is_prompt(self.prompt):
            raise UserError(
                f"prompt={self.prompt!r} needs exactly one {{depth}}: write e.g. 'This patch appears to be {{depth}}'"
            )
        for name, most in _MAX_WIDTHS.items():
            if not 1 <= getattr(self, name) <= most:
                raise UserError(f"{name}={getattr(self, name)}: expected 1 to {most}")
        if self.train_dino_blocks < 0:
            raise UserError(f"train_dino_blocks={self.train_dino_blocks}: expected 0 or more")
        if self.dino_blocks is not None:
            ascending = list(self.dino_blocks) == sorted(set(self.dino_blocks))
            if len(self.dino_blocks) != 4 or not ascending or self.dino_blocks[0] < 0:
                raise UserError(
                    f"dino_blocks={self.dino_blocks}: expected four ascending block numbers, e.g. (2, 5, 8, 11)"
                )

    def _check_maps(self) -> None:
        """Raises `UserError` for drop-in maps that cannot be built."""
        widths, strides, nesting = self.num_ch_enc, self.strides, self.nesting
        if not 1 <= len(widths) <= 5 or not all(1 <= width <= _MAX_MAP_WIDTH for width in widths):
            raise UserError(f"num_ch_enc={widths}: expected the channels of 1 to 5 maps, each 1 to {_MAX_MAP_WIDTH}")
        if not set(strides) <= set(_STRIDES) or list(strides) != sorted(set(strides)):
            raise UserError(f"strides={strides}: expected ascending ones of {', '.join(map(str, _STRIDES))}")
        if len(strides) != len(widths):
            raise UserError(
                f"num_ch_enc={widths} are {len(widths)} maps and strides={strides} are {len(strides)}: give as many "
                "strides, e.g. strides=(4, 8, 16) for three maps"
            )
        if nesting is not None and (len(nesting) != len(widths) or min(nesting) < 0):
            raise UserError(
                f"nesting={nesting}: expected {len(widths)} numbers, one a map, 0 for a map that is not in a list"
            )

    def replace(self, **changes: Any) -> HybridEncoderConfig:
        """A copy with some fields changed; an unknown field is a `UserError`."""
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise UserError(f"unknown encoder option {name!r}: known are {', '.join(known)}")
        return dataclasses.replace(self, **changes)

    @property
    def normalization_of_dino(self) -> str:
        """What `dino_normalization` comes to: "own", "imagenet" or "none"."""
        return self.normalization if self.dino_normalization == "same" else self.dino_normalization

    def without_downloads(self) -> HybridEncoderConfig:
        """The same architecture with random towers: to be filled from a checkpoint."""
        return self.replace(clip_weights="random", dino_weights="random", image_tower_weights="random")

    def check_same_features(self, saved: HybridEncoderConfig, source: str, ignore: tuple[str, ...] = ()) -> None:
        """Raises `UserError` where tensors saved under another config would fit and compute something else.

        Args:
            source: names their file.
            ignore: fields that may differ.
        """
        without_effect = {*ignore, *(("text_norm",) if self.alignment == "none" else ())}
        without_effect |= {"dino_blocks", "position_resize", "dino_normalization"} if self.dino is None else set()
        without_effect |= {"normalization"} if self.image_tower is None else set()
        without_effect |= {"convs2_output_padding"} if self.fusion != "convs2_interp" else set()
        for name in _FEATURES:
            compared = "normalization_of_dino" if name == "dino_normalization" else name
            own, theirs = getattr(self, compared), getattr(saved, compared)
            if own != theirs and name not in without_effect:
                raise UserError(f"{source} was trained with {name}={theirs!r}, not {own!r}: build the encoder with it")

    def ranked_as(self, trained: HybridEncoderConfig) -> HybridEncoderConfig:
        """This config with what another one says of the ranking: that of the weights that an encoder is filled with."""
        return self.replace(ranking=trained.ranking, rank_order=trained.rank_order)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON; `from_dict` takes them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> HybridEncoderConfig:
        """The config of a saved model.

        Raises:
            UserError: a field that this version does not know, a value of another type, or an architecture's name that
                is a path or an address: what a file says must not lead elsewhere.
        """
        config = cls().replace(**values)
        for name in ("clip", "image_tower", "dino"):
            value = getattr(config, name)
            if value is not None and not re.fullmatch(r"[\w.-]+", value):
                raise UserError(f"{name}={value!r} of a saved config: expected an architecture's name")
        return config


PresetName = Literal["paper", "released", "small", "dinov3", "tiny"]
_PAPER = HybridEncoderConfig()

PRESETS: dict[str, HybridEncoderConfig] = {
    "paper": _PAPER,
    "released": _PAPER.replace(
        normalization="none", text_norm="matrix", position_resize="facebook", convs2_output_padding=False
    ),
    "small": _PAPER.replace(dino="vit_small_patch14_dinov2", num_tokens=128),
    "dinov3": _PAPER.replace(dino="vit_small_patch16_dinov3", num_tokens=128),
    "tiny": _PAPER.replace(
        clip="tiny",
        clip_weights="random",
        dino="tiny",
        dino_weights="random",
        fusion_channels=64,
        num_tokens=16,
        token_init="words",
        train_dino_blocks=4,
        decoder_channels=32,
        stride4_skip=True,
        decoder_style="smooth",
    ),
}


def list_presets() -> list[str]:
    """The names of all presets, for `create_encoder` and `--preset`.

    >>> list_presets()
    ['paper', 'released', 'small', 'dinov3', 'tiny']
    """
    return list(PRESETS)


def preset(name: str) -> HybridEncoderConfig:
    """The config of a preset.

    Raises:
        UserError: no preset of that name; the message lists them.
    """
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}: expected one of {', '.join(list_presets())}")
    return PRESETS[name]


def check_image_size(height: int, width: int) -> None:
    """Raises `UserError` unless both sides are positive multiples of 32, the message names the nearest that are; or
    where they are no size of an image."""
    for side, value in (("height", height), ("width", width)):
        if value > MAX_SIDE:
            raise UserError(f"{side} {value} is more than {MAX_SIDE} pixels")
        if value <= 0 or value % SIZE_MULTIPLE:
            below = max(value // SIZE_MULTIPLE, 1) * SIZE_MULTIPLE
            nearest = f"{below} or {below + SIZE_MULTIPLE}" if value > below else f"{below}"
            raise UserError(f"{side} {value} is not a multiple of {SIZE_MULTIPLE}: use {nearest}")


def check_scales(scales: Sequence[int]) -> None:
    """Raises `UserError` unless these are scales that a depth decoder returns, each once."""
    if not set(scales) <= {0, 1, 2, 3} or 0 not in scales or len(set(scales)) < len(scales):
        raise UserError(f"scales={list(scales)}: expected 0 and any of 1 2 3, each once")
