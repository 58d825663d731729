"""Fills a backbone's encoder from anything that holds a trained one: runs, saved models, the authors' files, and the
checkpoints of detectors that it is a part of."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor

from hybrid_encoder.bev.start import open_run
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.released.single_frame import is_released, load_released
from hybrid_encoder.stage1.checkpoint import is_stage1
from hybrid_encoder.weights.hub import CONFIG_FILE
from hybrid_encoder.weights.reading import load_state, read_tensors

_LANDMARK = "encoder.language.tokens"
"""A tensor that every backbone has: what stands before it in a detector's file is the backbone's prefix there."""
_MAPS = "pyramid."


def open_encoder(source: str | Path) -> HybridEncoder:
    """The encoder of trained weights, on the CPU in eval mode.

    Args:
        source: a run of stage 1 or 2, its weights_N or its `stage1.pth`, what `save_pretrained` wrote, "account/name"
            of the hub, or the authors' folder or stage-1 `.ckpt`.

    Raises:
        UserError: nothing there, damaged, or without a hybrid encoder.
    """
    path = Path(source)
    if (path / CONFIG_FILE).is_file() or not path.exists():
        return HybridEncoder.from_pretrained(source)
    of_the_authors = not is_stage1(path) if path.is_file() else is_released(path)
    if of_the_authors:
        return load_released(path)[0]
    encoder = open_run(path)
    if encoder.config is None:
        raise UserError(f"{path} holds a ResNet: expected a run with --encoder hybrid")
    return cast(HybridEncoder, encoder)


def load_checkpoint(encoder: HybridEncoder, checkpoint: str | Path, prefix: str | None = None) -> None:
    """Fills an encoder from trained weights, or from a detector with a `HybridBackbone`.

    Args:
        checkpoint: as `open_encoder`; or a detector's file.
        prefix: of the backbone's names in a detector's file, such as "img_backbone."; None: the only one in it.

    Raises:
        UserError: as `open_encoder`; another architecture; or several backbones in the file.
    """
    path = Path(checkpoint)
    found = None
    if path.is_file() and not is_stage1(path):
        found = backbone_tensors(read_tensors(path), str(path), prefix)
    if found is not None:
        if not fill(encoder, found, str(path)):
            warnings.warn(
                f"{path} has maps of other widths or strides: the layers that make them start from random numbers",
                stacklevel=3,
            )
        return
    theirs = open_encoder(checkpoint)
    encoder.config.check_same_features(theirs.config, str(checkpoint), ignore=("strides", "decoder_style"))
    fill(encoder, theirs.state_dict(), str(checkpoint))


def backbone_tensors(tensors: Mapping[str, Tensor], source: str, prefix: str | None = None) -> dict[str, Tensor] | None:
    """The encoder's tensors in a detector's file, under the encoder's own names; None where there is no backbone.

    >>> import torch
    >>> file = {"img_backbone.encoder.language.tokens": torch.zeros(1), "img_neck.weight": torch.zeros(1)}
    >>> list(backbone_tensors(file, "detector.pth"))
    ['language.tokens']

    Args:
        source: names the file in messages.
        prefix: as for `load_checkpoint`.

    Raises:
        UserError: none of this prefix, or several and no prefix.
    """
    found = [name.removesuffix(_LANDMARK) for name in tensors if name.endswith(_LANDMARK)]
    if prefix:
        wanted = prefix if prefix.endswith(".") else f"{prefix}."
        if wanted not in found:
            there = ", ".join(map(repr, found)) or "none"
            raise UserError(f"{source} holds no hybrid encoder under {prefix!r}: its prefixes of one are {there}")
        found = [wanted]
    if not found:
        return None
    if len(found) > 1:
        raise UserError(f"{source} holds several encoders: give prefix=..., one of {', '.join(map(repr, found))}")
    start = f"{found[0]}encoder."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def fill(encoder: HybridEncoder, tensors: Mapping[str, Tensor], source: str) -> bool:
    """Fills an encoder. The layers that make its maps stay as they are, unless the tensors hold the very same.

    Args:
        tensors: by the encoder's names.
        source: names the file in messages.

    Returns:
        Whether those layers were filled, too.

    Raises:
        UserError: as `load_state`.
    """
    theirs = {name: value for name, value in tensors.items() if name.startswith(_MAPS)}
    own = {name: value for name, value in encoder.state_dict().items() if name.startswith(_MAPS)}
    same = {name: value.shape for name, value in theirs.items()} == {name: value.shape for name, value in own.items()}
    rest = {name: value for name, value in tensors.items() if name not in theirs}
    load_state(encoder, {**rest, **(theirs if same else own)}, source)
    return same
