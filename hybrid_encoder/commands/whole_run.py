"""What the commands that do all in one go share, demo and fit: their folder, and the model that stage 2 starts with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..engine.processes import Processes
from ..errors import UserError
from ..model.depth_model import DepthModel
from ..stage2.options import Monodepth2Options
from ..stage2.training import build_model
from ..writing import write_text

REPORT_FILE = "report.html"


def prepare_folder(out: Path, command: str, options: Mapping[str, Any], parts: Sequence[str]) -> bool:
    """Makes a command's folder, or empties it of what another call left.

    Args:
        command: its name; a hidden file in the folder says it, and holds the options, by which the same call resumes.
        options: that must be the same for that.
        parts: folders in it that the command writes.

    Returns:
        Whether it holds a call with these options that was stopped.

    Raises:
        UserError: it is a file, or holds something else.
    """
    marker = out / f".hybrid-encoder-{command}"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose a folder with --out")
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise UserError(f"{out} holds other files: choose another folder with --out")
    described = json.dumps(options, default=str)
    stopped = marker.exists() and marker.read_text() == described and not (out / REPORT_FILE).exists()
    if not stopped:
        for part in parts:
            shutil.rmtree(out / part, ignore_errors=True)
        (out / REPORT_FILE).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    write_text(marker, described)
    return stopped


def untrained(stage2: Monodepth2Options, group: Processes) -> DepthModel:
    """The depth model as stage 2 starts."""
    torch.manual_seed(stage2.seed)
    nets = build_model(stage2)
    model = DepthModel(nets.encoder, nets.depth, stage2.height, stage2.width, stage2.min_depth, stage2.max_depth)
    return model.eval().to(group.device)
