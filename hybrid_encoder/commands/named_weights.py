"""Weights that commands know by name: `tiny-rendered`, which ships with the package, and `released`, the authors'."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..released.fetch import Part, fetch_released

RELEASED = "released"


def local_weights(weights: str, yes: bool, part: Part = "stage2") -> str:
    """What `--weights` names, as a folder where it is the authors'; anything else stays as it is.

    Args:
        weights: "released", or "released:FOLDER" with a folder of the authors' repository; or anything else.
        yes: of `--yes`: fetch without asking.
        part: which of the authors' files.

    Raises:
        UserError: as `fetch_released`.
    """
    name, _, folder = weights.partition(":")
    if name != RELEASED or Path(weights).exists():
        return weights
    return str(fetch_released(part, folder, yes))


def local_stage1(path: Path | None, yes: bool) -> Path | None:
    """The same of `--stage1`."""
    return None if path is None else Path(local_weights(str(path), yes, "stage1"))


def refuse_released(folder: Path | None, flag: str) -> None:
    """Raises `UserError` where a trainer is to start from the authors' stage 2, whose files have other names."""
    if folder is not None and str(folder).partition(":")[0] == RELEASED and not folder.exists():
        raise UserError(
            f"{flag} {folder}: trainers read their own layout. Write it first: hybrid-encoder convert {folder} "
            f"--layout monodepth2 --out FOLDER, then give {flag} FOLDER"
        )
