"""What the commands demo and fit share: preparing their folder, and the model before stage 2."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence

import torch

from ..engine.processes import Processes
from ..errors import UserError
from ..model.depth_model import DepthModel
from ..stage2.options import Monodepth2Options
from ..stage2.training import build_model
from ..writing import write_text
from .options import DemoOptions, FitOptions

REPORT_FILE = "report.html"


def prepare_folder(options: DemoOptions | FitOptions, command: str, parts: Sequence[str]) -> bool:
    """Creates a command's folder, or deletes what a call with other options wrote to it.

    Args:
        options: of the command; all except `out` and `device` must be the same for a call to resume.
        command: name of the command. A hidden file in the folder is named after it and holds these options.
        parts: the folders in it that the command writes.

    Returns:
        Whether the folder holds a stopped call with these options, which is resumed.

    Raises:
        UserError: the folder is a file, or holds other files.
    """
    out = options.out
    marker = out / f".hybrid-encoder-{command}"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose a folder with --out")
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise UserError(f"{out} holds other files: choose another folder with --out")
    fixed = {name: value for name, value in dataclasses.asdict(options).items() if name not in ("out", "device")}
    described = json.dumps(fixed, default=str)
    stopped = marker.exists() and marker.read_text() == described and not (out / REPORT_FILE).exists()
    if not stopped:
        for part in parts:
            shutil.rmtree(out / part, ignore_errors=True)
        (out / REPORT_FILE).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    write_text(marker, described)
    return stopped


def untrained(stage2: Monodepth2Options, group: Processes) -> DepthModel:
    """The depth model before stage 2."""
    torch.manual_seed(stage2.seed)
    nets = build_model(stage2)
    model = DepthModel(nets.encoder, nets.depth, stage2.height, stage2.width, stage2.min_depth, stage2.max_depth)
    return model.eval().to(group.device)
