"""The files that paths, folders and patterns stand for, and the names of their results."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..data.video import VIDEO_SUFFIXES
from ..errors import UserError
from ..images import IMAGE_SUFFIXES, natural_order


class InputFile(NamedTuple):
    """A file to predict. `named`: the user gave its path, not a folder or pattern."""

    path: Path
    is_video: bool
    named: bool


def find_inputs(inputs: Sequence[str | Path]) -> list[InputFile]:
    """The image and video files that paths, folders and glob patterns stand for, each once.

    Files of a folder or pattern are sorted, frame_9 before frame_10; hidden files of a folder are left out.

    Raises:
        UserError: a path that does not exist, a file of another kind, or a folder or pattern without images and videos.
    """
    found: dict[Path, InputFile] = {}
    for given in inputs:
        path, members = Path(given), _members(given)
        usable = [member for member in members if member.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
        if not usable:
            known = " ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
            raise UserError(f"{given}: no image or video among {len(members)} files; known kinds are {known}")
        for member in usable:
            is_video = member.suffix.lower() in VIDEO_SUFFIXES
            found.setdefault(member.resolve(), InputFile(member, is_video, named=member == path))
    if not found:
        raise UserError("nothing to predict: name an image, a folder, a pattern or a video")
    return list(found.values())


def _members(given: str | Path) -> list[Path]:
    """The files that a path, a folder or a pattern stands for."""
    path = Path(given)
    if os.path.isdir(path):
        try:
            visible = [member for member in path.iterdir() if not member.name.startswith(".")]
        except OSError as error:
            raise UserError(f"cannot read the folder {given}: {error.strerror}") from error
        return sorted((member for member in visible if member.is_file()), key=natural_order)
    if os.path.exists(path):
        return [path]
    if glob.has_magic(str(given)):
        matches = map(Path, glob.glob(str(given), recursive=True))
        return sorted((match for match in matches if match.is_file()), key=natural_order)
    raise UserError(f"no such file or folder: {given}")


def output_stems(paths: Sequence[Path]) -> list[str]:
    """A name for each path; no two are the same, even on file systems that ignore case. A unique stem stays.

    Paths with the same stem get their suffix ("a_jpg", "a_png"), else as many parent folders as it takes
    ("drive1_0000", "drive2_0000"), else both; a number where all that is not enough.
    """
    stems = [path.stem for path in paths]
    for stem in set(map(str.casefold, stems)):
        group = [index for index, path in enumerate(paths) if path.stem.casefold() == stem]
        if len(group) > 1:
            for index, name in zip(group, _telling_names([paths[index].absolute() for index in group]), strict=True):
                stems[index] = name
    taken: set[str] = set()
    for index, stem in enumerate(stems):
        number = 2
        while stems[index].casefold() in taken:
            stems[index] = f"{stem}_{number}"
            number += 1
        taken.add(stems[index].casefold())
    return stems


def _telling_names(paths: Sequence[Path]) -> list[str]:
    names: list[str] = []
    for parents in range(max(len(path.parts) for path in paths)):
        for with_suffix in (False, True):
            names = []
            for path in paths:
                folders = path.parts[1:-1][-parents:] if parents else ()
                names.append("_".join([*folders, path.stem, *([path.suffix[1:]] if with_suffix else [])]))
            if len(set(map(str.casefold, names))) == len(names):
                return names
    return names
