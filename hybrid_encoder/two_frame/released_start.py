"""Starts a two-frame run from the weights in the authors' folders."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..config import HybridEncoderConfig
from ..model.depth_model import DepthModel
from ..released.single_frame import load_released_single_frame, load_released_teacher
from ..released.two_frame import ReleasedMatching, load_released_matching
from ..stage2.released_start import config_options, pose_options, released_options, released_poses, take_over
from ..weights.reading import load_state
from .encoder import HybridMatchingEncoder
from .model import TwoFrameDepth


def load_released_two_frame(folder: Path, model: TwoFrameDepth) -> None:
    """Fills all nets and the range of the bins from a ManyDepth folder of the authors.

    Raises:
        UserError: an unreadable folder, or nets that differ from the model's.
    """
    read = load_released_matching(folder)
    theirs = {
        "encoder": read.encoder,
        "depth": read.decoder,
        **_teacher(load_released_teacher(folder), "mono_"),
        **released_poses(folder),
    }
    encoder, nets = model.net.encoder, model.files()
    if isinstance(encoder, HybridMatchingEncoder) and encoder.num_depth_bins == read.num_bins:
        nets["encoder"] = encoder.encoder
    take_over(nets, theirs, folder, _options(read, theirs))
    joining = {"0.weight": read.join_weight, "0.bias": read.join_bias}
    load_state(encoder.reduce_conv, joining, str(folder / "encoder.pth"))
    model.bins.near.fill_(read.min_depth_bin)
    model.bins.far.fill_(read.max_depth_bin)
    encoder.compute_depth_bins(read.min_depth_bin, read.max_depth_bin)


def load_released_teacher_nets(folder: Path, model: TwoFrameDepth) -> None:
    """Fills teacher and pose nets from a stage-2 or ManyDepth folder of the authors.

    Raises:
        UserError: as `load_released_two_frame`.
    """
    theirs = {**_teacher(load_released_single_frame(folder)), **released_poses(folder)}
    config = theirs["encoder"].config
    assert isinstance(config, HybridEncoderConfig)
    changes = config_options(model.options.config(), config, "teacher_encoder_option")
    options = ["--teacher_encoder hybrid", *changes, "--head relu", pose_options(theirs)]
    take_over(model.teacher.files(), theirs, folder, options)


def _teacher(model: DepthModel, prefix: str = "") -> dict[str, nn.Module]:
    return {f"{prefix}encoder": model.encoder, f"{prefix}depth": model.decoder}


def _options(read: ReleasedMatching, theirs: dict[str, nn.Module]) -> list[str]:
    """The trainer's options that build the nets of a folder."""
    teacher = theirs["mono_encoder"].config
    assert isinstance(teacher, HybridEncoderConfig)
    own = config_options(read.encoder.config, teacher, "teacher_encoder_option")
    return [*released_options(theirs), "--teacher_encoder hybrid", *own, f"--num_depth_bins {read.num_bins}"]
