"""Writes coloured points as a binary .ply file, which MeshLab, CloudCompare, Blender, Open3D and trimesh open."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..writing import atomic_path, not_written
from .points import Cloud

_VERTEX = np.dtype([(name, "<f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")])


def write_ply(path: Path, cloud: Cloud, unit: str) -> None:
    """Writes a cloud; the file is whole or not there.

    Args:
        unit: name of the unit of length, for the file's comment.

    Raises:
        UserError: the file cannot be written.
    """
    vertices = np.empty(len(cloud.points), _VERTEX)
    for column, name in enumerate(("x", "y", "z")):
        vertices[name] = cloud.points[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        vertices[name] = cloud.colours[:, column]
    kinds = {"f": "float", "u": "uchar"}
    properties = [f"property {kinds[_VERTEX[name].kind]} {name}" for name in _VERTEX.names or ()]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment camera axes: x right, y down, z ahead; unit: {unit}",
        f"element vertex {len(vertices)}",
        *properties,
        "end_header",
    ]
    try:
        with atomic_path(path) as partial, open(partial, "wb") as file:
            file.write(("\n".join(header) + "\n").encode("ascii"))
            file.write(vertices.tobytes())
    except OSError as error:
        raise not_written(path, error) from error
