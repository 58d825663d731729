"""What patched clones write into their files of weights and check in those that they load, shared by both hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_encoder.errors import UserError
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.nets import DepthNets
from hybrid_encoder.model.pose import ClassTokenPose
from hybrid_encoder.stage2.checkpoint import check_config, described_nets, encoder_extras
from hybrid_encoder.weights.reading import load_state, read_checkpoint


def nets_of(path: str | Path) -> DepthNets:
    """The nets that an encoder's file is of.

    Raises:
        UserError: missing or damaged.
    """
    return described_nets(read_checkpoint(path), str(path))


def unusual_scales(nets: DepthNets) -> tuple[int, ...] | None:
    """Disparity scales of the decoder that goes with an original's ResNet.

    Returns:
        None where they are all four, as the originals' scripts take for granted; and for a hybrid encoder.
    """
    return None if nets.config is not None or nets.scales == DepthNets.scales else nets.scales


def describe(to_save: dict[str, Any], encoder: Any, options: Any) -> None:
    """Adds to an encoder's state dict what its nets are, so that its file can be opened without the options of the run.

    A ResNet's file stays as the original writes it, unless scales or depth limits are unusual.
    """
    nets = encoder.nets if hasattr(encoder, "nets") else _their_nets(options)
    if nets is None or nets == DepthNets():
        return
    extras = encoder_extras(nets, options.height, options.width)
    to_save.update({name: extras[name] for name in extras if name not in ("height", "width")})


def _their_nets(options: Any) -> DepthNets | None:
    """What an original's own nets are; None where they are such as only the original can open."""
    try:
        return DepthNets(scales=tuple(options.scales), min_depth=options.min_depth, max_depth=options.max_depth)
    except UserError:
        return None


def check_weights(model: nn.Module, tensors: dict[str, Any], path: str) -> None:
    """Refuses a file that does not fill a net of ours, and one of ours for an original's net.

    Else an original's own nets keep what a file lacks, as they do: of a file of ours they would keep everything.

    Raises:
        UserError: what does not fit.
    """
    if hasattr(model, "nets") or isinstance(model, (DPTDecoder, ClassTokenPose)):
        check_config(getattr(model, "config", None), tensors, path)
        load_state(model, {name: value for name, value in tensors.items() if isinstance(value, Tensor)}, path)
    elif tensors.get("hybrid_config"):
        option = "--teacher_encoder" if Path(path).name == "mono_encoder.pth" else "--encoder"
        raise UserError(f"{path} holds a hybrid encoder: add {option} hybrid")
    elif set(tensors) == {"linear.weight", "linear.bias"}:
        raise UserError(f"{path} reads poses from class tokens: add --pose_model_type class_token")


def fitting_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A loaded optimizer state, or the optimizer's own one where the loaded one is of other parameters."""
    own = optimizer.state_dict()
    sizes = [[len(group["params"]) for group in found["param_groups"]] for found in (state, own)]
    if sizes[0] == sizes[1]:
        return state
    print("adam.pth is of other parameters: the optimizer starts anew")
    return own
