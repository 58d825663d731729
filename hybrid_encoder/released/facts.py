"""What the authors' files do not say: how the nets in them saw pixels; and the line that tells what was decided.

No tensor shows which mean and deviation a net was trained with. What kind of run a file comes from does:
docs/METHOD.md, section 4, says what each kind did.
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
"""How the released code ranks patches in stage 1, which all of its runs start from."""
_SEEN = {
    "own": "images with its own mean and deviation",
    "imagenet": "images with ImageNet's mean and deviation",
    "none": "raw [0, 1]",
}


def kind_of(entries: Mapping[str, Any], source: str) -> Kind:
    """Which run an encoder.pth is of, by the plain values that its trainer wrote beside the tensors.

    >>> kind_of({"height": 192, "use_stereo": False}, "encoder.pth")
    'single frame'

    Args:
        entries: what `read_checkpoint` returns.
        source: names the file.

    Raises:
        UserError: neither trainer's values are there: how its nets saw pixels cannot be known.
    """
    if "min_depth_bin" in entries:
        return "two frames"
    if "use_stereo" in entries:
        return "single frame"
    raise UserError(
        f"{source} says neither use_stereo, as a Monodepth2 run's does, nor min_depth_bin, as a ManyDepth run's does: "
        "how its nets saw pixels cannot be known. Convert the folder and say it there: hybrid-encoder convert FOLDER "
        "--out NEW --normalization none (or imagenet, own)"
    )


def base_config(kind: Kind, normalization: str | None = None) -> HybridEncoderConfig:
    """The preset `released` with the normalisation of a kind of run, and how its stage 1 ranked patches.

    Args:
        normalization: in place of the kind's.
    """
    pixels = _PIXELS[kind] if normalization is None else {"normalization": normalization, "dino_normalization": "same"}
    return preset("released").replace(**pixels, **_RANKED)


def pose_normalization(kind: Kind) -> ResnetNormalization:
    """What the pose ResNet of a run does to pixels."""
    return "none" if kind == "single frame" else "monodepth2"


def describe(config: HybridEncoderConfig, kind: Kind) -> str:
    """What was decided about an encoder, in one line.

    >>> describe(preset("released"), "single frame")  # doctest: +NORMALIZE_WHITESPACE
    'single frame; 256 tokens; CLIP and DINO, interp_conv1x1, alignment=concat; CLIP sees raw [0, 1], DINO sees raw
    [0, 1]; head relu'
    """
    seen: dict[str, str] = {"CLIP": config.normalization} if config.image_tower else {}
    seen |= {"DINO": config.normalization_of_dino} if config.dino else {}
    towers = f"{' and '.join(seen)}, {config.fusion}"
    pixels = ", ".join(f"{tower} sees {_SEEN[choice]}" for tower, choice in seen.items())
    if kind == "stage 1":
        return f"{kind}; {towers}; {pixels}"
    return f"{kind}; {config.num_tokens} tokens; {towers}, alignment={config.alignment}; {pixels}; head relu"


def tell(source: str, text: str) -> None:
    """Prints what was decided about a file, to stderr: the results of a command are on stdout."""
    print(f"{source}: {text}", file=sys.stderr)
