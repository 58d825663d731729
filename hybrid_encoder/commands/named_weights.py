"""The weights named `released`: those of the authors, which commands fetch."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..released.fetch import Part, fetch_released

RELEASED = "released"


def local_weights(weights: str, yes: bool, part: Part = "stage2") -> str:
    """The folder of the authors' weights if `weights` names them; anything else is returned unchanged.

    Args:
        weights: "released", "released:FOLDER" with a folder of the authors' repository, or anything else.
        yes: fetch without asking (`--yes`).
        part: the authors' files to fetch.

    Raises:
        UserError: as `fetch_released`.
    """
    name, _, folder = weights.partition(":")
    if name != RELEASED or Path(weights).exists():
        return weights
    return str(fetch_released(part, folder, yes))


def local_stage1(path: Path | None, yes: bool) -> Path | None:
    """`local_weights` of `--stage1`."""
    return None if path is None else Path(local_weights(str(path), yes, "stage1"))


def refuse_released(folder: Path | None, flag: str) -> None:
    """Raises `UserError` if a trainer is to start from the authors' stage-2 weights, which have another layout."""
    if folder is not None and str(folder).partition(":")[0] == RELEASED and not folder.exists():
        raise UserError(
            f"{flag} {folder}: trainers read only their own layout. Convert first: hybrid-encoder convert {folder} "
            f"--layout monodepth2 --out FOLDER, then give {flag} FOLDER"
        )
