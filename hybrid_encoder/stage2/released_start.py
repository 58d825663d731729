"""The authors' folders as the weights that a run starts from.

What their nets compute is read off the files; where a run's options build other nets, the message says which options
build these.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from ..config import HybridEncoderConfig, preset
from ..errors import UserError
from ..model.contract import DepthEncoder
from ..model.pose import ClassTokenPose
from ..model.resnet import ResnetEncoder
from ..released.single_frame import load_released, load_released_pose
from ..weights.reading import load_state

Nets = Mapping[str, nn.Module]
"""Nets by the names of their files: "encoder", "depth", "pose_encoder", "pose"."""

_COMPARED = (
    "clip", "image_tower", "dino", "dino_blocks", "fusion", "convs2_output_padding", "fusion_channels", "alignment",
    "prompt", "num_tokens", "normalization", "dino_normalization", "text_norm", "position_resize", "decoder_channels",
    "stride4_skip", "decoder_style",
)  # fmt: skip
"""The fields of a config that say which net it is; others say what trains and how it starts."""


def load_released_weights(nets: Nets, folder: Path) -> None:
    """Fills the nets of a single-frame run from a stage-2 folder of the authors.

    Raises:
        UserError: an unreadable folder, or one of other nets than these.
    """
    encoder, decoder = load_released(folder)
    assert decoder is not None
    theirs = {"encoder": encoder, "depth": decoder, **released_poses(folder)}
    take_over(nets, theirs, folder, released_options(theirs))


def released_poses(folder: Path) -> dict[str, nn.Module]:
    """The pose nets of a folder of the authors."""
    encoder, head = load_released_pose(folder)
    return {"pose": head} if encoder is None else {"pose_encoder": encoder, "pose": head}


def take_over(nets: Nets, theirs: Nets, folder: Path, options: list[str]) -> None:
    """Fills nets with the tensors of the authors' nets of the same names.

    Args:
        nets: as a run's options build them.
        folder: that theirs are of, for messages.
        options: those that build theirs.

    Raises:
        UserError: nets that compute something else; none is filled then.
    """
    for name, net in nets.items():
        if name not in theirs or _kind(net) != _kind(theirs[name]):
            raise UserError(f"{folder} holds another {name} than these options build: give {' '.join(options)}")
    for name, net in nets.items():
        load_state(net, theirs[name].state_dict(), str(folder / f"{name}.pth"))


def released_options(theirs: Nets) -> list[str]:
    """The options of a trainer that build these nets of the authors."""
    encoder = theirs["encoder"]
    assert isinstance(encoder, DepthEncoder)
    assert encoder.config is not None
    changes = config_options(preset("released"), encoder.config)
    return ["--encoder hybrid --preset released", *changes, "--head relu", pose_options(theirs)]


def pose_options(theirs: Nets) -> str:
    """The options that build these pose nets of the authors."""
    if isinstance(theirs["pose"], ClassTokenPose):
        return "--pose_model_type class_token"
    assert isinstance(theirs["pose_encoder"], ResnetEncoder)
    return f"--pose_model_type separate_resnet --pose_normalization {theirs['pose_encoder'].normalization}"


def config_options(base: HybridEncoderConfig, wanted: HybridEncoderConfig, option: str = "encoder_option") -> list[str]:
    """The options that make one config another.

    >>> config_options(preset("paper"), preset("paper").replace(num_tokens=16, dino=None))
    ['--encoder_option dino=null', '--encoder_option num_tokens=16']
    """
    values = dataclasses.asdict(wanted)
    differing = [name for name in _COMPARED if getattr(base, name) != values[name]]
    return [f"--{option} {name}={_as_text(values[name])}" for name in differing]


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _kind(net: nn.Module) -> tuple[object, ...]:
    """What is equal for nets that compute the same with the same tensors."""
    config = net.config if isinstance(net, DepthEncoder) else None
    described = None if config is None else tuple(getattr(config, name) for name in _COMPARED)
    return type(net), described, *(getattr(net, name, None) for name in ("head", "normalization", "num_layers"))
