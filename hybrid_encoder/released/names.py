"""Which of the authors' tensors is which of ours, and what config they belong to (docs/METHOD.md, section 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

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
IMAGENET_RESNET = "resnet50.tv_in1k"
"""What stood in CLIP's place in an ablation: torchvision's ResNet-50."""
STAGE1_HEAD = "depth_head.*"
"""A DPT head, which every stage-1 checkpoint holds and stage 1 never trains."""
TWO_FRAME_UNUSED = (
    "layer[0-4]_clip.*",  # these three: the towers' layers once more, under a second name
    "layer[1-4]_dino.*",
    "dino_norm.*",
    "backprojector*.*",  # fixed grids
    "prematching_conv.*",  # this and the next: built, never run
    "reduce_conv.1.0.*",
)
"""What the encoder.pth of a ManyDepth folder holds besides."""

_TOKEN = re.compile(r"extra_tkns_learnables_depth\.([0-9]{1,6})")
_ENCODER_NAMES = (
    (r"dinov2\.((?:cls_token|pos_embed|patch_embed|blocks|norm)(?:\..+)?)", r"dino.vit.\1"),
    (r"clip\.visual\.((?:conv|bn)[123]\..+)", r"image_tower.stem.\1"),
    (r"clip\.visual\.(layer[1-4]\..+)", r"image_tower.\1"),
    (r"clip\.((?:transformer|ln_final)\..+)", r"language.\1"),
    (r"clip\.token_embedding\.weight", "language.embedding"),
    (r"clip\.positional_embedding", "language.position"),
    (r"clip\.text_projection", "language.projection"),
    (r"clip_align_conv\.([0-3]\..+)", r"fusion.project.\1"),
)
_RESNET_NAMES = (
    (r"conv1\.(.+)", r"image_tower.stem.0.\1"),
    (r"bn1\.(.+)", r"image_tower.stem.1.\1"),
    (r"(layer[1-4]\..+)", r"image_tower.\1"),
)
"""Behind the prefix that `_resnet_prefix` finds."""
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
    """The config of the authors' encoder, read off its tensors: K, the fusion, and which towers there are.

    Raises:
        UserError: not the authors' encoder.
    """
    has_dino = any(name.startswith("dinov2.") for name in tensors)
    # CLIP is always there for its text tower; its images are used where they are brought to the fused channels.
    has_image_tower = any(name.startswith("clip_align_conv.") for name in tensors)
    if not (has_dino or has_image_tower) or not any(name.startswith("clip.") for name in tensors):
        raise UserError(f"{source} is no encoder of the authors: it seems to be {describe_tensors(tensors)}")
    # The other fusion needs no convolution at level 1, which has the fused channels already.
    first = tensors.get("clip_align_conv.0.weight")
    strided = first is not None and tuple(first.shape[2:]) == (3, 3)
    tower = "clip" if _resnet_prefix(tensors) is None else IMAGENET_RESNET
    return _changed(
        base.without_downloads(),
        source,
        **({"fusion": "convs2_interp", "convs2_output_padding": False} if strided else {}),
        dino=base.dino if has_dino else None,
        image_tower=tower if has_image_tower else None,
        num_tokens=len(_token_names(tensors)) or base.num_tokens,
        pyramid=False,
    )


def read_alignment(
    config: HybridEncoderConfig, encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor], source: str
) -> HybridEncoderConfig:
    """The config with the towers that were used, alignment and decoder width, read off the decoder's first projection.

    The file of an encoder that used one tower holds the other one, too: only the channels that the decoder reads tell.

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
    image = config.fusion_channels if config.image_tower else 0
    dino = encoder["dinov2.cls_token"].numel() if "dinov2.cls_token" in encoder else 0
    known = _variants(image, dino, config.num_tokens, bool(_token_names(encoder)))
    if given not in known:
        raise UserError(
            f"{source} reads levels of {given} channels, but the encoder beside it has {config.num_tokens} tokens and "
            f"{image + dino} fused channels: expected one of {', '.join(map(str, sorted(known)))}"
        )
    if len(known[given]) > 1:
        raise UserError(
            f"{source} reads levels of {given} channels, which may be {' or '.join(map(str, known[given]))}"
        )
    return _changed(config, source, **known[given][0].changes(), decoder_channels=width)


class _Variant(NamedTuple):
    """What a decoder may read: the levels of which towers, under which alignment."""

    image: bool
    dino: bool
    alignment: str

    def __str__(self) -> str:
        towers = " and ".join(name for name, used in (("CLIP", self.image), ("DINO", self.dino)) if used)
        return f"{towers} with alignment={self.alignment}"

    def changes(self) -> dict[str, Any]:
        """Of a config that has all the towers of the file."""
        unused = {**({} if self.image else {"image_tower": None}), **({} if self.dino else {"dino": None})}
        return {"alignment": self.alignment, **unused}


def _variants(image: int, dino: int, num_tokens: int, has_tokens: bool) -> dict[int, list[_Variant]]:
    """The variants by the channels of their levels.

    Args:
        image, dino: fused channels of each tower, 0 where the file has none.
        num_tokens: K.
        has_tokens: whether the file has depth tokens. Where it does and a number of channels can be had with text and
            without, it is with text.
    """
    found: dict[int, list[_Variant]] = {}
    for alignment in ("concat", "replace", "none"):
        if alignment != "none" and not has_tokens:
            continue
        channels: dict[int, list[_Variant]] = {}
        for towers in dict.fromkeys([(image, dino), (image, 0), (0, dino)]):
            # The logits alone do not tell which towers they come from: all that there are.
            if not any(towers) or (alignment == "replace" and towers != (image, dino)):
                continue
            given = {"concat": num_tokens + sum(towers), "replace": num_tokens, "none": sum(towers)}[alignment]
            channels.setdefault(given, []).append(_Variant(bool(towers[0]), bool(towers[1]), alignment))
        found = {**channels, **found}
    return found


def encoder_tensors(
    tensors: Mapping[str, Tensor], encoder: HybridEncoder, source: str, ignore: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The authors' encoder tensors under our names.

    What has no place with us keeps its name, for `load_state` to report; `UNUSED` and `ignore` are left out.

    Raises:
        UserError: word embeddings that are not of CLIP's whole vocabulary.
    """
    table: Sequence[tuple[str, str]] = _ENCODER_NAMES
    unused = [*UNUSED, *ignore]
    prefix = _resnet_prefix(tensors)
    if encoder.config.image_tower is None:
        unused.append("clip_align_conv.*")
    if encoder.config.image_tower != "clip" and prefix != "clip.visual.":  # only the text half of CLIP is used
        unused.append("clip.visual.*")
    if encoder.dino is None:
        unused.append("dinov2.*")
    if prefix is not None:
        table = (*((re.escape(prefix) + theirs, name) for theirs, name in _RESNET_NAMES), *table)
        unused.append(f"{prefix}{'*' if encoder.config.image_tower is None else 'fc.*'}")
    ours = _rename(tensors, table, unused)
    names = _token_names(ours)
    if not names and encoder.config.alignment == "none":  # trained without text: nothing reads them
        ours["language.tokens"] = encoder.language.tokens.detach()
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


def _resnet_prefix(tensors: Mapping[str, Tensor]) -> str | None:
    """What the names of an ImageNet ResNet-50 begin with, recognised by its first convolution and its last block; None:
    there is none.

    >>> shapes = {"net.conv1.weight": (64, 3, 7, 7), "net.layer4.2.conv3.weight": (2048, 512, 1, 1)}
    >>> _resnet_prefix({name: torch.zeros(shape) for name, shape in shapes.items()})
    'net.'
    """
    for name, value in tensors.items():
        prefix = name.removesuffix("conv1.weight")
        last = tensors.get(f"{prefix}layer4.2.conv3.weight")
        if prefix != name and tuple(value.shape) == (64, 3, 7, 7) and last is not None:
            return prefix
    return None


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
