"""Weights in the original's layout: `models/weights_N/{encoder,depth,pose_encoder,pose,adam}.pth`."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..config import HybridEncoderConfig, check_scales
from ..errors import UserError, naming
from ..model.decoder import DPTDecoder
from ..model.depth_model import DepthModel
from ..model.encoder import HybridEncoder
from ..model.resnet import ResnetEncoder, UNetDecoder
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
from .options import DepthOptions

_EPOCH = re.compile(r"weights_(0|[1-9][0-9]*)")


def weights_folder(run: Path, epoch: int | str) -> Path:
    """Where the weights of an epoch lie in a run's folder."""
    return run / "models" / f"weights_{epoch}"


def save_weights(
    folder: Path, files: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, extras: Mapping[str, Any]
) -> None:
    """Writes every net to its file; `extras` go into encoder.pth. The folder is replaced as a whole."""
    with whole_folder(folder) as partial:
        for name, module in files.items():
            content = dict(module.state_dict())
            if name == "encoder":
                content.update(extras)
            write_torch(partial / f"{name}.pth", content)
        write_torch(partial / "adam.pth", optimizer.state_dict())


def encoder_extras(
    encoder: nn.Module, decoder: nn.Module, height: int, width: int, min_depth: float, max_depth: float
) -> dict[str, Any]:
    """What encoder.pth says of the nets besides tensors, so that a folder can be opened without the options of its
    run."""
    kind = "dpt" if isinstance(decoder, DPTDecoder) else "unet"
    decoder_config = {
        "kind": kind,
        "scales": list(decoder.scales),  # type: ignore[arg-type]
        "head": decoder.head if isinstance(decoder, DPTDecoder) else "sigmoid",
        "min_depth": min_depth,
        "max_depth": max_depth,
    }
    extras: dict[str, Any] = {"height": height, "width": width, "decoder_config": json.dumps(decoder_config)}
    if isinstance(encoder, HybridEncoder):
        extras["hybrid_config"] = json.dumps(encoder.config.without_downloads().to_dict())
    return extras


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
    if isinstance(module, HybridEncoder):
        check_config(module, entries, str(path))
    load_state(module, tensors_of(entries, str(path)), str(path))


def _check_single_frame(entries: Mapping[str, Any], path: Path) -> None:
    if "min_depth_bin" in entries:
        raise UserError(f"{path} is of a two-frame run: its single-frame teacher is the mono_encoder.pth beside it")


def check_same_depth(options: DepthOptions, path: Path) -> None:
    """Raises `UserError` where an encoder's file says that its depth net means other depths by the same numbers."""
    entries = read_checkpoint(path)
    if "decoder_config" not in entries:
        return
    described = NetDescription.of_entries(entries, str(path))
    for name in ("min_depth", "max_depth", *(("head",) if options.decoder_kind == described.kind == "dpt" else ())):
        theirs = getattr(described, name)
        if getattr(options, name) != theirs:
            raise UserError(f"{path} was trained with --{name} {theirs}: give the same, not {getattr(options, name)}")


def check_config(encoder: HybridEncoder, entries: Mapping[str, Any], source: str) -> None:
    """Raises `UserError` where a file says that its hybrid encoder computes something else with the same tensors."""
    saved = NetDescription.of_entries(entries, source).config
    if saved is not None:
        encoder.config.check_same_features(saved, source)


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
    described = NetDescription.of_entries(entries, str(path))
    sizes_from = path if "height" in entries else folder / "encoder.pth"
    height, width = stated_size(entries if sizes_from == path else read_checkpoint(sizes_from), str(sizes_from))

    def encoder_of_file() -> nn.Module:
        if described.config is None:
            return ResnetEncoder(resnet_layers(entries, str(folder)), "random")
        with naming(path):
            return HybridEncoder(described.config)

    tensors, decoder_path = tensors_of(entries, str(path)), folder / f"{decoder_file}.pth"
    check_described(encoder_of_file, tensors, str(path))
    encoder = encoder_of_file()
    check_described(lambda: described.decoder(encoder), read_tensors(decoder_path), str(decoder_path))
    decoder = described.decoder(encoder)
    load_state(encoder, tensors, str(path))
    fill(decoder, decoder_path)
    return DepthModel(encoder, decoder, height, width, described.min_depth, described.max_depth).eval()


@dataclass(frozen=True)
class NetDescription:
    """What encoder.pth says of its nets besides tensors; the defaults are the original's nets.

    Attributes:
        config: of the hybrid encoder; None: a ResNet.
        kind: of the decoder, "dpt" or "unet".
        scales: of its disparities.
        head: end of a DPT decoder.
        min_depth, max_depth: limits of depth.
    """

    config: HybridEncoderConfig | None = None
    kind: str = "unet"
    scales: tuple[int, ...] = (0, 1, 2, 3)
    head: str = "sigmoid"
    min_depth: float = 0.1
    max_depth: float = 100.0

    @classmethod
    def of_entries(cls, entries: Mapping[str, Any], source: str) -> NetDescription:
        """From what `read_checkpoint` returns.

        Args:
            source: names the file in messages.

        Raises:
            UserError: no such nets can be built.
        """
        values = stated_json(entries, "decoder_config", source)
        config = stated_json(entries, "hybrid_config", source)
        try:
            found = cls(HybridEncoderConfig.from_dict(config).without_downloads() if config else None)
            found = dataclasses.replace(found, **values)
            if found.kind not in ("dpt", "unet") or found.head not in ("sigmoid", "relu"):
                raise UserError(f"no decoder {found.kind!r} with the head {found.head!r}")
            if not isinstance(found.scales, list | tuple) or not all(type(scale) is int for scale in found.scales):
                raise UserError(f"scales={found.scales!r}: expected whole numbers")
            check_scales(found.scales)
            if not 0 < found.min_depth < found.max_depth < math.inf:
                raise UserError(f"depth from {found.min_depth} to {found.max_depth}")
            if found.kind == "dpt" and found.config is None:
                raise UserError("a DPT decoder reads a hybrid encoder, and none is described")
        except (UserError, TypeError) as error:  # TypeError: entries or values of other kinds
            raise UserError(f"{source} does not describe nets of this package: {error}") from error
        return dataclasses.replace(found, scales=tuple(found.scales))

    def decoder(self, encoder: nn.Module) -> nn.Module:
        """The decoder for an encoder of this description, its weights random."""
        if self.kind == "dpt":
            return DPTDecoder(cast(HybridEncoder, encoder), self.scales, cast(Any, self.head))
        return UNetDecoder(cast(Any, encoder).num_ch_enc, self.scales)


def newest_weights(folder: Path) -> Path:
    """The folder itself if it holds weights, else the last `weights_N` of the run that it is, or its `weights_best`
    where that is all that was kept.

    Raises:
        UserError: neither.
    """
    if (folder / "encoder.pth").exists():
        return folder
    found = {f.name: f for f in (folder / "models").glob("weights_*") if (f / "encoder.pth").exists()}
    epochs = [name for name in found if _EPOCH.fullmatch(name)]
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
