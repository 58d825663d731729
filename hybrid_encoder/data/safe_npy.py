"""Reads .npy data, object arrays too, without running anything: a file's pickle may build plain arrays, no more.

The original trainers keep ragged depth maps in an object array, which numpy reads only with allow_pickle=True, and that
runs whatever code the file asks for.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from typing import Any

import numpy as np

PLAIN_DTYPE = re.compile(r"[fiub][1248]")


class _DType:
    """Stands in for numpy.dtype while unpickling: remembers its code and byte order."""

    def __init__(self, code: str = "", *flags: object) -> None:
        self.code = code
        self.byte_order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = state[1]


class _Array:
    """Stands in for numpy.ndarray while unpickling: remembers shape, dtype and elements."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.is_fortran, self.elements = state


def _reconstruct(*arguments: object) -> _Array:
    return _Array()


class _ArraysOnly(pickle._Unpickler):
    """An unpickler that knows the names an array's pickle needs, each replaced by a stand-in that does nothing.

    It is the one that is written in Python: the one in C makes room for as many objects as a file says it remembers,
    so that a file of a dozen bytes takes all memory.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return _DType
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _reconstruct
        raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}, which is no array; nothing was run")


def read_npy(payload: bytes) -> np.ndarray | list[np.ndarray]:
    """The array of a .npy file; of an object array, the list of its arrays (or one array where it holds plain numbers).

    Raises:
        ValueError: no .npy file, truncated, or an object array of anything but plain numeric arrays or numbers.
    """
    file = io.BytesIO(payload)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f".npy format {version} is not one of plain arrays")
    try:
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    except Exception as error:  # numpy parses the header as Python, whose parser raises errors of many kinds
        raise ValueError(f"its header is damaged ({type(error).__name__}: {error})") from error
    if min(shape, default=1) < 0:
        raise ValueError(f"its header states the shape {shape}")
    if not dtype.hasobject:
        left = len(payload) - file.tell()
        if math.prod(shape) * dtype.itemsize != left:
            raise ValueError(f"{left} bytes of data do not fill the shape {shape} of {dtype}: truncated or damaged")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    try:
        outer = _ArraysOnly(file, encoding="latin1").load()
        return _object_elements(outer)
    except Exception as error:  # a hostile or damaged pickle can raise nearly anything from pickle's own machinery
        raise ValueError(str(error) or type(error).__name__) from error


def _object_elements(outer: object) -> np.ndarray | list[np.ndarray]:
    if not isinstance(outer, _Array) or outer.dtype.code[:1] != "O" or not isinstance(outer.elements, list):
        raise ValueError("its pickle is not an object array")
    if all(isinstance(element, _Array) for element in outer.elements):
        return [_plain_array(element) for element in outer.elements]
    # Maps of one size, put into an array of dtype object, fall apart into single numbers.
    if all(isinstance(element, (int, float)) for element in outer.elements):
        return np.array(outer.elements, dtype=np.float32).reshape(outer.shape, order="F" if outer.is_fortran else "C")
    raise ValueError("its object array holds something other than arrays or numbers")


def _plain_array(array: _Array) -> np.ndarray:
    code, order = array.dtype.code, array.dtype.byte_order
    if not isinstance(code, str) or not PLAIN_DTYPE.fullmatch(code) or order not in ("<", ">", "=", "|"):
        raise ValueError(f"an element has the dtype {code!r}, expected plain numbers")
    elements = array.elements.encode("latin1") if isinstance(array.elements, str) else array.elements
    values = np.frombuffer(elements, dtype=np.dtype(order + code))
    return values.reshape(array.shape, order="F" if array.is_fortran else "C")
