"""Checks of a zip archive of torch, before its tensors are read."""

from __future__ import annotations

import zipfile
from pathlib import Path

from .safe_pickle import UnsafeArchiveError


def is_zip(path: Path) -> bool:
    """Whether a file is a whole zip archive, as torch writes them."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # raised where the archive's end is malformed rather than missing
        return False


def check_stored(path: Path) -> None:
    """Checks what PyTorch assumes when it maps an archive into memory: members are not compressed (only TorchScript's
    code may be), and have the CRC-32 that the archive states. Reads the archive once.

    Raises:
        UnsafeArchiveError: names the first member that is compressed or damaged.
    """
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED and "/code/" not in info.filename:
                raise UnsafeArchiveError(
                    f"{info.filename} in it is compressed, which torch never does: unpack the archive and pack it "
                    "again without compression (zip -0 -r)"
                )
        damaged = archive.testzip()
    if damaged is not None:
        raise UnsafeArchiveError(f"damaged, the checksum of {damaged} in it is wrong")


def has_code(path: Path) -> bool:
    """Whether an archive was written by TorchScript."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") and name.count("/") == 1 for name in archive.namelist())
