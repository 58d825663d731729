"""Widths of maps: what decoders ask an encoder for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsIndex, overload

import numpy as np


class Channels(list[int]):
    """A list of plain ints with the arithmetic of an array; it prints and goes into JSON as a list.

    Encoders of the Monodepth2 family have a numpy array in this place, and their users multiply it.

    >>> Channels([64, 128]) * 2, Channels([64, 128]) // 2, Channels([64, 128, 256])[1:] * 4
    ([128, 256], [32, 64], [512, 1024])
    >>> (Channels([48, 80]) / 2).astype(int)
    array([24, 40])
    """

    def __init__(self, values: Iterable[Any] = ()) -> None:
        super().__init__(int(value) for value in values)

    def tolist(self) -> list[int]:
        """A plain list."""
        return list(self)

    def copy(self) -> Channels:
        """A copy, of this class."""
        return Channels(self)

    @overload
    def __getitem__(self, place: SupportsIndex) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> Channels: ...

    def __getitem__(self, place: SupportsIndex | slice) -> int | Channels:
        found = super().__getitem__(place)
        return Channels(found) if isinstance(found, list) else found

    def __mul__(self, factor: Any) -> Channels:
        return Channels(np.multiply(self, factor))

    __rmul__ = __imul__ = __mul__

    def __floordiv__(self, divisor: Any) -> Channels:
        return Channels(np.floor_divide(self, divisor))

    def __truediv__(self, divisor: Any) -> np.ndarray:
        """A float array: Lite-Mono halves the channels, then calls `astype(int)`."""
        quotient: np.ndarray = np.true_divide(self, divisor)
        return quotient
