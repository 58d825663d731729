"""Reads what the container of a video file declares: the file's size in bytes, and its duration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_ISO_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""How MP4, MOV, M4V and 3GP files begin, after four bytes of size."""
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
"""Id of the element with which MKV and WebM files begin, and of the element that holds everything else."""


class Declared(NamedTuple):
    """What a container declares; None where it declares nothing, as transport streams and live recordings."""

    bytes: int | None
    """Size of the whole file: a smaller file is truncated."""
    seconds: float | None
    """Duration of an MP4 or MOV file, without the parts that its edit list leaves out."""


def read_container(path: Path) -> Declared:
    """Reads what an MP4, MOV, AVI, MKV or WebM file declares (ISO 14496-12, RIFF, RFC 9559).

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[4:8] in _ISO_FIRST_BOXES:
            return _read_iso(file, size)
        if start[:4] == b"RIFF":
            return Declared(8 + int.from_bytes(start[4:8], "little"), None)
        if start[:4] == _EBML:
            return Declared(_segment_end(file), None)
    return Declared(None, None)


def _read_iso(file: BinaryIO, size: int) -> Declared:
    end, seconds = 0, None
    for kind, inside, end in _boxes(file, 0, size):
        if kind == b"moov":
            for part, at, _ in _boxes(file, inside, min(end, size)):
                if part == b"mvhd":
                    seconds = _movie_seconds(file, at)
    return Declared(end, seconds)


def _boxes(file: BinaryIO, at: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start of the content and end of every box between two positions; the last one may end after `stop`."""
    while at + 8 <= stop:
        file.seek(at)
        header = file.read(16)
        length, kind, content = int.from_bytes(header[:4], "big"), header[4:8], at + 8
        if length == 1:
            length, content = int.from_bytes(header[8:16], "big"), at + 16
        elif length == 0:  # up to the end
            length = stop - at
        if length < content - at or not kind.isalnum():  # padding
            return
        yield kind, content, at + length
        at += length


def _movie_seconds(file: BinaryIO, at: int) -> float | None:
    """Duration in the movie header box that starts here; 0 and "all ones" mean unknown."""
    file.seek(at)
    header = file.read(32)
    width = 8 if header[:1] == b"\x01" else 4
    at_scale = 4 + 2 * width
    scale = int.from_bytes(header[at_scale : at_scale + 4], "big")
    duration = int.from_bytes(header[at_scale + 4 : at_scale + 4 + width], "big")
    return duration / scale if scale and duration not in (0, 256**width - 1) else None


def _segment_end(file: BinaryIO) -> int | None:
    """Where the segment of an MKV or WebM file ends; None where the file does not state it."""
    file.seek(len(_EBML))
    head = _element_size(file)
    if head is None:
        return None
    file.seek(head, 1)
    if file.read(len(_SEGMENT)) != _SEGMENT:
        return None
    length = _element_size(file)
    return None if length is None else file.tell() + length


def _element_size(file: BinaryIO) -> int | None:
    """A size in 1 to 8 bytes, whose leading zero bits tell how many bytes follow; None (unknown): all other bits are
    1."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    bits = 7 * (more + 1)
    value = int.from_bytes(first + file.read(more), "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value
