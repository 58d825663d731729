"""Builds a hybrid encoder that returns maps as a host's encoder does: as many, as wide, at the same strides, in the
same lists.

encoder = hybrid_encoder.like(host_encoder, "paper")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import HybridEncoderConfig, check_image_size
from ..errors import UserError
from .encoder import HybridEncoder, create_encoder
from .eval_mode import in_eval_mode


@dataclass(frozen=True)
class HostShapes:
    """What a host's encoder returns; each attribute is a field of `HybridEncoderConfig`."""

    num_ch_enc: tuple[int, ...]
    strides: tuple[int, ...]
    nesting: tuple[int, ...] | None


def like(
    host_encoder: nn.Module,
    source: str | HybridEncoderConfig = "paper",
    image_size: tuple[int, int] = (192, 640),
    weights_dir: str | Path | None = None,
    **changes: Any,
) -> HybridEncoder:
    """A hybrid encoder whose maps have the channels, strides and nesting of a host's encoder; on the CPU.

    The host's encoder runs once on a grey image, in eval mode; its own mode and buffers do not change.

    Args:
        host_encoder: takes (B, 3, H, W) and returns 1 to 5 maps, fine to coarse, some of them perhaps in lists.
        source: preset or config.
        image_size: (H, W) of the image, multiples of 32.
        weights_dir, changes: as for `create_encoder`.

    Raises:
        UserError: the host's encoder returns something else, or `create_encoder` refuses.
    """
    return create_encoder(source, weights_dir, **{**asdict(probe(host_encoder, image_size)), **changes})


@torch.no_grad()
def probe(host_encoder: nn.Module, image_size: tuple[int, int] = (192, 640)) -> HostShapes:
    """What a host's encoder returns for an image of this size.

    Raises:
        UserError: as `like`.
    """
    check_image_size(*image_size)
    weight = next(chain(host_encoder.parameters(), host_encoder.buffers()), torch.empty(0))
    image = torch.full((1, 3, *image_size), 0.5, device=weight.device, dtype=weight.dtype)
    kind = type(host_encoder).__name__
    try:
        returned = in_eval_mode(host_encoder)(image)
    except Exception as error:  # the host's code may raise anything
        raise UserError(
            f"{kind} fails on an image of {tuple(image.shape)} ({type(error).__name__}: {error}): give a size that it "
            "takes, image_size=(H, W), or describe its maps: create_encoder(num_ch_enc=..., strides=...)"
        ) from error
    if not isinstance(returned, list | tuple):
        raise UserError(f"{kind} returns a {type(returned).__name__}: expected a list of feature maps")
    maps = [_one_map(entry, i, kind) for i, entry in enumerate(returned)]
    counts = tuple(count for _, count in maps)
    return HostShapes(
        tuple(int(found.shape[1]) for found, _ in maps),
        tuple(_stride(found, image_size, f"map {i} of {kind}") for i, (found, _) in enumerate(maps)),
        counts if any(counts) else None,
    )


def _one_map(entry: Tensor | Sequence[Tensor], number: int, kind: str) -> tuple[Tensor, int]:
    """A returned map and its entry in `nesting`. A list of maps of equal shape counts as its first map, repeated. A
    list of maps of several widths counts as one map of all their channels, since its decoder joins them, as DIFFNet's
    does."""
    nested = isinstance(entry, list | tuple)
    found: list[Any] = list(entry) if nested else [entry]
    if not found or not all(isinstance(part, Tensor) and part.ndim == 4 for part in found):
        raise UserError(f"{kind} returns no map as number {number}: expected (B, C, h, w), or a list of those")
    if len({part.shape[-2:] for part in found}) > 1:
        shapes = sorted({tuple(part.shape) for part in found})
        raise UserError(f"{kind} returns maps of {shapes} in list {number}: expected maps of one height and width")
    if len({part.shape for part in found}) > 1:
        return torch.cat(found, dim=1), 1
    return found[0], len(found) if nested else 0


def _stride(found: Tensor, image_size: tuple[int, int], what: str) -> int:
    """How many pixels of the image a cell of a map covers, in both directions."""
    (height, width), (rows, columns) = image_size, found.shape[-2:]
    stride = height // rows
    if (rows * stride, columns * stride) != (height, width):
        raise UserError(
            f"{what} has {rows} x {columns} cells of an image of {height} x {width}: expected a stride of 2, 4, 8, 16 "
            "or 32"
        )
    return stride
