"""Writing files whole or not at all.

What stands at a path is respected: a link is followed, and a pipe or device is written to, never replaced by a file.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT) if sys.platform != "win32" else (errno.ENOSPC,)
"""What the system says of a full disk."""
_MAX_NAME = 255
"""Bytes of a file's name that every file system takes."""
_MAX_SUFFIX = 32
_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")
"""Paths that stand for an open file, even where that is a plain one."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a hidden path beside `path`, of the same suffix; it takes the place of `path` when the block ends well.

    Missing folders are made. If the block raises, what it wrote is removed and an older `path` stays as it was. A link
    stays: its target is what is replaced. A pipe or a device gets the content when the block has ended well.

    Raises:
        UserError: `path` is a folder, its folder cannot be made, or a pipe or device cannot be written.
    """
    path = Path(path)
    if _is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, f"whole{path.suffix}")
            yield whole
            _copy_to_stream(whole, path)
        return
    path = _target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    partial = _hidden(path, path.stem, f"partial{path.suffix if len(path.suffix) <= _MAX_SUFFIX else ''}")
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
    if not _is_stream(path):
        _sync_folder(Path(os.path.realpath(path)).parent)


def write_npy(path: Path, array: np.ndarray) -> None:
    """An array as numpy's own file, whole or not at all.

    Raises:
        UserError: as `write_torch`.
    """
    try:
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    except OSError as error:
        raise not_written(path, error) from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty hidden folder that takes the place of `folder` when the block ends well: after a crash there is
    the old one, the new one or none, but never a mixture. A file that the new folder does not have moves over to it:
    it is not of this program."""
    folder = _target(folder, is_folder=True)
    partial, replaced = _hidden(folder, folder.name, "partial"), _hidden(folder, folder.name, "replaced.partial")
    try:
        try:
            partial.mkdir(parents=True)
            yield partial
            if folder.exists():
                os.rename(folder, replaced)
            os.rename(partial, folder)
            _sync_folder(folder.parent)
            if replaced.exists():
                for old in replaced.iterdir():
                    if not (folder / old.name).exists():
                        os.rename(old, folder / old.name)
                shutil.rmtree(replaced, ignore_errors=True)
        except OSError as error:
            raise not_written(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def not_written(path: Path, error: OSError) -> UserError:
    """The user's side of a file that could not be written."""
    remedy = {errno.ENAMETOOLONG: "choose a shorter name", **dict.fromkeys(NO_ROOM, "free some space")}
    advice = remedy.get(error.errno or 0, "see to its folder")
    return UserError(f"{path} could not be written ({error.strerror}): {advice}, then run again")


def serialized(content: dict[str, Any]) -> memoryview:
    """What `torch.save` makes of it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def _mode(path: Path) -> int | None:
    """What kind of file stands at a path, links followed; None for nothing."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise not_written(path, error) from error


def _is_stream(path: Path) -> bool:
    """Whether a path names a pipe, a device or an open file."""
    mode = _mode(path)
    plain = mode is None or stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return not plain or (mode is not None and os.path.abspath(path).startswith(_STREAMS))


def _copy_to_stream(whole: Path, path: Path) -> None:
    try:
        with whole.open("rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
    except OSError as error:
        raise not_written(path, error) from error


def _target(path: Path, is_folder: bool = False) -> Path:
    """The path itself, or what it links to.

    Raises:
        UserError: there is a file where a folder is to be, or the other way round.
    """
    mode = _mode(path)
    if mode is not None and stat.S_ISDIR(mode) != is_folder:
        found, wanted = ("file", "folder") if is_folder else ("folder", "file")
        raise UserError(f"{path} is a {found}: give the name of a {wanted}")
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _hidden(path: Path, stem: str, ending: str) -> Path:
    """A hidden name beside a path, of this process: .STEM.PID.ENDING, its stem a hash where it would be too long."""
    name = f".{stem}.{os.getpid()}.{ending}"
    if len(os.fsencode(name)) > _MAX_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.{os.getpid()}.{ending}"
    return path.with_name(name)


def _sync_folder(folder: Path) -> None:
    """Makes a rename last through a power failure, where the file system can."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync files only
                raise
        finally:
            os.close(handle)
