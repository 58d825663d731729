"""The functions that a patched clone of Mono-ViFI calls: today's libraries, any device, and `--backbone Hybrid`.

    hybrid-encoder patch mono_vifi PATH

Every public function is called by one line in the clone; patches/README.md explains how these lines are inserted.
Modules of the clone are passed as their `globals()`, and never imported. The hybrid encoder gives Mono-ViFI's fusion
module and U-Net decoder five maps, as a ResNet-18 does. Sources: Mono-ViFI, ECCV 2024, and docs/METHOD.md.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from torch import nn

from hybrid_encoder.errors import UserError

from .. import old_libraries
from ..old_libraries import Shadow
from . import BACKBONE


def mend(names: dict[str, Any]) -> None:
    """Mends a file of the clone; `names` is its `globals()`, after its imports.

    `transforms` does not change: Mono-ViFI was written for today's `ColorJitter`.
    """
    if not torch.cuda.is_available():
        old_libraries.use_device(argparse.Namespace(no_cuda=True))
    old_libraries.mend(names, torch=_torch, transforms=lambda module: module)


def use_device(options: argparse.Namespace) -> None:
    """Makes `.cuda()` do nothing under a script's `--no_cuda`."""
    old_libraries.use_device(options)


def accept_local_rank(parser: argparse.ArgumentParser) -> None:
    """Accepts a process's number from today's launchers: as `--local-rank`, or in the variable LOCAL_RANK."""
    parser.add_argument("--local-rank", dest="local_rank", type=int, help="as --local_rank")
    parser.set_defaults(local_rank=int(os.environ.get("LOCAL_RANK", "0")))


def stem(path: str) -> str:
    """A file's name without folder and suffix; test_video.py assigns it only with `--save_npy`, but always needs it."""
    return os.path.splitext(os.path.basename(path))[0]


class CheckedParser:
    """The clone's parser with the hybrid encoder's options; it refuses options that contradict each other."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        from ..clone_options import add_encoder_options

        self.parser = parser
        accept_hybrid(parser)
        add_encoder_options(parser.add_argument_group("hybrid encoder"))

    def parse_args(self) -> argparse.Namespace:
        """The options of the command line and of the file that `--config` names."""
        from ..clone_options import check_unused

        options = self.parser.parse_args()
        if options.backbone != BACKBONE:
            try:
                check_unused(options, f"--backbone {BACKBONE}")
            except UserError as error:
                self.parser.error(str(error))
        return options


def add_options(parser: argparse.ArgumentParser) -> CheckedParser:
    """The parser in place of the trainer's: with `--backbone Hybrid` and the hybrid encoder's options."""
    return CheckedParser(parser)


def accept_hybrid(parser: argparse.ArgumentParser) -> None:
    """Adds Hybrid to the choices of `--backbone`."""
    backbone = next(action for action in parser._actions if action.dest == "backbone")
    backbone.choices = [*(backbone.choices or ()), BACKBONE]


def add_nets(names: dict[str, Any], options: Any, models: dict[str, nn.Module]) -> None:
    """Adds encoder and decoder to a training run's models under `--backbone Hybrid`; the clone adds all others.

    Args:
        names: the trainer's `globals()`.
    """
    if options.backbone == BACKBONE:
        from . import clone_networks

        models["encoder"], models["depth"] = clone_networks.new_nets(names, options)


def parameters(options: Any, models: dict[str, nn.Module], given: list[nn.Parameter]) -> list[Any]:
    """The parameters for the optimiser: the given ones, under `--backbone Hybrid` in groups.

    Raises:
        UserError: the hybrid encoder was asked for, and the clone has built another one.
    """
    if options.backbone != BACKBONE:
        return given
    from . import clone_networks

    return clone_networks.grouped(options, models, given)


def describe(options: Any, to_save: dict[str, Any], models: dict[str, nn.Module]) -> None:
    """Adds a description of the hybrid encoder to a checkpoint."""
    if options.backbone == BACKBONE:
        from . import clone_networks

        to_save.update(clone_networks.description(options, models))


def check_weights(models: dict[str, nn.Module], checkpoint: dict[str, Any], path: str) -> None:
    """Checks that a checkpoint fills its encoder: the clone itself would keep the values that the file lacks.

    Raises:
        UserError: it does not fit.
    """
    from . import clone_networks

    clone_networks.check_weights(models, checkpoint, path)


def nets_in(names: dict[str, Any], options: Any, checkpoint: dict[str, Any]) -> tuple[Any, Any]:
    """Encoder and decoder that a checkpoint was written with; (None, None) where the clone builds them.

    Args:
        names: `globals()` of the script.
        options: of the script; `backbone` and `pretrained_path` are read.

    Raises:
        UserError: the checkpoint has another backbone than the one that was asked for.
    """
    from . import clone_networks

    return clone_networks.described_nets(names, options, checkpoint)


def _torch(module: Any) -> Shadow:
    """A shadow of torch which, without CUDA, takes the CPU for every CUDA device and counts it as one GPU."""
    cpu_only = old_libraries.shadow_torch(module)

    def device(kind: Any, *index: Any) -> torch.device:
        absent = str(kind).startswith("cuda") and not cpu_only.cuda.is_available()
        return torch.device("cpu") if absent else torch.device(kind, *index)

    cuda = Shadow(cpu_only.cuda, device_count=lambda: max(1, module.cuda.device_count()))
    return Shadow(cpu_only, device=device, cuda=cuda)
