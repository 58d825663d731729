"""Describes and checks the weights that patched clones of Monodepth2 and ManyDepth save and load."""

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
    """The nets of which a file holds the encoder.

    Raises:
        UserError: a missing or damaged file.
    """
    return described_nets(read_checkpoint(path), str(path))


def unusual_scales(nets: DepthNets) -> tuple[int, ...] | None:
    """Disparity scales of the decoder of an original's ResNet, if they are not the usual four.

    Returns:
        None for all four scales, which the originals' scripts assume; and for a hybrid encoder.
    """
    return None if nets.config is not None or nets.scales == DepthNets.scales else nets.scales


def describe(to_save: dict[str, Any], encoder: Any, options: Any) -> None:
    """Adds a description of the nets to an encoder's state dict, so that its file opens without the options of the run.

    A ResNet's file is as the original writes it, unless scales or depth limits are unusual.
    """
    nets = encoder.nets if hasattr(encoder, "nets") else _their_nets(options)
    if nets is None or nets == DepthNets():
        return
    extras = encoder_extras(nets, options.height, options.width)
    to_save.update({name: extras[name] for name in extras if name not in ("height", "width")})


def _their_nets(options: Any) -> DepthNets | None:
    """The description of an original's nets; None if our classes cannot build such nets."""
    try:
        return DepthNets(scales=tuple(options.scales), min_depth=options.min_depth, max_depth=options.max_depth)
    except UserError:
        return None


def check_weights(model: nn.Module, tensors: dict[str, Any], path: str) -> None:
    """Refuses a file that does not fill a net of ours, and one of ours for an original's net.

    An original's nets keep the values that a file lacks, as they always do: of a file of ours, that would be all
    values.

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
    """A loaded optimiser state; the optimiser's own state, if the loaded one belongs to other parameters."""
    own = optimizer.state_dict()
    sizes = [[len(group["params"]) for group in found["param_groups"]] for found in (state, own)]
    if sizes[0] == sizes[1]:
        return state
    print("adam.pth is of other parameters: the optimizer starts anew")
    return own
