"""Which scenes of nuScenes are for training and which for validation: the lists that the field uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from ..errors import UserError

Part = Literal["train", "val"]

MINI = "v1.0-mini"
MINI_VALIDATION = "103 916"
VALIDATION = (
    "3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627 629-630 632-638 770-771 775 "
    "777-778 780-784 794-800 802 904-917 919-931 962-963 966-969 971-972 1059-1073"
)
"""The 150 scenes of v1.0-trainval that are for validation; its other 700 are for training."""
SPLIT_FILE = "splits.json"
"""Beside the tables, for data of one's own: {"train": [names of scenes], "val": [names of scenes]}."""


def scene_names(numbers: str) -> frozenset[str]:
    """The names of scenes given as numbers and ranges.

    >>> sorted(scene_names("3 12-13"))
    ['scene-0003', 'scene-0012', 'scene-0013']
    """
    ends = [run.split("-") for run in numbers.split()]
    return frozenset(f"scene-{n:04d}" for run in ends for n in range(int(run[0]), int(run[-1]) + 1))


def scenes_of(part: Part, tables: Path, scenes: set[str]) -> set[str]:
    """The scenes of a part.

    Args:
        tables: the folder of the tables: a `SPLIT_FILE` in it decides; else its name tells which list applies.
        scenes: all that the tables hold.

    Raises:
        UserError: the file is of another form, or the tables hold no scene of the part.
    """
    listed = tables / SPLIT_FILE
    if listed.is_file():
        found = scenes & _own_list(listed, part)
    else:
        validation = scene_names(MINI_VALIDATION if tables.name == MINI else VALIDATION)
        found = scenes & validation if part == "val" else scenes - validation
    if not found:
        raise UserError(
            f"none of the {len(scenes)} scenes in {tables} is for {part}: expected {MINI} or v1.0-trainval, or, "
            f'for data of your own, {listed} with {{"train": [names of scenes], "val": [names of scenes]}}'
        )
    return found


def _own_list(path: Path, part: Part) -> set[str]:
    try:
        names = json.loads(path.read_bytes())[part]
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError("expected a list of names")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"cannot read the scenes for {part} in {path}: {type(error).__name__}: {error}; expected "
            '{"train": [names of scenes], "val": [names of scenes]}'
        ) from error
    return set(names)
