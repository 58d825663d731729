"""Reads the user's text files, as any editor saves them."""

from __future__ import annotations

import codecs
from pathlib import Path

from ..errors import UserError


def read_lines(path: str | Path, what: str) -> list[bytes]:
    """The lines of a file, without the byte-order mark that editors on Windows put at its start.

    Args:
        what: names the kind of file in messages: "split file".

    Raises:
        UserError: it cannot be read.
    """
    try:
        return Path(path).read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read the {what} {path}: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte in the path
        raise UserError(f"cannot read the {what} {path}: {error}") from error


def read_text(path: str | Path, what: str) -> str:
    """The UTF-8 text of a file, as `read_lines` reads it.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    try:
        return b"\n".join(read_lines(path, what)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read the {what} {path}: {error}; save it as UTF-8") from error
