"""The result of an evaluation as a table to read and as a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

from ..writing import atomic_path
from .depths import EvaluationResult
from .edges import EdgeScores, edge_scores
from .metrics import DepthErrors


def save_csv(result: EvaluationResult, path: str | Path) -> None:
    """Writes one line per evaluated image: name, the seven metrics, the scale ratio if median scaling was on, and the
    edge scores if edges were compared, which are empty where the image's truth has no edge."""
    with atomic_path(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        edge_columns = EdgeScores._fields if result.edge_counts else ()
        writer.writerow(["name", *DepthErrors._fields, *(["ratio"] if result.ratios else []), *edge_columns])
        for index, (name, row) in enumerate(zip(result.sample_names, result.rows, strict=True)):
            ratio = [f"{result.ratios[index]:.6f}"] if result.ratios else []
            scores = edge_scores(result.edge_counts[index : index + 1])
            edges = [f"{value:.6f}" for value in scores] if scores else [""] * len(edge_columns)
            writer.writerow([name, *(f"{value:.6f}" for value in row), *ratio, *edges])


def format_table(result: EvaluationResult) -> str:
    """The mean of the seven metrics in the field's order, and the edge scores where edges were compared; then the
    number of images and the scale ratios; then what is unusual: images that were left out, and flat predictions."""
    named = result.mean._asdict() | (result.edges._asdict() if result.edges else {})
    widths = {name: max(8, len(name)) for name in named}
    header = " | ".join(f"{name:>{width}}" for name, width in widths.items())
    metrics = " | ".join(f"{value:{widths[name]}.3f}" for name, value in named.items())
    lines = [header, metrics, f"{len(result.rows)} images"]
    if result.ratios:
        lines[-1] += f"; scale ratios: median {result.ratio_median:.3f}, std {result.ratio_std:.3f}"
    if result.skipped:
        lines.append(
            f"{len(result.skipped)} images without a pixel to count were left out: {', '.join(result.skipped[:3])}"
        )
    if result.flat:
        lines.append(
            f"flat predictions, with one depth everywhere: {result.flat} of {len(result.rows)}; see the warnings of "
            "the run that trained these weights"
        )
    return "\n".join(lines)
