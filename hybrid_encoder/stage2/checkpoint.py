"""Weights in the original's layout: `models/weights_N/{encoder,depth,pose_encoder,pose,adam}.pth`."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import nn

from ..config import HybridEncoderConfig, Resize, ResnetNormalization
from ..errors import UserError, naming
from ..model.contract import DepthEncoder
from ..model.depth_model import DepthModel
from ..model.nets import DepthNets
from ..model.resnet import ResnetEncoder
from ..weights.reading import (
    check_described,
    load_state,
    read_checkpoint,
    read_tensors,
    stated_json,
    stated_size,
    tensors_of,
)
from ..writing import whole_folder, write_torch

_DECODER_CONFIG = {
    "kind": "decoder",
    "scales": "scales",
    "head": "head",
    "min_depth": "min_depth",
    "max_depth": "max_depth",
    "resize": "resize",
}
"""The entries of encoder.pth's `decoder_config`, and the fields of `DepthNets` that they are."""

_NORMALIZATION = "normalization"
"""The entry of a ResNet's file that says what it does to pixels, where that is not the family's way."""

_NUMBERED = re.compile("weights_(0|[1-9][0-9]*)")
"""Names of the epochs' folders, exactly: a user's copy is none of them."""


def weights_folder(run: Path, epoch: int | str) -> Path:
    """Where the weights of an epoch lie in a run's folder."""
    return run / "models" / f"weights_{epoch}"


def save_weights(
    folder: Path, files: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, extras: Mapping[str, Any]
) -> None:
    """Writes every net to its file; `extras` go into encoder.pth. The folder is replaced as a whole."""
    with whole_folder(folder) as partial:
        for name, module in files.items():
            content = file_entries(module)
            if name == "encoder":
                content.update(extras)
            write_torch(partial / f"{name}.pth", content)
        write_torch(partial / "adam.pth", optimizer.state_dict())


def file_entries(net: nn.Module) -> dict[str, Any]:
    """What a net's file holds: its tensors, and what a ResNet does to pixels where that is not the family's way.

    Other code of the family finds no place for this entry, and refuses a file whose nets it would run wrongly.
    """
    entries: dict[str, Any] = dict(net.state_dict())
    if isinstance(net, ResnetEncoder) and net.normalization != "monodepth2":
        entries[_NORMALIZATION] = net.normalization
    return entries


def stated_normalization(entries: Mapping[str, Any], source: str) -> ResnetNormalization:
    """What the ResNet of a file does to pixels.

    Args:
        entries: what `read_checkpoint` returns.
        source: names the file in messages.

    Raises:
        UserError: a way that nobody knows.
    """
    found = entries.get(_NORMALIZATION, "monodepth2")
    if found not in get_args(ResnetNormalization):
        known = ", ".join(get_args(ResnetNormalization))
        raise UserError(f"{source}: {_NORMALIZATION} {str(found)[:50]!r} in it: expected one of {known}")
    return cast(ResnetNormalization, found)


def encoder_extras(nets: DepthNets, height: int, width: int) -> dict[str, Any]:
    """What encoder.pth says of the nets besides tensors, so that a folder can be opened without the options of its
    run."""
    decoder = {name: getattr(nets, field) for name, field in _DECODER_CONFIG.items()}
    extras: dict[str, Any] = {"height": height, "width": width, "decoder_config": json.dumps(decoder)}
    if nets.config is not None:
        extras["hybrid_config"] = json.dumps(nets.config.without_downloads().to_dict())
    return extras


def described_nets(entries: Mapping[str, Any], source: str) -> DepthNets:
    """The nets that an encoder.pth is of; without a description, the original's.

    The layers of a ResNet are not described: `resnet_layers` reads them off its tensors.

    Args:
        entries: what `read_checkpoint` returns.
        source: names the file in messages.

    Raises:
        UserError: no such nets can be built.
    """
    decoder = stated_json(entries, "decoder_config", source)
    config = stated_json(entries, "hybrid_config", source)
    try:
        fields = {_DECODER_CONFIG[name]: value for name, value in decoder.items()}
        fields["resize"] = stated_resize(entries, source)
        hybrid = HybridEncoderConfig.from_dict(config).without_downloads() if config else None
        return DepthNets(config=hybrid, **fields)
    except (UserError, KeyError, TypeError) as error:  # entries that nobody knows, or values of other kinds
        raise UserError(f"{source} does not describe nets of this package: {error}") from error


def stated_resize(entries: Mapping[str, Any], source: str) -> Resize:
    """How the images were resized that the nets of an encoder.pth learnt from; by Lanczos where it has no description,
    as the originals do.

    Raises:
        UserError: a description that cannot be read.
    """
    decoder = stated_json(entries, "decoder_config", source)
    found = decoder.get("resize", "area") if decoder else "lanczos"
    if found not in get_args(Resize):
        raise UserError(f"{source} says resize={found!r}: expected one of {', '.join(get_args(Resize))}")
    return cast(Resize, found)


def files_there(files: Mapping[str, nn.Module], folder: Path) -> dict[str, nn.Module]:
    """The nets that a folder has files for: all, or all but the pose nets, which `convert` leaves out where there are
    none, and which then start anew."""
    if (folder / "pose.pth").is_file():
        return dict(files)
    print(f"{folder} holds no pose.pth: the pose nets start anew", file=sys.stderr)
    return {name: net for name, net in files.items() if not name.startswith("pose")}


def load_weights(folder: Path, files: Mapping[str, nn.Module]) -> None:
    """Fills nets from a folder, strictly.

    Raises:
        UserError: a file is missing, damaged or of another architecture.
    """
    for name, module in files.items():
        fill(module, folder / f"{name}.pth")


def fill(module: nn.Module, path: Path) -> None:
    """Fills a net from its file, strictly.

    Raises:
        UserError: the file is missing, damaged or of another architecture.
    """
    entries = read_checkpoint(path)
    if path.stem == "encoder":
        _check_single_frame(entries, path)
    if (
        isinstance(module, ResnetEncoder)
        and (found := stated_normalization(entries, str(path))) != module.normalization
    ):
        raise UserError(
            f"{path} was trained with --pose_normalization {found}: give the same, not {module.normalization}"
        )
    if isinstance(module, DepthEncoder):
        check_config(module.config, entries, str(path))
    load_state(module, tensors_of(entries, str(path)), str(path))


def _check_single_frame(entries: Mapping[str, Any], path: Path) -> None:
    if "min_depth_bin" in entries:
        raise UserError(f"{path} is of a two-frame run: its single-frame teacher is the mono_encoder.pth beside it")


def check_same_depth(nets: DepthNets, path: Path) -> None:
    """Raises `UserError` where an encoder's file says that its depth net means other depths by the same numbers.

    Args:
        nets: those that are to be filled from the file.
    """
    entries = read_checkpoint(path)
    if "decoder_config" not in entries:
        return
    described = described_nets(entries, str(path))
    for name in ("min_depth", "max_depth", *(("head",) if nets.decoder == described.decoder == "dpt" else ())):
        theirs = getattr(described, name)
        if getattr(nets, name) != theirs:
            raise UserError(f"{path} was trained with --{name} {theirs}: give the same, not {getattr(nets, name)}")


def check_config(config: HybridEncoderConfig | None, entries: Mapping[str, Any], source: str) -> None:
    """Raises `UserError` where a file says that its hybrid encoder computes something else with the same tensors.

    Args:
        config: of the encoder that is to be filled; None: a ResNet.
    """
    saved = described_nets(entries, source).config
    if config is not None and saved is not None:
        config.check_same_features(saved, source)


def load_depth_model(folder: str | Path, encoder_file: str = "encoder", decoder_file: str = "depth") -> DepthModel:
    """The depth net of a trainer's folder, in eval mode: ours, a patched original's, or an original's ResNet.

    Args:
        folder: weights_N, or a run's folder, of which the last epoch is taken.
        encoder_file, decoder_file: "mono_encoder" and "mono_depth" for ManyDepth's teacher.

    Raises:
        UserError: no such folder, missing or damaged files.
    """
    folder = newest_weights(Path(folder))
    path = folder / f"{encoder_file}.pth"
    entries = read_checkpoint(path)
    if encoder_file == "encoder":
        _check_single_frame(entries, path)
    nets = described_nets(entries, str(path))
    sizes_from = path if "height" in entries else folder / "encoder.pth"
    height, width = stated_size(entries if sizes_from == path else read_checkpoint(sizes_from), str(sizes_from))

    if nets.config is None:
        nets = dataclasses.replace(nets, num_layers=resnet_layers(entries, str(folder)))
    tensors, decoder_path = tensors_of(entries, str(path)), folder / f"{decoder_file}.pth"
    build = naming(path)(nets.build_encoder)
    check_described(build, tensors, str(path))
    encoder = build()
    check_described(lambda: nets.build_decoder(encoder), read_tensors(decoder_path), str(decoder_path))
    decoder = nets.build_decoder(encoder)
    load_state(encoder, tensors, str(path))
    fill(decoder, decoder_path)
    return DepthModel(encoder, decoder, height, width, nets.min_depth, nets.max_depth, nets.resize).eval()


def newest_weights(folder: Path) -> Path:
    """The folder itself if it holds weights, else the last `weights_N` of the run that it is, or its `weights_best`
    where that is all that was kept.

    Raises:
        UserError: neither.
    """
    if (folder / "encoder.pth").exists():
        return folder
    found = {f.name: f for f in (folder / "models").glob("weights_*") if (f / "encoder.pth").exists()}
    epochs = [name for name in found if _NUMBERED.fullmatch(name)]
    if not epochs and "weights_best" not in found:
        raise UserError(f"{folder} holds no encoder.pth and no models/weights_N: give a folder that a trainer wrote")
    return found[max(epochs, key=lambda name: int(name.removeprefix("weights_")), default="weights_best")]


def resnet_layers(entries: Mapping[str, Any], source: str) -> int:
    """How many layers the ResNet in encoder.pth has, read off its blocks.

    Raises:
        UserError: no ResNet.
    """
    blocks = {name.split(".")[2] for name in entries if name.startswith("encoder.layer3.")}
    deep = "encoder.layer1.0.conv3.weight" in entries
    known = {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101, (36, True): 152}
    layers = known.get((len(blocks), deep))
    if layers is None:
        raise UserError(f"{source}: encoder.pth holds neither a hybrid encoder nor a ResNet")
    return layers
