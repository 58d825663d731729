"""The presets; what one needs of pretrained weights; what saved weights are."""

from __future__ import annotations

from pathlib import Path

from ..config import PRESETS
from .options import InfoOptions


def run(options: InfoOptions) -> None:
    """`hybrid-encoder info`: prints the presets, the inventory of one, or what saved weights are."""
    if options.preset is None:
        print(format_presets())
    elif options.preset not in PRESETS and Path(options.preset).exists():
        print("\n".join(describe_weights(Path(options.preset))))
    else:
        from .inventory import format_inventory, inventory  # imports PyTorch, which the table does not need

        print(format_inventory(inventory(options.preset, options.weights_dir)))


def format_presets() -> str:
    """The presets as a table, one a line: their towers and how many depth tokens they have."""
    rows = [("preset", "CLIP", "DINO", "depth tokens")]
    rows += [(name, config.clip, str(config.dino), str(config.num_tokens)) for name, config in PRESETS.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "hybrid-encoder info PRESET: the pretrained files that it needs"])


def describe_weights(path: Path) -> list[str]:
    """What a file or folder of weights is: of the authors', all that the loaders decide about it; of a foundation
    model, whose it is and how a tower takes it.

    Raises:
        UserError: a file that cannot be read, a folder without encoder.pth, or a folder that does not show how its nets
            saw pixels.
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
