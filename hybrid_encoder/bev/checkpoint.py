"""A BEV model's file of weights: description of the nets, tensors, and the mean maps of the training samples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from ..errors import UserError, naming
from ..weights.reading import check_described, load_state, read_checkpoint, stated_json, tensors_of
from ..writing import write_torch
from .model import BevModel
from .nets import BevNets

BEST_FILE, LAST_FILE = "bev.pth", "bev_last.pth"
"""The best epoch's weights by the mean IoU of validation, and the last epoch's."""


@dataclass(frozen=True)
class SavedBev:
    """The content of a file of weights.

    Attributes:
        model: on the CPU in eval mode.
        mean_maps: float32 (K, X, Y): the share of the training samples in which a cell is of the class.
    """

    model: BevModel
    mean_maps: Tensor


def weights_file(run: Path, name: str = BEST_FILE) -> Path:
    """The path of a run's weights."""
    return run / "models" / name


def save_bev(path: Path, model: BevModel, mean_maps: Tensor, metrics: dict[str, float]) -> None:
    """Writes a file of weights; it is whole or not there."""
    nets = json.dumps(model.nets.to_dict())
    write_torch(path, {"bev_nets": nets, "model": model.state_dict(), "mean_maps": mean_maps, "metrics": metrics})


def load_bev(weights: Path) -> SavedBev:
    """The model of a run.

    Args:
        weights: the run's folder, or a file in it.

    Raises:
        UserError: nothing there, damaged, or another kind of file.
    """
    path = weights if weights.is_file() else weights_file(weights)
    if not path.exists():
        raise UserError(f"{weights} holds no {path.relative_to(weights)}: give the folder of a run of `train bev`")
    content = read_checkpoint(path)
    description = stated_json(content, "bev_nets", str(path))
    mean_maps = content.get("mean_maps")
    if not description or not isinstance(mean_maps, Tensor):
        raise UserError(f"{path} is no BEV model: expected the {BEST_FILE} of `hybrid-encoder train bev`")
    nets = _described(description, path)
    tensors, build = tensors_of(content, str(path)), naming(path)(partial(_build, nets))
    check_described(build, tensors, str(path))
    model = build()
    load_state(model, tensors, str(path))
    shape = (len(nets.classes), *nets.grid.shape)
    if mean_maps.shape != shape:
        raise UserError(
            f"{path} holds mean maps of the shape {tuple(mean_maps.shape)}, expected {shape}: it is damaged"
        )
    return SavedBev(model.eval(), mean_maps)


def _described(values: dict[str, object], path: Path) -> BevNets:
    try:
        return BevNets.from_dict(values)
    except (UserError, LookupError, TypeError) as error:  # unknown entries, or values of another type
        raise UserError(f"{path} does not describe BEV nets of this package: {error}") from error


def _build(nets: BevNets) -> BevModel:
    return BevModel(nets, nets.build_encoder())
