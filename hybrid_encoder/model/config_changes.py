"""The fields of `HybridEncoderConfig` as keyword arguments, so that editors complete them and type checkers know them.

A test says that these are the config's fields.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class ConfigChanges(TypedDict, total=False):
    """What `create_encoder` changes in a config; `HybridEncoderConfig` says what each field means."""

    clip: str
    clip_weights: str
    image_tower: str | None
    image_tower_weights: str
    dino: str | None
    dino_weights: str
    dino_blocks: tuple[int, ...] | None
    fusion: Literal["interp_conv1x1", "convs2_interp"]
    convs2_output_padding: bool
    fusion_channels: int
    alignment: Literal["concat", "replace", "none"]
    prompt: str
    num_tokens: int
    token_init: Literal["random", "words"]
    train_image_tower: bool
    train_dino_blocks: int
    train_tokens: bool
    train_text: Literal["none", "ends", "all"]
    normalization: Literal["own", "imagenet", "none"]
    dino_normalization: Literal["same", "own", "imagenet", "none"]
    text_norm: Literal["prompt", "matrix"]
    ranking: Literal["unknown", "one_way", "both_ways"]
    rank_order: Literal["near_to_far", "far_to_near"]
    position_resize: Literal["timm", "facebook"]
    pyramid: bool
    num_ch_enc: tuple[int, ...]
    strides: tuple[int, ...]
    nesting: tuple[int, ...] | None
    size: Literal["strict", "pad"]
    decoder_channels: int
    stride4_skip: bool
    decoder_style: Literal["published", "smooth"]
