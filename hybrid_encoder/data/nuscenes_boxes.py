"""Reads nuScenes' boxes, which lie in the global frame, and brings them into a sample's ego frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .nuscenes_tables import Record, finite, named, pose, read_table, rotations, text
from .rig import RigBox

VISIBILITIES = {"1": 1, "2": 2, "3": 3, "4": 4}
"""Tokens of the table visibility; its bins stand at `RigBox.visibility`."""


class Annotation(NamedTuple):
    """A record of sample_annotation."""

    sample: str
    category: str
    visibility: int | None
    values: tuple[float, ...]
    """As a row of `Annotations.values`."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """The boxes of a sample in the global frame."""

    categories: tuple[str, ...]
    visibilities: tuple[int | None, ...]
    values: np.ndarray
    """(n, 10) float64: centre, then width, length and height, metres; then the quaternion w, x, y, z."""

    def boxes(self, global_to_ego: np.ndarray) -> tuple[RigBox, ...]:
        """The boxes in an ego frame, given (4, 4)."""
        R = global_to_ego[:3, :3]
        centres = self.values[:, :3] @ R.T + global_to_ego[:3, 3]
        sizes = self.values[:, [4, 3, 5]]
        ahead = rotations(self.values[:, 6:])[:, :, 0] @ R.T  # the objects' own x axes
        yaws = np.arctan2(ahead[:, 1], ahead[:, 0]).tolist()
        columns = zip(self.categories, centres, sizes, yaws, self.visibilities, strict=True)
        return tuple(RigBox(*column) for column in columns)


def read_annotations(tables: Path, samples: set[str]) -> dict[str, Annotations]:
    """The boxes of these samples by the samples' tokens.

    Raises:
        UserError: as `read_table`, or a box without extent.
    """
    categories = dict(read_table(tables, "category", lambda record: (text(record, "token"), text(record, "name"))))

    def instance(record: Record) -> tuple[str, str]:
        return text(record, "token"), named(categories, record, "category_token", "category")

    instances = dict(read_table(tables, "instance", instance))

    def annotation(record: Record) -> Annotation | None:
        if record["sample_token"] not in samples:
            return None
        size = finite(record["size"], "size", 3)
        if min(size) <= 0:
            raise ValueError(f"size is {list(size)}, expected a width, length and height above 0")
        place = pose(record)
        values = (*place.translation, *size, *place.rotation)
        category = named(instances, record, "instance_token", "instance")
        return Annotation(record["sample_token"], category, VISIBILITIES.get(record["visibility_token"]), values)

    grouped: dict[str, list[Annotation]] = {token: [] for token in samples}
    for row in read_table(tables, "sample_annotation", annotation):
        grouped[row.sample].append(row)
    return {token: gathered(rows) for token, rows in grouped.items()}


def gathered(rows: list[Annotation]) -> Annotations:
    """The annotations of one sample."""
    values = np.array([row.values for row in rows], dtype=np.float64).reshape(-1, 10)
    return Annotations(tuple(row.category for row in rows), tuple(row.visibility for row in rows), values)
