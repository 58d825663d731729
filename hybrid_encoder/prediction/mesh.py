"""A depth map as a coloured triangle mesh: a binary glTF file (.glb), which browsers and 3D viewers open.

The format is Khronos' glTF 2.0 specification (https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html).
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..writing import write_bytes

_COLUMNS = 320
"""Largest number of vertices in a row: a browser turns larger meshes slowly."""
_TORN = 0.12
"""A cell whose depths differ by a larger share lies on the edge between two objects and gets no triangles."""
_GLB, _VERSION, _JSON, _BIN = b"glTF", 2, b"JSON", b"BIN\x00"
_FLOAT, _BYTE, _INDEX = 5126, 5121, 5125
"""Kinds of numbers in glTF: float32, uint8, uint32."""


def write_mesh(path: Path, image: np.ndarray, depth: np.ndarray, fov: float) -> None:
    """Writes the surface that a depth map shows. Cells across a depth edge are left out.

    The camera is at the origin and looks along -z, y is up, as in glTF.

    Args:
        path: .glb.
        image: uint8 RGB (H, W, 3).
        depth: (H, W), above 0, in any unit.
        fov: horizontal field of view in degrees; the camera has square pixels and the principal point in the middle.

    Raises:
        UserError: the file could not be written.
    """
    points, colours, triangles = surface(image, depth, fov)
    linear = np.round(255 * (colours / 255.0) ** 2.2).astype(np.uint8)  # colours of vertices are linear in glTF
    opaque = np.concatenate([linear, np.full((len(linear), 1), 255, np.uint8)], axis=1)
    parts = [points.astype("<f4").tobytes(), opaque.tobytes(), triangles.astype("<u4").tobytes()]
    header = json.dumps(_description(points, len(triangles), parts)).encode()
    header += b" " * (-len(header) % 4)
    body = b"".join(parts)
    length = 12 + 8 + len(header) + 8 + len(body)
    chunks = [struct.pack("<I4s", len(header), _JSON), header, struct.pack("<I4s", len(body), _BIN), body]
    write_bytes(path, struct.pack("<4sII", _GLB, _VERSION, length), *chunks)


def surface(image: np.ndarray, depth: np.ndarray, fov: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (N, 3) in the unit of depth, their colours uint8 (N, 3), and triangles (M, 3) as indices of vertices.

    The arguments are those of `write_mesh`.

    >>> points, _, triangles = surface(np.zeros((2, 2, 3), np.uint8), np.full((2, 2), 4.0), 90.0)
    >>> points.round(6).tolist(), triangles.tolist()
    ([[-2.0, 2.0, -4.0], [2.0, 2.0, -4.0], [-2.0, -2.0, -4.0], [2.0, -2.0, -4.0]], [[0, 2, 1], [1, 2, 3]])
    """
    height, width = depth.shape
    factor = min(1.0, _COLUMNS / width)
    size = max(2, round(width * factor)), max(2, round(height * factor))
    depth = cv2.resize(depth.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    colours = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    focal = size[0] / 2 / math.tan(math.radians(fov) / 2)
    x = (np.arange(size[0]) - (size[0] - 1) / 2) / focal
    y = (np.arange(size[1]) - (size[1] - 1) / 2) / focal
    points = np.stack([x * depth, -y[:, None] * depth, -depth], axis=-1)
    index = np.arange(depth.size).reshape(depth.shape)
    corners = [index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]]
    depths = np.stack([depth.reshape(-1)[corner] for corner in corners])
    whole = depths.max(0) - depths.min(0) <= _TORN * depths.min(0)
    a, b, c, d = (corner[whole] for corner in corners)
    triangles = np.stack([a, c, b, b, c, d], axis=-1).reshape(-1, 3)
    return points.reshape(-1, 3), colours.reshape(-1, 3), triangles


def _description(points: np.ndarray, triangles: int, parts: list[bytes]) -> dict[str, Any]:
    """glTF's description of the three arrays: where they lie in the file, and what they hold."""
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": len(part)}
        for start, part in zip(starts[:-1], parts, strict=True)
    ]
    count = len(points)
    position = {"bufferView": 0, "componentType": _FLOAT, "count": count, "type": "VEC3"}
    position |= {"min": points.min(0).tolist(), "max": points.max(0).tolist()}
    return {
        "asset": {"version": "2.0", "generator": "hybrid-encoder"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "materials": [{"doubleSided": True, "extensions": {"KHR_materials_unlit": {}}}],
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "material": 0, "mode": 4}]}
        ],
        "accessors": [
            position,
            {"bufferView": 1, "componentType": _BYTE, "normalized": True, "count": count, "type": "VEC4"},
            {"bufferView": 2, "componentType": _INDEX, "count": 3 * triangles, "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": starts[-1]}],
    }
