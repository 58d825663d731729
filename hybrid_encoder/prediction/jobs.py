"""The plan of a prediction: its inputs, and the files that each of them gives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .inputs import InputFile, find_inputs, output_stems
from .settings import PredictionSettings


class Job(NamedTuple):
    """An input and the files that it gives, by kind."""

    source: InputFile
    targets: dict[str, Path]


def plan(inputs: Sequence[str | Path], out: Path, settings: PredictionSettings) -> list[Job]:
    """The inputs with their outputs in the folder `out`.

    Raises:
        UserError: no input, `out` is or lies in a file, an output would overwrite an input, or a file that describes
            one drive is given for several drives.
    """
    sources = find_inputs(inputs)
    in_the_way = next((folder for folder in (out, *out.parents) if os.path.exists(folder)), None)
    if in_the_way is not None and not in_the_way.is_dir():
        raise UserError(f"cannot make the folder {out}: {in_the_way} is a file. Choose another folder with --out")
    _check_one_drive(sources, settings)
    stems = output_stems([source.path for source in sources])
    jobs = [Job(source, _targets(out, stem, source, settings)) for source, stem in zip(sources, stems, strict=True)]
    originals = {source.path.resolve() for source in sources}
    for target in (path for job in jobs for path in job.targets.values()):
        if target.resolve() in originals:
            raise UserError(f"the output {target} would overwrite an input: choose another folder with --out")
    return jobs


def _targets(out: Path, stem: str, source: InputFile, settings: PredictionSettings) -> dict[str, Path]:
    """Files by kind, in the order in which they are written."""
    points = {"points": out / f"{stem}.ply"} if settings.points else {}
    if source.is_video:
        return {"video": out / f"{stem}_depth.mp4", **points}
    targets = {"disp": out / f"{stem}_disp.png", "depth": out / f"{stem}_depth.png"}
    if settings.pairs:
        targets["pair"] = out / f"{stem}_pair.jpg"
    if settings.save_npy:
        targets["npy"] = out / f"{stem}.npy"
    return targets | points


def _check_one_drive(sources: Sequence[InputFile], settings: PredictionSettings) -> None:
    """Raises UserError where a file describes one drive and the inputs are several; all images count as one drive."""
    drives = sum(source.is_video for source in sources) + any(not source.is_video for source in sources)
    source = settings.scale_from
    of_one = [
        *([f"--poses {settings.poses}"] if settings.poses is not None else []),
        *([f"--scale_from {source.kind}={source.file}"] if source is not None and source.has_file else []),
    ]
    if of_one and drives > 1:
        raise UserError(
            f"{of_one[0]} describes one drive, but the inputs are {drives}: give one video, or the images of one drive"
        )
