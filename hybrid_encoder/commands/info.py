"""`hybrid-encoder info`: the presets, the pretrained weights that a preset needs, and what a file of weights holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import open_clip
import timm
import torch

from ..config import PRESETS, HybridEncoderConfig, preset
from ..errors import UserError
from ..model.backbones import check_clip, check_timm, quiet
from ..released.single_frame import describe_released, is_released
from ..weights.describe import describe_tensors
from ..weights.foundation import recognise
from ..weights.published import (
    WEIGHTS_VARIABLE,
    TowerSource,
    cached_weights,
    find_weights,
    image_trunk,
    is_file_name,
    tower_sources,
    weights_folder,
)
from ..weights.reading import read_tensors
from .options import InfoOptions


def run(options: InfoOptions) -> None:
    """Prints the presets, the inventory of one, or a description of saved weights."""
    if options.preset is None:
        print(format_presets())
    elif options.preset not in PRESETS and Path(options.preset).exists():
        print("\n".join(describe_weights(Path(options.preset))))
    else:
        print(format_inventory(inventory(options.preset, options.weights_dir)))


def format_presets() -> str:
    """The presets as a table: a line for each with its towers and its number of depth tokens."""
    rows = [("preset", "CLIP", "DINO", "depth tokens")]
    rows += [(name, config.clip, str(config.dino), str(config.num_tokens)) for name, config in PRESETS.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "hybrid-encoder info PRESET: the pretrained files that it needs"])


def describe_weights(path: Path) -> list[str]:
    """Describes a file or folder of weights.

    For weights of the authors, it tells what the loaders find out about them; for those of a foundation model, their
    name, and how a tower loads them.

    Raises:
        UserError: an unreadable file, a folder without encoder.pth, or a folder that does not show the pixel
            normalisation of its nets.
    """
    if is_released(path):
        return describe_released(path)
    file = path / "encoder.pth" if path.is_dir() else path
    tensors = read_tensors(file)
    known = recognise(tensors)
    return [f"{file}: {describe_tensors(tensors)}"] if known is None else known.describe(file)


@dataclass(frozen=True)
class InventoryEntry:
    """The weights of one tower.

    Attributes:
        option: field of the config that names the weights.
        architecture, weights: name of the architecture and of the weights.
        names: accepted file names, in the order of search.
        looked_in: searched folders and caches, in order.
        path: the file; None if it must be downloaded.
        size: bytes of the file; if it is missing, about the bytes of float32 weights.
        licence: name of the licence.
        address: of the publication.
    """

    option: str
    architecture: str
    weights: str
    names: tuple[str, ...]
    looked_in: tuple[str, ...]
    path: Path | None
    size: int
    licence: str
    address: str

    @property
    def found(self) -> bool:
        """Whether the file is on this machine."""
        return self.path is not None


def inventory(name: str | HybridEncoderConfig, weights_dir: str | Path | None = None) -> list[InventoryEntry]:
    """The pretrained files that a preset or config needs; empty if all weights are random.

    Args:
        weights_dir: folder of weights; None: the one that HYBRID_ENCODER_WEIGHTS names.

    Raises:
        UserError: unknown preset or architecture, or no such folder of weights.
    """
    config = preset(name) if isinstance(name, str) else name
    return [_entry(source, weights_dir) for source in tower_sources(config)]


def format_inventory(entries: list[InventoryEntry]) -> str:
    """The inventory as text, a few lines for each file."""
    if not entries:
        return "no pretrained weights are needed: every tower starts from random weights"
    lines = []
    for entry in entries:
        about = "" if entry.found else "about "
        lines += [
            f"{entry.option}: {entry.architecture}, {entry.weights}",
            f"  {'found ' + str(entry.path) if entry.found else 'not found, would be downloaded'}",
            f"  size: {about}{entry.size / 1e6:.0f} MB",
            f"  licence: {entry.licence}",
        ]
        if entry.names:
            lines.append(f"  accepted file names: {', '.join(entry.names)}")
        lines.append(f"  looked in: {', '.join(entry.looked_in)}")
        if entry.address:
            lines.append(f"  published at: {entry.address}")
    return "\n".join(lines)


def _entry(source: TowerSource, weights_dir: str | Path | None) -> InventoryEntry:
    looked, path = [], None
    if is_file_name(source.weights):
        looked.append(source.weights)
        try:
            path = find_weights(source)
        except UserError:  # an inventory reports what is missing instead of stopping at it
            path = None
    else:
        folder = weights_folder(weights_dir)
        looked.append(str(folder) if folder else f"no weights folder ({WEIGHTS_VARIABLE} is not set)")
        path = find_weights(source, weights_dir)
        if path is None and source.hub_file is not None:
            looked.append(f"hub cache ({source.hub_file[0]})")
            path = cached_weights(source)
    size = path.stat().st_size if path else _expected_size(source)
    return InventoryEntry(
        source.option,
        source.architecture,
        source.weights,
        source.names,
        tuple(looked),
        path,
        size,
        source.licence,
        source.address,
    )


def _expected_size(source: TowerSource) -> int:
    """Bytes of the architecture's parameters in float32, counted on the meta device, which needs no memory."""
    is_clip = source.option == "clip_weights"
    architecture = source.architecture if is_clip else image_trunk(source.architecture) or source.architecture
    (check_clip if is_clip else check_timm)(architecture, source.weights, source.option.removesuffix("_weights"))
    with torch.device("meta"), quiet():
        if is_clip:
            model = open_clip.create_model(architecture, pretrained=None, load_weights=False, device="meta")
        else:
            model = timm.create_model(architecture, pretrained=False)
    return 4 * sum(parameter.numel() for parameter in model.parameters())
