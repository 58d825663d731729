"""Where TuSimple's label files and images lie: the benchmark's own folders, the authors', or one folder with all.

| layout | label files | images that they name |
|---|---|---|
| the benchmark's | train_set/label_data_*.json, test_set/test_label.json | below train_set, test_set |
| the authors' | TUSimple/train_set/train_label_data.json | below TUSimple/train_set |
| one folder | label_data_*.json | below it |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..images import natural_order

Label = tuple[str, np.ndarray]
"""An image's path, and its lanes (S, 7, 2), x and y in pixels, near to far; S may be 0."""
_FOLDERS = {"tusimple", "train_set", "test_set"}
_LABEL_FILE = re.compile("(label_data_[A-Za-z0-9]+|train_label_data|test_label)[.]json")
"""NAME of label_data_NAME.json is one word: a user's "label_data_0313 (copy).json" is no label file."""
_MERGED = "train_label_data.json"
"""The authors' label file, made of the benchmark's."""


def homes(root: Path, levels: int = 2) -> Iterator[Path]:
    """The folders that may hold label files: `root` itself, and the folders of TuSimple's layouts in it."""
    yield root
    if levels:
        for folder in sorted(root.iterdir()):
            if folder.name.lower() in _FOLDERS and folder.is_dir():
                yield from homes(folder, levels - 1)


def label_files(root: Path, label: str | None = None) -> list[Path]:
    """The label files of a folder in any of the layouts.

    Args:
        label: name of a single label file, without .json; None: all.

    Raises:
        UserError: there is no such file.
    """
    if label:
        found = [file for home in homes(root) if (file := home / f"{label}.json").is_file()][:1]
    else:
        files = (file for home in homes(root) for file in home.iterdir() if _LABEL_FILE.fullmatch(file.name))
        found = sorted(files, key=natural_order)
    if not found:
        raise UserError(
            f"{root} has no {label or 'label_data_*'}.json: expected TuSimple's label files in it, or in train_set and "
            "test_set in it"
        )
    return found


def placed(root: Path, labels: dict[Path, list[Label]]) -> dict[Path, list[Label]]:
    """The labels of each file, with the paths of their images below `root`.

    An image lies below the folder of its label file, or else below the first of the layouts' folders that holds it.
    Label files of which train_label_data.json was made are left out.

    Raises:
        UserError: two label files name the same image, which could then be in both parts.
    """
    folders = list(homes(root))
    found = {
        file: [(_place(root, file.parent, folders, image), lanes) for image, lanes in entries]
        for file, entries in labels.items()
    }
    merged = {image for file, entries in found.items() if file.name == _MERGED for image, _ in entries}
    kept = {
        file: entries
        for file, entries in found.items()
        if file.name == _MERGED or not merged or not {image for image, _ in entries} <= merged
    }
    _check_no_image_twice(kept)
    return kept


def _place(root: Path, home: Path, folders: list[Path], image: str) -> str:
    if len(folders) > 1 and not (home / image).is_file():
        home = next((folder for folder in folders if (folder / image).is_file()), home)
    return (home / image).relative_to(root).as_posix()


def _check_no_image_twice(labels: dict[Path, list[Label]]) -> None:
    seen: dict[str, Path] = {}
    for file, entries in labels.items():
        for image, _ in entries:
            if seen.setdefault(image, file) != file:
                raise UserError(
                    f"{seen[image].name} and {file.name} in {file.parent} both label {image}: move one of them away, "
                    f"or name the other one: --data tusimple:{file.parent}:{seen[image].stem}"
                )
