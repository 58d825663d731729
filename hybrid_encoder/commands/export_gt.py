"""`hybrid-encoder export-gt`: ground-truth depth of a split in one file."""

from __future__ import annotations

from ..data.ground_truth import export_ground_truth
from ..data.improved_splits import part_entries
from .options import ExportOptions


def run(options: ExportOptions) -> None:
    """Writes the file, and prints the number of depth maps."""
    entries = part_entries(options.split, options.data_path, options.part)
    export_ground_truth(options.data_path, entries, options.out, options.truth)
    print(f"{len(entries)} depth maps in {options.out}")
