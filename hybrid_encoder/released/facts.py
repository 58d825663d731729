"""Facts that the authors' files do not state: how their nets saw pixels; and the line that reports what was decided.

Tensors do not show which mean and standard deviation a net was trained with. The kind of run that a file comes from
does: docs/METHOD.md, section 4, lists what each kind of run did.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal

from ..config import HybridEncoderConfig, ResnetNormalization, preset
from ..errors import UserError

Kind = Literal["stage 1", "single frame", "two frames", "teacher"]
"""Stage 1; stage 2 with Monodepth2; the two-frame net of ManyDepth; its single-frame teacher."""

_PIXELS: dict[Kind, dict[str, Any]] = {
    "stage 1": {"normalization": "imagenet"},
    "single frame": {"normalization": "none"},
    "two frames": {"normalization": "imagenet", "dino_normalization": "none"},
    "teacher": {"normalization": "none"},
}
_RANKED = {"ranking": "one_way", "rank_order": "far_to_near"}
"""How the released code ranks patches in stage 1, from which all of its runs start."""
_SEEN = {
    "own": "images with its own mean and deviation",
    "imagenet": "images with ImageNet's mean and deviation",
    "none": "raw [0, 1]",
}


def kind_of(entries: Mapping[str, Any], source: str) -> Kind:
    """The kind of run that wrote an encoder.pth, by the plain values that its trainer saved beside the tensors.

    >>> kind_of({"height": 192, "use_stereo": False}, "encoder.pth")
    'single frame'

    Args:
        entries: what `read_checkpoint` returns.
        source: names the file.

    Raises:
        UserError: the values of neither trainer are there, so that it is unknown how the nets saw pixels.
    """
    if "min_depth_bin" in entries:
        return "two frames"
    if "use_stereo" in entries:
        return "single frame"
    raise UserError(
        f"{source} says neither use_stereo, as a Monodepth2 run's does, nor min_depth_bin, as a ManyDepth run's does: "
        "how its nets saw pixels cannot be known. Say it to evaluate, predict or convert: --normalization none (or "
        "imagenet, own). What convert writes keeps it, for training and all else"
    )


def base_config(kind: Kind, normalization: str | None = None) -> HybridEncoderConfig:
    """The preset `released` with the normalisation of a kind of run, and the ranking of its stage 1.

    Args:
        normalization: used for both towers in place of the kind's; None: the kind's.
    """
    pixels = _PIXELS[kind] if normalization is None else {"normalization": normalization, "dino_normalization": "same"}
    return preset("released").replace(**pixels, **_RANKED)


def pose_normalization(kind: Kind) -> ResnetNormalization:
    """How the pose ResNet of a kind of run normalises pixels."""
    return "none" if kind == "single frame" else "monodepth2"


def describe(config: HybridEncoderConfig, kind: Kind) -> str:
    """One line on what was decided about an encoder.

    >>> describe(preset("released"), "single frame")  # doctest: +NORMALIZE_WHITESPACE
    'single frame; 256 tokens; CLIP and DINO, interp_conv1x1, alignment=concat; CLIP sees raw [0, 1], DINO sees raw
    [0, 1]; head relu'
    """
    towers, pixels = f"{' and '.join(_towers(config))}, {config.fusion}", describe_pixels(config)
    if kind == "stage 1":
        return f"{kind}; {towers}; {pixels}"
    return f"{kind}; {config.num_tokens} tokens; {towers}, alignment={config.alignment}; {pixels}; head relu"


def describe_pixels(config: HybridEncoderConfig) -> str:
    """How the towers of an encoder see pixels, in words.

    >>> describe_pixels(preset("paper").replace(dino=None))
    'CLIP sees images with its own mean and deviation'
    """
    return ", ".join(f"{tower} sees {_SEEN[choice]}" for tower, choice in _towers(config).items())


def _towers(config: HybridEncoderConfig) -> dict[str, str]:
    """The normalisation of each tower that sees images, by the tower's name in messages."""
    image_tower = {"clip": "CLIP", None: None}.get(config.image_tower, "an ImageNet ResNet-50 in CLIP's place")
    seen: dict[str, str] = {image_tower: config.normalization} if image_tower else {}
    return seen | ({"DINO": config.normalization_of_dino} if config.dino else {})


def tell(source: str, text: str) -> None:
    """Prints what was decided about a file, to stderr: the results of a command are on stdout."""
    print(f"{source}: {text}", file=sys.stderr)
