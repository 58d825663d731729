"""Weights in the original's layout: `models/weights_N/{encoder,depth,pose_encoder,pose,adam}.pth`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hybrid_encoder.config import HybridEncoderConfig
from hybrid_encoder.decoder import DPTDecoder
from hybrid_encoder.depth_model import DepthModel
from hybrid_encoder.encoder import HybridEncoder
from hybrid_encoder.engine.state import whole_folder, write_torch
from hybrid_encoder.errors import UserError
from hybrid_encoder.resnet import ResnetEncoder, UNetDecoder
from hybrid_encoder.weights import load_state, read_checkpoint, read_tensors


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
        path = folder / f"{name}.pth"
        load_state(module, read_tensors(path), str(path))


def load_depth_model(folder: str | Path, encoder_file: str = "encoder", decoder_file: str = "depth") -> DepthModel:
    """The depth net of a trainer's folder, in eval mode: ours, a patched original's, or an original's ResNet.

    Args:
        folder: weights_N, or a run's folder, of which the last epoch is taken.
        encoder_file, decoder_file: "mono_encoder" and "mono_depth" for ManyDepth's teacher.

    Raises:
        UserError: no such folder, missing or damaged files.
    """
    folder = newest_weights(Path(folder))
    entries = read_checkpoint(folder / f"{encoder_file}.pth")
    sizes = entries if "height" in entries else read_checkpoint(folder / "encoder.pth")
    if "height" not in sizes or "width" not in sizes:
        raise UserError(f"{folder / encoder_file}.pth says no height and width: expected a depth trainer's encoder.pth")
    decoder_config = _parse(entries.get("decoder_config"), folder)
    scales = tuple(decoder_config.get("scales", (0, 1, 2, 3)))
    encoder: nn.Module
    decoder: nn.Module
    if entries.get("hybrid_config"):
        config = HybridEncoderConfig.from_dict(_parse(entries["hybrid_config"], folder))
        encoder = HybridEncoder(config.without_downloads())
    else:
        encoder = ResnetEncoder(resnet_layers(entries, str(folder)), "random")
    if decoder_config.get("kind") == "dpt" and isinstance(encoder, HybridEncoder):
        decoder = DPTDecoder(encoder, scales, decoder_config["head"])
    else:
        decoder = UNetDecoder(encoder.num_ch_enc, scales)  # type: ignore[arg-type]
    load_state(encoder, read_tensors(folder / f"{encoder_file}.pth"), str(folder / f"{encoder_file}.pth"))
    path = folder / f"{decoder_file}.pth"
    load_state(decoder, read_tensors(path), str(path))
    model = DepthModel(
        encoder,
        decoder,
        int(sizes["height"]),
        int(sizes["width"]),
        decoder_config.get("min_depth", 0.1),
        decoder_config.get("max_depth", 100.0),
    )
    return model.eval()


def _parse(text: Any, folder: Path) -> dict[str, Any]:
    """The JSON object in an entry of encoder.pth; empty where there is none."""
    try:
        values = json.loads(text or "{}")
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder}: the config in its encoder.pth is damaged ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{folder}: the config in its encoder.pth is no JSON object")
    return values


def newest_weights(folder: Path) -> Path:
    """The folder itself if it holds weights, else the last `weights_N` of the run that it is.

    Raises:
        UserError: neither.
    """
    if (folder / "encoder.pth").exists():
        return folder
    numbered = [f for f in (folder / "models").glob("weights_*") if f.name.removeprefix("weights_").isdigit()]
    whole = [f for f in numbered if (f / "encoder.pth").exists()]
    if not whole:
        raise UserError(f"{folder} holds no encoder.pth and no models/weights_N: give a folder that a trainer wrote")
    return max(whole, key=lambda f: int(f.name.removeprefix("weights_")))


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
