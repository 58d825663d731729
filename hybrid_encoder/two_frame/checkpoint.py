"""Weights of two-frame runs in the original's layout, and the model that a folder of them holds.

`models/weights_N/{encoder,depth,mono_encoder,mono_depth,pose_encoder,pose,adam}.pth`; encoder.pth also holds the image
size, the range of the bins and, where the nets are not the original's, their description.
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, naming
from ..model.nets import DepthNets
from ..released.single_frame import is_released
from ..released.two_frame import load_released_matching
from ..stage2.checkpoint import (
    check_config,
    described_nets,
    encoder_extras,
    file_entries,
    fill,
    newest_weights,
    resnet_layers,
)
from ..stage2.poses import load_poses
from ..weights.reading import (
    check_described,
    load_state,
    read_checkpoint,
    stated_bins,
    stated_json,
    stated_size,
    tensors_of,
)
from ..weights.run_files import SINGLE_FRAME_FILES, single_frame_files
from ..writing import whole_folder, write_torch
from .encoder import HybridMatchingEncoder, build_matching_encoder
from .matching import MatchingEncoder
from .model import TwoFrameDepth, TwoFrameNet
from .predictor import TwoFrameModel

_BINS = ("min_depth_bin", "max_depth_bin")
MAX_FRAMES = 100
"""Most frames that a net may match with."""


def save_weights(folder: Path, model: TwoFrameDepth, optimizer: torch.optim.Optimizer) -> None:
    """Writes every net to its file. The folder is replaced as a whole."""
    options = model.options
    size = (options.height, options.width)
    encoder = model.net.encoder
    matching = {"binning": encoder.depth_binning, "frames": list(options.matching_ids)}
    described = {
        "encoder": {
            **encoder_extras(model.nets, *size),
            "min_depth_bin": float(model.bins.near),
            "max_depth_bin": float(model.bins.far),
            "matching_config": json.dumps(matching),
        },
        "mono_encoder": encoder_extras(model.teacher.nets, *size),
    }
    with whole_folder(folder) as partial:
        for name, net in model.files_to_save().items():
            tensors = encoder.original_state_dict() if net is encoder else file_entries(net)
            write_torch(partial / f"{name}.pth", {**tensors, **described.get(name, {})})
        write_torch(partial / "adam.pth", optimizer.state_dict())


def load_weights(folder: Path, model: TwoFrameDepth) -> None:
    """Fills all nets and the range of the bins from a folder, strictly.

    Raises:
        UserError: a file is missing, damaged or of another architecture.
    """
    for name, net in model.files().items():
        path = folder / f"{name}.pth"
        if isinstance(net, MatchingEncoder):
            near, far = _fill_encoder(net, path)
            model.bins.near.fill_(near)
            model.bins.far.fill_(far)
        else:
            fill(net, path)


def load_teacher(folder: Path, model: TwoFrameDepth) -> None:
    """Fills teacher and pose nets from a single-frame run's folder, or from a two-frame run's.

    Raises:
        UserError: a file is missing, damaged or of another architecture.
    """
    files = dict(zip(SINGLE_FRAME_FILES, single_frame_files(folder), strict=True))
    for name, net in model.teacher.files().items():
        fill(net, folder / f"{files.get(name, name)}.pth")


def is_two_frame(folder: str | Path) -> bool:
    """Whether a run's folder, or a folder of weights, holds a two-frame model.

    Raises:
        UserError: no such folder, or a damaged encoder.pth.
    """
    if not (Path(folder) / "encoder.pth").exists() and not (Path(folder) / "models").is_dir():
        return False
    return all(name in read_checkpoint(newest_weights(Path(folder)) / "encoder.pth") for name in _BINS)


def load_two_frame_model(folder: str | Path, max_bytes: int | None = None) -> TwoFrameModel:
    """The two-frame model of a folder, in eval mode: of our trainer, a patched clone, ManyDepth's own or the authors'.

    Args:
        folder: weights_N, or a run's folder, whose last epoch is taken.
        max_bytes: working memory of matching in bytes; None: what suits the device.

    Raises:
        UserError: no such folder, missing or damaged files, or a single-frame model.
    """
    folder = newest_weights(Path(folder))
    path = folder / "encoder.pth"
    entries = read_checkpoint(path)
    if any(name not in entries for name in _BINS):
        raise UserError(f"{path} says no range of depth bins: expected the weights of a two-frame (ManyDepth) run")
    size = stated_size(entries, str(path))
    binning, matching_ids = _matching(entries, str(path))
    nets = described_nets(entries, str(path))
    settings = {"adaptive_bins": True, "depth_binning": binning, "max_bytes": max_bytes}
    encoder: MatchingEncoder
    decoder: nn.Module
    if is_released(folder):
        released = load_released_matching(folder)
        encoder = HybridMatchingEncoder(released.encoder, *size, num_depth_bins=released.num_bins, **settings)
        load_state(encoder.reduce_conv, {"0.weight": released.join_weight, "0.bias": released.join_bias}, str(path))
        encoder.compute_depth_bins(released.min_depth_bin, released.max_depth_bin)
        decoder = released.decoder
    else:
        encoder = _build_encoder(entries, nets, size, settings, str(folder))
        _fill_encoder(encoder, path)
        decoder = nets.build_decoder(encoder)
        fill(decoder, folder / "depth.pth")
    poses, read_by_poses = load_poses(folder)
    model = TwoFrameModel(
        TwoFrameNet(encoder, decoder),
        poses,
        read_by_poses,
        matching_ids,
        size,
        (nets.min_depth, nets.max_depth),
        nets.resize,
    )
    return model.eval()


def _matching(entries: dict[str, Any], source: str) -> tuple[Any, tuple[int, ...]]:
    """The spacing of the bins, and the ids of the lookup frames.

    Raises:
        UserError: an unknown spacing, or ids that no lookup frame has.
    """
    matching = stated_json(entries, "matching_config", source)
    binning, frames = matching.get("binning", "linear"), matching.get("frames", [-1])
    if binning not in ("linear", "inverse"):
        raise UserError(f"{source}: bins that are {binning!r}: expected linear or inverse")
    known = isinstance(frames, list) and all(type(i) is int and i != 0 and -MAX_FRAMES <= i <= 1 for i in frames)
    if not known or not frames or len(set(frames)) != len(frames):
        raise UserError(f"{source}: lookup frames {frames!r}: expected some of 1, -1, -2, ...")
    return binning, tuple(frames)


def _build_encoder(
    entries: dict[str, Any], nets: DepthNets, size: tuple[int, int], settings: dict[str, Any], source: str
) -> MatchingEncoder:
    join = entries.get("reduce_conv.0.weight")
    if not isinstance(join, Tensor) or join.ndim != 4 or join.shape[1] <= join.shape[0]:
        raise UserError(f"{source}: encoder.pth has no reduce_conv: expected the weights of a two-frame run")
    if nets.config is None:
        layers = resnet_layers({f"encoder.{name}": value for name, value in entries.items()}, source)
        nets = dataclasses.replace(nets, num_layers=layers)
    count = join.shape[1] - join.shape[0]
    build = naming(source)(partial(build_matching_encoder, nets, size, num_depth_bins=count, **settings))
    if nets.config is not None:
        check_described(build, _net_tensors(entries, source), source)
    return build()


def _net_tensors(entries: dict[str, Any], source: str) -> dict[str, Tensor]:
    """The tensors of encoder.pth that are parts of the net."""
    found = tensors_of(entries, source)
    return {name: value for name, value in found.items() if name not in (*_BINS, "height", "width")}


def _fill_encoder(encoder: MatchingEncoder, path: Path) -> tuple[float, float]:
    """Fills an encoder from its file; returns the range of its bins."""
    entries = read_checkpoint(path)
    check_config(encoder.config, entries, str(path))
    encoder.load_original_state_dict(_net_tensors(entries, str(path)), str(path))
    near, far = stated_bins(entries, str(path))
    encoder.compute_depth_bins(near, far)
    return near, far
