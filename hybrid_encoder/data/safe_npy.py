"""Reads .npy files, also of object arrays, without running code: a file's pickle may build plain arrays only.

The original trainers keep depth maps of several sizes in an object array, which numpy reads only with
allow_pickle=True; that would run any code that the file asks for.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal

import numpy as np

MAX_HEADER = 1 << 16
"""Largest .npy header in bytes; a larger one describes no plain array."""
CHUNK = 1 << 20
"""Bytes that are read at a time, so that no second copy of an array is made."""
PLAIN_DTYPE = re.compile(r"[fiub][1248]")


class _DType:
    """Replaces numpy.dtype while unpickling: keeps its code and byte order."""

    def __init__(self, code: str = "", *flags: object) -> None:
        self.code = code
        self.byte_order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = state[1]


class _Array:
    """Replaces numpy.ndarray while unpickling: keeps shape, dtype and elements."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.is_fortran, self.elements = state


def _reconstruct(*arguments: object) -> _Array:
    return _Array()


class _ArraysOnly(pickle._Unpickler):
    """An unpickler that knows only the names that an array's pickle needs, and replaces them by classes that do
    nothing.

    Based on the unpickler in Python: the one in C allocates memory for as many objects as a file states, so that a file
    of a dozen bytes could take all memory.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return _DType
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _reconstruct
        raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}, which is no array; nothing was run")


class NpyFile:
    """A .npy file whose header is read, but not yet its data: sizes can be checked before they take memory.

    Attributes:
        shape, dtype: as the header states them; those of an object array do not describe its elements.
        is_fortran: whether the data are in Fortran order.
        data_size: bytes of data.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        """
        Args:
            stream: at the start of the file; it is read forward only.
            size: bytes of the whole file.

        Raises:
            ValueError: no .npy file, a damaged header, or a header that states another size.
        """
        self._stream = stream
        start = stream.read(10)
        version = start[6:8]
        if start[:6] != b"\x93NUMPY" or version not in (b"\1\0", b"\2\0"):
            raise ValueError("it does not start as a .npy file of version 1 or 2")
        if version == b"\2\0":
            start += stream.read(2)
        length = int.from_bytes(start[8:], "little")
        if length > MAX_HEADER:
            raise ValueError(f"its header states a length of {length} bytes")
        header = io.BytesIO(start[8:] + stream.read(length))
        try:
            if version == b"\1\0":
                self.shape, self.is_fortran, self.dtype = np.lib.format.read_array_header_1_0(header)
            else:
                self.shape, self.is_fortran, self.dtype = np.lib.format.read_array_header_2_0(header)
        except Exception as error:  # numpy parses the header as Python code, and the parser raises many classes
            raise ValueError(f"its header is damaged ({type(error).__name__}: {error})") from error
        if min(self.shape, default=1) < 0:
            raise ValueError(f"its header states the shape {self.shape}")
        self.data_size = size - len(start) - length
        if not self.dtype.hasobject and math.prod(self.shape) * self.dtype.itemsize != self.data_size:
            raise ValueError(
                f"{self.data_size} bytes of data do not fill the shape {self.shape} of {self.dtype}: truncated or "
                "damaged"
            )

    def read(self) -> np.ndarray | list[np.ndarray]:
        """The array; for an object array, the list of its arrays (or one array, if it holds plain numbers).

        Raises:
            ValueError: the data are truncated, or an object array holds anything but numeric arrays or numbers.
        """
        if not self.dtype.hasobject:
            return self._plain(self.shape)
        try:
            return _object_elements(_ArraysOnly(self._stream, encoding="latin1").load())
        except Exception as error:  # a damaged or malicious pickle may raise anything
            raise ValueError(str(error) or type(error).__name__) from error

    def read_each(self) -> Iterator[np.ndarray]:
        """The arrays along the first axis of a plain array in C order, one in memory at a time."""
        for _ in range(self.shape[0]):
            yield self._plain(self.shape[1:])

    def _plain(self, shape: tuple[int, ...]) -> np.ndarray:
        data = bytearray(math.prod(shape) * self.dtype.itemsize)
        for at in range(0, len(data), CHUNK):
            part = self._stream.read(min(CHUNK, len(data) - at))
            if len(part) < min(CHUNK, len(data) - at):
                raise ValueError("its data are cut off")
            data[at : at + len(part)] = part
        order: Literal["F", "C"] = "F" if self.is_fortran else "C"
        return np.ndarray(shape, self.dtype, data, order=order)


def read_npy(payload: bytes) -> np.ndarray | list[np.ndarray]:
    """`NpyFile.read` of the bytes of a .npy file.

    Raises:
        ValueError: as `NpyFile`.
    """
    return NpyFile(io.BytesIO(payload), len(payload)).read()


def _object_elements(outer: object) -> np.ndarray | list[np.ndarray]:
    if not isinstance(outer, _Array) or outer.dtype.code[:1] != "O" or not isinstance(outer.elements, list):
        raise ValueError("its pickle is not an object array")
    if all(isinstance(element, _Array) for element in outer.elements):
        return [_plain_array(element) for element in outer.elements]
    # numpy turns maps of equal size, put into an array of dtype object, into single numbers.
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
