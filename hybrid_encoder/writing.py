"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .errors import UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT) if sys.platform != "win32" else (errno.ENOSPC,)
"""What the system says of a full disk."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a hidden path beside `path`, of the same suffix; it takes the place of `path` when the block ends well.

    Missing folders are made. If the block raises, what it wrote is removed and an older `path` stays as it was.

    Raises:
        UserError: the folder cannot be made.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_torch(path: Path, content: dict[str, Any]) -> None:
    """`torch.save`, whole or not at all.

    Raises:
        UserError: the disk is full or the folder cannot be written; an older file is still there.
    """
    try:
        write_bytes(path, serialized(content))
    except OSError as error:
        raise not_written(path, error) from error


def write_text(path: Path, text: str) -> None:
    """A small file, whole or not at all.

    Raises:
        UserError: as `write_torch`.
    """
    try:
        write_bytes(path, text.encode())
    except OSError as error:
        raise not_written(path, error) from error


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Writes a file so that after a crash either the old or the new one is there, whole."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty hidden folder that takes the place of `folder` when the block ends well: after a crash there is
    the old one, the new one or none, but never a mixture."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        try:
            partial.mkdir(parents=True)
            yield partial
            replaced = folder.with_name(f".{folder.name}.{os.getpid()}.replaced.partial")
            if folder.exists():
                os.rename(folder, replaced)
            os.rename(partial, folder)
            _sync_folder(folder.parent)
            shutil.rmtree(replaced, ignore_errors=True)
        except OSError as error:
            raise not_written(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def not_written(path: Path, error: OSError) -> UserError:
    """The user's side of a file that could not be written."""
    remedy = "free some space" if error.errno in NO_ROOM else "see to its folder"
    return UserError(f"{path} could not be written ({error.strerror}): {remedy}, then run again")


def serialized(content: dict[str, Any]) -> memoryview:
    """What `torch.save` makes of it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def _sync_folder(folder: Path) -> None:
    """Makes a rename last through a power failure."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
