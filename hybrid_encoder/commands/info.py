"""`hybrid-encoder info`: the presets, the pretrained weights that a preset needs, and what a file of weights holds."""

from __future__ import annotations

from pathlib import Path

from ..config import PRESETS
from .options import InfoOptions


def run(options: InfoOptions) -> None:
    """Prints the presets, the inventory of one, or a description of saved weights."""
    if options.preset is None:
        print(format_presets())
    elif options.preset not in PRESETS and Path(options.preset).exists():
        print("\n".join(describe_weights(Path(options.preset))))
    else:
        from .inventory import format_inventory, inventory  # imports PyTorch, which the table does not need

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
    from ..released.single_frame import describe_released, is_released  # imports PyTorch
    from ..weights.describe import describe_tensors
    from ..weights.foundation import recognise
    from ..weights.reading import read_tensors

    if is_released(path):
        return describe_released(path)
    file = path / "encoder.pth" if path.is_dir() else path
    tensors = read_tensors(file)
    known = recognise(tensors)
    return [f"{file}: {describe_tensors(tensors)}"] if known is None else known.describe(file)
