"""The room that decoded videos take: bounded, least recently used ones go first, and none that a run is reading."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from pathlib import Path
from typing import IO, NamedTuple

from ..errors import UserError

if sys.platform != "win32":
    import fcntl

LIMIT_VARIABLE = "HYBRID_ENCODER_CACHE_GB"
DEFAULT_GB = 50.0
SUFFIX = ".rgb"
"""Of files of decoded pixels."""


def limit_bytes() -> int:
    """What decoded videos may take together: $HYBRID_ENCODER_CACHE_GB, else 50 GB.

    Raises:
        UserError: the variable is no number.
    """
    text = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise UserError(f"{LIMIT_VARIABLE}={text}: expected a number of gigabytes, e.g. 50")
    return int(gigabytes * 1e9)


class DecodedFile(NamedTuple):
    """A decoded video in the cache."""

    used: float
    """When a run last opened it, in seconds since 1970."""
    path: Path
    size: int
    """Bytes."""


def decoded_files(folder: Path) -> list[DecodedFile]:
    """The decoded videos of a folder, the one that was used longest ago first."""
    found = []
    for path in folder.glob(f"[!.]*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # another process deletes, too
            status = path.stat()
            found.append(DecodedFile(status.st_mtime, path, status.st_size))
    return sorted(found)


def held_open(file: Path) -> IO[bytes] | None:
    """A decoded video, open: for as long as it is, `delete_unused` leaves it alone. None where there is no such
    file."""
    try:
        held = file.open("rb")
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):  # a folder that may only be read, or a file system without locks
        os.utime(file)
        if sys.platform != "win32":
            fcntl.flock(held, fcntl.LOCK_SH)
    if not file.exists():  # deleted while this process waited for the lock
        held.close()
        return None
    return held


def delete_unused(file: Path) -> bool:
    """Deletes a decoded video unless a process holds it open, and says whether it did."""
    try:
        with file.open("rb") as opened:
            if sys.platform != "win32":
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()
        if sys.platform == "win32":  # which deletes no open file
            file.unlink()
    except OSError:  # in use, gone, or not ours to delete
        return False
    return True


def make_room(folder: Path, size: int) -> None:
    """Deletes decoded videos, the one that was used longest ago first, until `size` bytes more keep within the limit;
    a video that is larger than the limit alone stays the only one."""
    files = decoded_files(folder)
    excess = sum(file.size for file in files) + size - limit_bytes()
    for file in files:
        if excess > 0 and delete_unused(file.path):
            excess -= file.size
