"""Maps the authors' names of tensors to ours, and reads the config off their tensors (docs/METHOD.md, section 5)."""

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
    "depth_head.projects.4.*",  # projects a fifth level, which does not exist
    "depth_head.scratch.refinenet4.resConfUnit1.*",  # joins a coarser level to the coarsest: there is none
)
"""The released tensors that no depth model needs."""
IMAGENET_RESNET = "resnet50.tv_in1k"
"""The image tower of an ablation in CLIP's place: torchvision's ResNet-50."""
STAGE1_HEAD = "depth_head.*"
"""A DPT head, which every stage-1 checkpoint holds and stage 1 never trains."""
TWO_FRAME_UNUSED = (
    "layer[0-4]_clip.*",  # these three: the towers' layers under a second name
    "layer[1-4]_dino.*",
    "dino_norm.*",
    "backprojector*.*",  # fixed grids
    "prematching_conv.*",  # these two: built, but never run
    "reduce_conv.1.0.*",
)
"""Further tensors in the encoder.pth of a ManyDepth folder that no model needs."""

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
"""Names after the prefix that `_resnet_prefix` finds."""
_DECODER_NAMES = (
    (r"depth_head\.projects\.([0-3]\..+)", r"project.\1"),
    (r"depth_head\.resize_layers\.([013]\..+)", r"resize.\1"),
    # <n>: theirs counts from 1, ours from 0.
    (r"depth_head\.scratch\.layer([1-4])_rn\.(.+)", r"narrow.<\1>.\2"),
    (r"depth_head\.scratch\.refinenet([1-4])\.resConfUnit1\.(.+)", r"fuse.<\1>.join.\2"),
    (r"depth_head\.scratch\.refinenet([1-4])\.resConfUnit2\.(.+)", r"fuse.<\1>.refine.\2"),
    (r"depth_head\.scratch\.refinenet([1-4])\.out_conv\.(.+)", r"fuse.<\1>.out.\2"),
    (r"depth_head\.scratch\.output_conv1\.(.+)", r"heads.0.conv1.\1"),
    (r"depth_head\.scratch\.output_conv2\.0\.(.+)", r"heads.0.conv2.\1"),
    (r"depth_head\.scratch\.output_conv2\.2\.(.+)", r"heads.0.conv3.\1"),
)


def read_config(tensors: Mapping[str, Tensor], base: HybridEncoderConfig, source: str) -> HybridEncoderConfig:
    """The config of the authors' encoder, read off its tensors: the number of tokens K, the fusion, and the towers.

    Raises:
        UserError: the tensors are not of the authors' encoder.
    """
    has_dino = any(name.startswith("dinov2.") for name in tensors)
    # CLIP is always there for its text tower; its image tower is used where its maps are projected.
    has_image_tower = any(name.startswith("clip_align_conv.") for name in tensors)
    if not (has_dino or has_image_tower) or not any(name.startswith("clip.") for name in tensors):
        raise UserError(f"{source} is no encoder of the authors: it seems to be {describe_tensors(tensors)}")
    # interp_conv1x1 has no convolution at level 1, whose map already has the fused channels.
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
    """The config with alignment, decoder width and the towers that were used, read off the decoder's first projection.

    The file of an encoder that used one tower holds the other one, too: only the decoder's channels tell which.

    Args:
        encoder, decoder: the authors' tensors.
        source: names the decoder's file.

    Raises:
        UserError: the tensors are not of the authors' decoder, or of one that reads another encoder.
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
    """One possibility of what a decoder reads: the levels of these towers, under this alignment."""

    image: bool
    dino: bool
    alignment: str

    def __str__(self) -> str:
        towers = " and ".join(name for name, used in (("CLIP", self.image), ("DINO", self.dino)) if used)
        return f"{towers} with alignment={self.alignment}"

    def changes(self) -> dict[str, Any]:
        """The fields that differ from a config with all towers of the file."""
        unused = {**({} if self.image else {"image_tower": None}), **({} if self.dino else {"dino": None})}
        return {"alignment": self.alignment, **unused}


def _variants(image: int, dino: int, num_tokens: int, has_tokens: bool) -> dict[int, list[_Variant]]:
    """The variants that are possible, by the channels of their levels.

    Args:
        image, dino: fused channels of each tower, 0 where the file lacks the tower.
        num_tokens: K.
        has_tokens: whether the file has depth tokens. If it has, and variants with text and without text have the same
            channels, only those with text are kept.
    """
    found: dict[int, list[_Variant]] = {}
    for alignment in ("concat", "replace", "none"):
        if alignment != "none" and not has_tokens:
            continue
        channels: dict[int, list[_Variant]] = {}
        for towers in dict.fromkeys([(image, dino), (image, 0), (0, dino)]):
            # Logits do not show which towers they come from: all towers are assumed.
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

    Tensors that we have no name for keep theirs, and `load_state` reports them. Those that match `UNUSED` or `ignore`
    are left out.

    Raises:
        UserError: depth tokens of several lengths, or word embeddings without rows for CLIP's whole vocabulary.
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
    if not names and encoder.config.alignment == "none":  # trained without text: no layer reads tokens
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
    """The authors' decoder tensors under our names, as for `encoder_tensors`."""
    return _rename(tensors, _DECODER_NAMES, (*UNUSED, *ignore))


def _resnet_prefix(tensors: Mapping[str, Tensor]) -> str | None:
    """The prefix of an ImageNet ResNet-50's names, recognised by its first convolution and its last block; None where
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
    """The rows of CLIP's embeddings that our shortened text tower keeps."""
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
