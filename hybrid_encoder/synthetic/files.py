"""Writes rendered scenes in the layouts of KITTI raw and TuSimple, so that any reader of these can use them.

- `OUT/kitti`: 2000_01_01/2000_01_01_drive_NNNN_sync/{image_02,image_03,velodyne_points}/data, calibration, and
  splits/synthetic;
- `OUT/tusimple`: clips/synthetic/NNNNNN/20.jpg, label_data_train.json, label_data_val.json.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from ..engine.bars import progress_bar
from ..engine.signals import Interrupted, stop_on_signal
from ..errors import UserError
from .kitti import write_kitti
from .settings import SynthSettings
from .tusimple import write_tusimple


def write_synthetic(out: str | Path, settings: SynthSettings) -> None:
    """Write `out`/kitti and `out`/tusimple: both when all is written, or nothing.

    Args:
        out: a new or empty folder, or a link to one.
        settings: what to write.

    Raises:
        UserError: the settings are out of range, or `out` is a file or a folder with something in it.
        Interrupted: a signal asked for a stop; what was written is removed.
    """
    settings.check()
    images = settings.sequences * settings.frames + settings.clip_count
    with (
        stopped_at_once(out),
        filled_folder(out) as folder,
        progress_bar(what="rendering", total=images, unit="image", shown=settings.progress) as bar,
    ):
        write_kitti(folder / "kitti", settings, bar)
        write_tusimple(folder / "tusimple", settings, bar)


@contextmanager
def stopped_at_once(out: str | Path) -> Iterator[None]:
    """A signal raises an exception in the block, so that clean-up code after the block runs."""
    try:
        with stop_on_signal() as stop, stop.at_once():
            yield
    except Interrupted:
        raise Interrupted(f"stopped before all was rendered: nothing was written to {out}") from None


@contextmanager
def filled_folder(out: str | Path) -> Iterator[Path]:
    """Yields a hidden folder. If the block ends without an error, its content is moved to `out`; else it is deleted.

    If `out` is an empty folder, it is kept and filled: it may be a mounted disk, or the shell's working folder.

    Raises:
        UserError: `out` is a file or a folder that is not empty, or cannot be made.
    """
    target = Path(os.path.realpath(out))
    check_is_free(target)
    is_there = target.exists()
    hidden = (target if is_there else target.parent) / f".synth-{uuid4().hex[:8]}.partial"
    try:
        hidden.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot make a folder in {hidden.parent}: {error.strerror}") from error
    try:
        yield hidden
        if is_there:
            for path in hidden.iterdir():
                path.rename(target / path.name)
        else:
            hidden.rename(target)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def check_is_free(out: Path) -> None:
    """Raises `UserError` where a new folder cannot stand."""
    if not os.path.lexists(out):
        return
    if out.is_dir():
        first = next(out.iterdir(), None)
        if first is None:
            return
        found = f"a folder that is not empty (it holds {first.name})"
    else:
        found = "a link in a circle" if out.is_symlink() else "a file"
    raise UserError(f"{out} is {found}: give a new folder, or remove it first")
