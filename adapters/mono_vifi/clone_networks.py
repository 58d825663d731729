"""The hybrid encoder as one of Mono-ViFI's models: single-frame and multi-frame nets, shared or not."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from hybrid_encoder.errors import UserError
from hybrid_encoder.model.contract import DepthEncoder
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.model.nets import DepthNets
from hybrid_encoder.stage2 import checkpoint as weights
from hybrid_encoder.weights.reading import check_described, load_state

from ..clone_options import asked_config
from . import BACKBONE


def new_nets(names: dict[str, Any], options: Any) -> tuple[nn.Module, nn.Module]:
    """The nets that a training run starts with: our encoder and the clone's U-Net decoder.

    Args:
        names: the trainer's `globals()`.

    Raises:
        UserError: no such encoder can be built.
    """
    config = asked_config(options, filled=bool(options.pretrained_path) or _resumes(options))
    encoder = HybridEncoder(config.replace(pyramid=True))
    if options.stage1 is not None:
        from hybrid_encoder.stage1.checkpoint import load_stage1

        load_stage1(encoder, options.stage1)
    return encoder, names["monodepth2"].DepthDecoder(encoder.num_ch_enc, range(options.num_scales))


def grouped(options: Any, models: dict[str, nn.Module], given: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Groups of the given parameters that are trainable, each parameter once; encoders have our trainers' groups.

    Mono-ViFI lists the parameters of shared nets twice, so that its optimiser would change them twice a step.

    Raises:
        UserError: no model is a hybrid encoder.
    """
    encoders = _hybrid_encoders(models)
    if not encoders:
        raise UserError(
            f"--backbone {BACKBONE} was asked for and not built: this clone builds its encoder elsewhere. Put the "
            "encoder in by hand, as README says under 'Your own trainer'"
        )
    rate = options.learning_rate if options.encoder_lr is None else options.encoder_lr
    decay = options.weight_decay if options.optimizer == "adamw" else 0.0
    groups = [group for encoder in encoders.values() for group in encoder.parameter_groups(rate, decay)]
    own = {id(p) for group in groups for p in group["params"]}
    rest = {id(p): p for p in given if p.requires_grad and id(p) not in own}
    return [*groups, {"params": list(rest.values())}]


def description(options: Any, models: dict[str, nn.Module]) -> dict[str, Any]:
    """The description of the hybrid encoder in a checkpoint, as in encoder.pth of our trainers."""
    (encoder, *_) = _hybrid_encoders(models).values()
    nets = DepthNets(
        config=encoder.config,
        scales=tuple(range(options.num_scales)),
        min_depth=options.min_depth,
        max_depth=options.max_depth,
    )
    return weights.encoder_extras(nets, options.height, options.width)


def check_weights(models: dict[str, nn.Module], checkpoint: dict[str, Any], path: str) -> None:
    """Checks that a checkpoint fills its encoders, and that it is not one of ours for an encoder of the clone.

    Raises:
        UserError: it does not fit.
    """
    encoders = _hybrid_encoders(models)
    if not encoders and checkpoint.get("hybrid_config"):
        raise UserError(f"{path} holds a hybrid encoder: add --backbone {BACKBONE}")
    for name, encoder in encoders.items():
        weights.check_config(encoder.config, checkpoint, path)
        load_state(encoder, checkpoint.get(name, {}), f"{path}, {name}")


def described_nets(names: dict[str, Any], options: Any, checkpoint: dict[str, Any]) -> tuple[Any, Any]:
    """As `upstream.nets_in`."""
    path = str(options.pretrained_path)
    nets = weights.described_nets(checkpoint, path)
    if options.backbone != BACKBONE:
        check_weights({}, checkpoint, path)
        return None, None
    if nets.config is None:
        raise UserError(f"{path} holds no hybrid encoder: give the --backbone that it was trained with")
    check_described(nets.build_encoder, checkpoint["encoder"], path)
    encoder = nets.build_encoder()
    return encoder, names["monodepth2"].DepthDecoder(encoder.num_ch_enc, range(1))


def _hybrid_encoders(models: dict[str, nn.Module]) -> dict[str, Any]:
    """Hybrid encoders by the first of their names, without wrappers for several processes."""
    found: dict[int, tuple[str, Any]] = {}
    for name, model in models.items():
        net: Any = getattr(model, "module", model)
        if isinstance(net, DepthEncoder) and net.config is not None:
            found.setdefault(id(net), (name, net))
    return dict(found.values())


def _resumes(options: Any) -> bool:
    """Whether the clone will fill all of its models from the run's checkpoint."""
    return bool(options.resume) and os.path.exists(os.path.join(options.log_dir, options.exp_name, "ckpt.pth"))
