"""Decides whether a run is the same run: it resumes in its folder only with the options and inputs that it began with.

Inputs are compared by content, not by name: text by its lines, weights by their bytes. Images are compared by size and
time of change, without reading them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import UserError

_REMEDY = "choose another folder (--model_name, for stage 1 --out)"
_LISTED = 3


def fixed_options(options: Any, free: Collection[str]) -> dict[str, Any]:
    """The options (a dataclass) that may not change when a run resumes, as JSON values.

    Args:
        free: names of options that may change: where the run computes, what it logs.
    """
    values = {k: v for k, v in dataclasses.asdict(options).items() if k not in free}
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found


def options_text(options: Any) -> str:
    """The options (a dataclass) as a file that `--config` takes."""
    return json.dumps(dataclasses.asdict(options), indent=2, default=str) + "\n"


def lines_digest(lines: Iterable[object]) -> str:
    """A digest by which two lists of lines are compared.

    >>> lines_digest(["drive 1 l", "drive 2 l"])
    '2 lines, c5b9e352612e'
    """
    listed = [str(line) for line in lines]
    return f"{len(listed)} lines, {_short(hashlib.sha256(chr(10).join(listed).encode()))}"


def file_digest(path: Path) -> str:
    """A digest by which the contents of two files are compared.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return f"{path.stat().st_size} bytes, {_short(digest)}"
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def folder_digests(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """Digests by which files are compared, one per folder: of names, sizes and times of change (in whole seconds, which
    archives keep). The files are not read.

    Args:
        paths: the files; those that do not exist are left out.
        root: names of folders are relative to it, so that all folders may be moved together.

    Returns:
        A digest by the name "files in FOLDER".
    """
    folders: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    for path in sorted(set(paths)):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        folders[str(path.parent)].append((path.name, status.st_size, int(status.st_mtime)))
    digests = {}
    for folder, files in folders.items():
        newest = datetime.fromtimestamp(max(time for _, _, time in files), timezone.utc)
        size = sum(size for _, size, _ in files)
        digest = _short(hashlib.sha256(repr(files).encode("utf-8", "surrogateescape")))
        name = f"files in {os.path.relpath(folder, root)}"
        digests[name] = f"{len(files)} files, {size} bytes, last changed {newest:%Y-%m-%d %H:%M:%S} UTC, {digest}"
    return digests


def check_same_run(folder: Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Compares the options of the run in a folder with the given options.

    Raises:
        UserError: they differ; the message lists the options, if both runs have options of the same names.
    """
    if set(saved) != set(given):
        raise UserError(f"{folder} holds a run of another trainer, or of another version of this package: {_REMEDY}")
    differing = [name for name in sorted(saved) if saved[name] != given[name]]
    if differing:
        listed = "; ".join(f"{name} was {_show(saved[name])}, is {_show(given[name])}" for name in differing)
        raise UserError(
            f"{folder} holds a run with other options: {listed}. Repeat its own options to resume it, or {_REMEDY}"
        )


def check_same_inputs(folder: Path, saved: Mapping[str, str], given: Mapping[str, str], accept: bool) -> None:
    """Compares the inputs of the run in a folder with the given inputs.

    Args:
        accept: whether to resume with other inputs, after a message on stderr.

    Raises:
        UserError: they differ, and `accept` is False; the message lists what differs.
    """
    differing = [name for name in sorted({*saved, *given}) if saved.get(name) != given.get(name)]
    if not differing:
        return
    listed = "; ".join(
        f"{name}: was {saved.get(name, 'not read')}, is {given.get(name, 'not read')}" for name in differing[:_LISTED]
    )
    more = f"; and {len(differing) - _LISTED} more" if len(differing) > _LISTED else ""
    if accept:
        print(f"resuming with other data than {folder} began with: {listed}{more}", file=sys.stderr)
        return
    raise UserError(
        f"{folder} holds a run on other data: {listed}{more}. Give it the data that it began with (copies keep their "
        f"times with cp -p or rsync -a), add --resume to resume it with the data as they are now, or {_REMEDY}"
    )


def _short(digest: Any) -> str:
    text: str = digest.hexdigest()
    return text[:12]


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
