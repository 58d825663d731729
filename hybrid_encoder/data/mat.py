"""Reads numeric arrays from MATLAB's files of level 5 (.mat up to version 7), such as NYU's and Make3D's.

The format is MathWorks' "MAT-File Format", chapter 1: a header of 128 bytes, then elements, each with a tag of type and
length; variables may be compressed with zlib.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from ..errors import UserError

HDF5_START = b"\x89HDF\r\n\x1a\n"
MAX_BYTES = 1 << 28
"""Largest size of a file, and of an uncompressed variable."""
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""numpy's names of the types of stored numbers."""
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 0x0800
_MAX_DIMENSIONS = 8


def read_mat(path: str | Path, name: str) -> np.ndarray:
    """A variable of a .mat file of level 5: real numbers, in the shape that the file states.

    Raises:
        UserError: a missing or damaged file, one of version 7.3 (HDF5), or no such variable of real numbers.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
        data = path.read_bytes()
        found = _variables(data)
        if name not in found:
            raise ValueError(f"it has no array {name}, but {', '.join(found) or 'none'}")
        return found[name]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read as a .mat file: {error}; copy or extract it again") from error


def _variables(data: bytes) -> dict[str, np.ndarray]:
    """All arrays of real numbers by name; other variables are skipped."""
    if data.startswith(HDF5_START) or data[512:520] == HDF5_START:
        raise ValueError("it is of version 7.3 (HDF5)")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("it has no header of level 5")
    found = {}
    for kind, content in _elements(data[_HEADER:], order):
        if kind == _COMPRESSED:
            unpacked = zlib.decompressobj().decompress(content, MAX_BYTES)
            ((kind, content),) = _elements(unpacked, order)
        variable = _numbers(content, order) if kind == _MATRIX else None
        if variable is not None:
            found[variable[0]] = variable[1]
    return found


def _elements(data: bytes, order: str) -> list[tuple[int, bytes]]:
    """Type and content of each element; content of up to four bytes may be in the tag itself."""
    elements, at = [], 0
    while at + 8 <= len(data):
        kind, length = np.frombuffer(data, order + "u4", 2, at).tolist()
        if kind >> 16:
            kind, length, start, at = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start = at + 8
            at = start + length + (-length % 8 if kind != _COMPRESSED else 0)
        if start + length > len(data) or (at == start + 4 and length > 4):
            raise ValueError("it is cut off")
        elements.append((kind, data[start : start + length]))
    return elements


def _numbers(content: bytes, order: str) -> tuple[str, np.ndarray] | None:
    """Name and values of a matrix; None if it is no array of real numbers."""
    parts = _elements(content, order)
    if len(parts) < 4:
        raise ValueError("a matrix in it is incomplete")
    flags = int(np.frombuffer(parts[0][1], order + "u4", 1)[0])
    if flags & 0xFF not in _NUMERIC_CLASSES or flags & _COMPLEX:
        return None
    shape = np.frombuffer(parts[1][1], order + "i4").tolist()
    kind, raw = parts[3]
    if kind not in _NUMBERS or not 2 <= len(shape) <= _MAX_DIMENSIONS or min(shape) < 0:
        raise ValueError("a matrix in it has another form")
    values = np.frombuffer(raw, order + _NUMBERS[kind])
    if values.size != np.prod(shape):
        raise ValueError(f"{values.size} numbers do not fill the shape {tuple(shape)}")
    return parts[2][1].decode("latin1"), values.reshape(shape, order="F")
