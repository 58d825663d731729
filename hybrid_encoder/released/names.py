"""Which of the authors' tensors is which of ours, and what config they belong to (METHOD, section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from ..config import HybridEncoderConfig
from ..errors import UserError, naming
from ..model.encoder import HybridEncoder
from ..model.language import Language
from ..weights.describe import describe_tensors

UNUSED = (
    "dinov2.mask_token",  # DINO's own training
    "clip.logit_scale",  # the temperature is fixed at 100
    "clip.visual.attnpool.*",  # pools the image into one vector
    "depth_head.projects.4.*",  # projects a level that does not exist
    "depth_head.scratch.refinenet4.resConfUnit1.*",  # would join a level coarser than the coarsest
)
"""The released tensors that no depth model needs."""

_TOKEN = re.compile(r"extra_tkns_learnables_depth\.([0-9]{1,6})")
_ENCODER_NAMES = (
    (r"dinov2\.((?:cls_token|pos_embed|patch_embed|blocks|norm)(?:\..+)?)", r"dino.vit.\1"),
    (r"clip\.visual\.((?:conv|bn)[123]\..+)", r"image_tower.stem.\1"),
    (r"clip\.visual\.(layer[1-4]\..+)", r"image_tower.\1"),
    (r"clip\.((?:transformer|ln_final)\..+)", r"language.\1"),
    (r"clip\.token_embedding\.weight", "language.embedding"),
    (r"clip\.positional_embedding", "language.position"),
    (r"clip\.text_projection", "language.projection"),
    (r"clip_align_conv\.([123]\..+)", r"fusion.project.\1"),
)
_DECODER_NAMES = (
    (r"depth_head\.projects\.([0-3]\..+)", r"project.\1"),
    (r"depth_head\.resize_layers\.([013]\..+)", r"resize.\1"),
    # <n> counts from 1 where ours counts from 0.
    (r"depth_head\.scratch\.layer([1-4])_rn\.(.+)", r"narrow.<\1>.\2"),
    (r"depth_head\.scratch\.refinenet([1-4])\.resConfUnit1\.(.+)", r"fuse.<\1>.join.\2"),
    (r"depth_head\.scratch\.refinenet([1-4])\.resConfUnit2\.(.+)", r"fuse.<\1>.refine.\2"),
    (r"depth_head\.scratch\.refinenet([1-4])\.out_conv\.(.+)", r"fuse.<\1>.out.\2"),
    (r"depth_head\.scratch\.output_conv1\.(.+)", r"heads.0.conv1.\1"),
    (r"depth_head\.scratch\.output_conv2\.0\.(.+)", r"heads.0.conv2.\1"),
    (r"depth_head\.scratch\.output_conv2\.2\.(.+)", r"heads.0.conv3.\1"),
)


def read_config(tensors: Mapping[str, Tensor], base: HybridEncoderConfig, source: str) -> HybridEncoderConfig:
    """The config of the authors' encoder, read off its tensors: K, and which towers there are.

    Raises:
        UserError: not the authors' encoder.
    """
    has_dino = any(name.startswith("dinov2.") for name in tensors)
    # CLIP is always there for its text tower; its images are used where they are brought to the fused channels.
    has_image_tower = any(name.startswith("clip_align_conv.") for name in tensors)
    if not (has_dino or has_image_tower) or not any(name.startswith("clip.") for name in tensors):
        raise UserError(f"{source} is no encoder of the authors: it seems to be {describe_tensors(tensors)}")
    return _changed(
        base.without_downloads(),
        source,
        dino=base.dino if has_dino else None,
        image_tower="clip" if has_image_tower else None,
        num_tokens=len(_token_names(tensors)) or base.num_tokens,
        pyramid=False,
    )


def read_alignment(
    config: HybridEncoderConfig, encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor], source: str
) -> HybridEncoderConfig:
    """The config with alignment and decoder width, read off the decoder's first projection.

    Args:
        encoder, decoder: the authors' tensors.
        source: names the decoder's file.

    Raises:
        UserError: not the authors' decoder, or not of this encoder.
    """
    first = decoder.get("depth_head.projects.0.weight")
    if first is None or first.ndim != 4:
        raise UserError(f"{source} is no DPT decoder of the authors: it seems to be {describe_tensors(decoder)}")
    width, given = first.shape[:2]
    fused = config.fusion_channels if config.image_tower else 0
    fused += encoder["dinov2.cls_token"].numel() if "dinov2.cls_token" in encoder else 0
    known = {config.num_tokens: "replace", fused: "none", fused + config.num_tokens: "concat"}
    if given not in known:
        raise UserError(
            f"{source} reads levels of {given} channels, but the encoder beside it has {config.num_tokens} tokens and "
            f"{fused} fused channels: expected one of {', '.join(map(str, sorted(known)))}"
        )
    return _changed(config, source, alignment=known[given], decoder_channels=width)


def encoder_tensors(
    tensors: Mapping[str, Tensor], encoder: HybridEncoder, source: str, ignore: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The authors' encoder tensors under our names.

    What has no place with us keeps its name, for `load_state` to report; `UNUSED` and `ignore` are left out.

    Raises:
        UserError: word embeddings that are not of CLIP's whole vocabulary.
    """
    # Without an image tower only the text half of CLIP is used.
    unused = (*UNUSED, *ignore) if encoder.image_tower is not None else (*UNUSED, "clip.visual.*", *ignore)
    ours = _rename(tensors, _ENCODER_NAMES, unused)
    names = _token_names(ours)
    if names:
        tokens = [ours.pop(name).reshape(1, -1) for name in names]
        if len({token.shape for token in tokens}) > 1:
            raise UserError(f"{source}: the depth tokens {names[0]}, ... are of several lengths")
        ours["language.tokens"] = torch.cat(tokens)
    for name, rows in _kept_rows(encoder.language).items():
        if name in ours:
            found = ours[name].shape
            if len(found) != 2 or found[0] <= max(rows):
                raise UserError(f"{source}: {name} has the shape {tuple(found)}, expected rows for all of CLIP's")
            ours[name] = ours[name][rows]
    return ours


def decoder_tensors(tensors: Mapping[str, Tensor], ignore: Sequence[str] = ()) -> dict[str, Tensor]:
    """The authors' decoder tensors under our names, as `encoder_tensors`."""
    return _rename(tensors, _DECODER_NAMES, (*UNUSED, *ignore))


def _changed(config: HybridEncoderConfig, source: str, **changes: Any) -> HybridEncoderConfig:
    with naming(source):
        return config.replace(**changes)


def _token_names(names: Iterable[str]) -> list[str]:
    found = [(int(match[1]), name) for name in names if (match := _TOKEN.fullmatch(name))]
    return [name for _, name in sorted(found)]


def _kept_rows(language: Language) -> dict[str, list[int]]:
    """The rows of CLIP's embeddings that the cut-down text tower keeps."""
    return {"language.embedding": language.vocabulary, "language.position": list(range(len(language.position)))}


def _rename(
    tensors: Mapping[str, Tensor], table: Sequence[tuple[str, str]], unused: Sequence[str]
) -> dict[str, Tensor]:
    renamed = {}
    for name, value in tensors.items():
        if not any(fnmatchcase(name, pattern) for pattern in unused):
            renamed[_our_name(name, table)] = value
    return renamed


def _our_name(name: str, table: Sequence[tuple[str, str]]) -> str:
    for pattern, ours in table:
        if (match := re.fullmatch(pattern, name)) is not None:
            return re.sub(r"<(\d)>", lambda digit: str(int(digit[1]) - 1), match.expand(ours))
    return name
