"""The hybrid encoder's options in an original's parser, shared by all hosts' `upstream.py`."""

from __future__ import annotations

import argparse
from typing import Any

from hybrid_encoder.config import HybridEncoderConfig, check_scales
from hybrid_encoder.errors import UserError
from hybrid_encoder.options import HYBRID_ONLY, EncoderOptions


def add_options(parser: argparse.ArgumentParser) -> Any:
    """Adds the options of the hybrid encoder to an original's parser; returns their group."""
    group = parser.add_argument_group("hybrid encoder")
    group.add_argument("--encoder", choices=("resnet", "hybrid"), default="resnet", help="depth encoder")
    add_encoder_options(group)
    group.add_argument("--decoder", choices=("dpt", "unet"), help="depth decoder (hybrid: dpt)")
    group.add_argument("--head", choices=("sigmoid", "relu"), default="sigmoid", help="end of the DPT decoder")
    return group


def add_encoder_options(group: Any) -> None:
    """Adds the options that say which hybrid encoder to build and which weights it starts from to a parser's group."""
    group.add_argument("--preset", default="paper", help="hybrid encoder: paper, released, small, dinov3 or tiny")
    group.add_argument("--encoder_option", action="append", default=[], help="NAME=VALUE of HybridEncoderConfig")
    group.add_argument("--clip_weights", help="CLIP's weights: a file, an open_clip tag, or random")
    group.add_argument("--dino_weights", help="DINO's weights: a file, pretrained, or random")
    group.add_argument("--stage1", help="stage1.pth of `hybrid-encoder pretrain`")
    group.add_argument("--encoder_lr", type=float, help="learning rate of the encoder, where it differs")


def asked_config(options: Any, filled: bool) -> HybridEncoderConfig:
    """The hybrid encoder that the options of `add_encoder_options` and `--weights_init` ask for.

    Args:
        filled: whether a file of weights will fill the encoder, so that its towers need no published weights.
    """
    config = EncoderOptions(
        preset=options.preset,
        clip_weights=options.clip_weights,
        dino_weights=options.dino_weights,
        weights_init=options.weights_init,
        encoder_option=tuple(options.encoder_option),
    ).config()
    return config.without_downloads() if filled or options.stage1 is not None else config


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace, any_hybrid: bool) -> None:
    """Sets options that depend on others.

    Args:
        parser: the parser of the options: its defaults show which options were not given.
        any_hybrid: whether any encoder is a hybrid encoder.

    Raises:
        UserError: options that contradict each other.
    """
    if not any_hybrid:
        check_unused(options, "--encoder hybrid")
    if options.encoder != "hybrid" and options.decoder == "dpt":
        raise UserError("--decoder dpt reads the hybrid encoder's levels: add --encoder hybrid, or use --decoder unet")
    options.decoder = options.decoder or ("dpt" if options.encoder == "hybrid" else "unet")
    if options.decoder == "dpt" and options.scales is parser.get_default("scales"):
        options.scales = [0]
    if any_hybrid:
        check_scales(options.scales)


def check_unused(options: argparse.Namespace, remedy: str) -> None:
    """Raises `UserError` for an option of the hybrid encoder if none is built; `remedy` is the option that builds
    one."""
    for name in ("stage1", "encoder_lr", *HYBRID_ONLY):
        if getattr(options, name) not in (None, []):
            raise UserError(f"--{name} {getattr(options, name)} is for the hybrid encoder: add {remedy}")
