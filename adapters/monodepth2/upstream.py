"""The functions that a patched clone of Monodepth2 calls: old behaviour on today's libraries, and `--encoder hybrid`.

    hybrid-encoder patch monodepth2 PATH

Every public function is called by one line in the clone; patches/README.md explains how these lines are inserted.
Modules of the clone are passed as their `globals()`, and never imported.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_encoder.errors import UserError

from .. import old_libraries
from ..old_libraries import Shadow

STACK = {
    "F": lambda module: Shadow(module, grid_sample=old_libraries.aligned_grid_sample),
    "optim": lambda module: Shadow(
        module,
        Adam=old_libraries.LazyAdam(module.Adam),
        lr_scheduler=Shadow(module.lr_scheduler, StepLR=old_libraries.BeforeEpochStepLR),
    ),
}
"""Shadows that Monodepth2 needs, and ManyDepth does not: Monodepth2 was written for torch 0.4 to 1.2."""


def mend(names: dict[str, Any]) -> None:
    """Mends a file of the clone; `names` is its `globals()`, after its imports."""
    old_libraries.mend(names)


def mend_trainer(names: dict[str, Any]) -> None:
    """Mends the trainer before its last import: of IPython, which it never uses and which need not be installed."""
    old_libraries.stand_in_for_ipython()
    old_libraries.mend(names, **STACK)


def parsed(options: Any) -> None:
    """Sets the device, and checks the hybrid encoder's options.

    Args:
        options: the clone's `MonodepthOptions`, with its `parser` and the parsed `options`.
    """
    old_libraries.settle(options, check_options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the hybrid encoder, and `--pose_model_type class_token`."""
    from .. import clone_options

    clone_options.add_options(parser)
    pose = _action(parser, "pose_model_type")
    pose.choices = [*(pose.choices or ()), "class_token"]


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Sets options that depend on others.

    Raises:
        UserError: options that contradict each other.
    """
    from .. import clone_options

    hybrid = options.encoder == "hybrid"
    clone_options.check_options(parser, options, hybrid)
    if options.head == "relu" and options.decoder != "dpt":
        raise UserError("--head relu is an end of the DPT decoder: use --encoder hybrid --decoder dpt")
    if hybrid and options.predictive_mask and options.decoder == "dpt":
        raise UserError("--predictive_mask is a U-Net on the encoder's five maps: add --decoder unet")
    if options.pose_model_type == "class_token":
        if not hybrid:
            raise UserError("--pose_model_type class_token needs DINO's class token: add --encoder hybrid")
        if options.pose_model_input != "pairs":
            raise UserError("--pose_model_type class_token looks at pairs: drop --pose_model_input all")
        if options.models_to_load is parser.get_default("models_to_load"):
            options.models_to_load = ["encoder", "depth", "pose"]


def networks(names: dict[str, Any], options: Any) -> Any:
    """The trainer's `networks`; the original's under `--encoder resnet`.

    Args:
        names: the trainer's `globals()`.
        options: parsed options.
    """
    if options.encoder == "resnet":
        return names["networks"]
    from ..clone_networks import HybridNetworks, Start, asked_nets, watched

    filled = options.load_weights_folder is not None and "encoder" in options.models_to_load
    start = Start(options.stage1, options.encoder_lr)
    nets = asked_nets(options, options.decoder, filled)
    return watched(names, HybridNetworks(names["networks"], nets, start=start))


def class_token_pose(encoder: Any) -> nn.Module:
    """The pose head on DINO's class tokens, which is called with a pair of images as the other pose nets are.

    Raises:
        UserError: the encoder has no DINO.
    """
    from ..clone_networks import PairPose

    if not encoder.class_width:
        raise UserError("--pose_model_type class_token needs DINO's class token, and this preset has no DINO")
    return PairPose(encoder)


def describe(trainer: Any, name: str, to_save: dict[str, Any]) -> None:
    """Adds a description of the nets to encoder.pth."""
    if name == "encoder":
        from .. import clone_weights

        clone_weights.describe(to_save, trainer.models["encoder"], trainer.opt)


def check_weights(model: nn.Module, tensors: dict[str, Any], path: str) -> None:
    """Checks that weights fill a net of ours.

    Raises:
        UserError: they do not.
    """
    from .. import clone_weights

    clone_weights.check_weights(model, tensors, path)


def fitting_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A loaded adam.pth; the optimiser's own state, if the file belongs to other parameters, as of another trainer."""
    from .. import clone_weights

    return clone_weights.fitting_state(state, optimizer)


def networks_in(names: dict[str, Any], folder: str) -> Any:
    """The `networks` that a folder of weights was written with.

    Args:
        names: `globals()` of the script.
        folder: holds encoder.pth.
    """
    from ..clone_networks import HybridNetworks, watched
    from ..clone_weights import nets_of, unusual_scales

    nets = nets_of(Path(folder).expanduser() / "encoder.pth")
    scales = unusual_scales(nets)
    theirs = nets.config is None and scales is None
    return names["networks"] if theirs else watched(names, HybridNetworks(names["networks"], nets, scales))


def pose_networks_in(names: dict[str, Any], folder: str, pose_encoder_path: str) -> tuple[Any, str]:
    """The `networks` that predict poses with a folder's weights, and the file of the pose encoder's weights.

    Pose nets that read the hybrid depth encoder have no pose_encoder.pth; the depth encoder is their pose encoder.
    """
    from ..clone_weights import nets_of

    path = Path(folder) / "encoder.pth"
    if Path(pose_encoder_path).exists() or not path.exists():
        return names["networks"], pose_encoder_path
    nets = nets_of(path)
    if nets.config is None:
        return names["networks"], pose_encoder_path
    return _depth_encoder_poses(names["networks"], nets, Path(folder)), str(path)


def accept_folders(parser: argparse.ArgumentParser) -> None:
    """Lets `test_simple.py --model_name` accept folders of weights besides the published names."""
    action = _action(parser, "model_name")
    known = list(action.choices or ())

    def name_or_folder(text: str) -> str:
        folder = Path(text).expanduser()
        if text in known:
            return text
        if (folder / "encoder.pth").is_file():
            return str(folder.resolve())
        raise argparse.ArgumentTypeError(f"{text}: no folder with encoder.pth, and none of {', '.join(known)}")

    action.choices, action.type = None, name_or_folder
    action.metavar, action.help = "NAME", f"folder of weights, or a published model: {', '.join(known)}"


def _action(parser: argparse.ArgumentParser, name: str) -> argparse.Action:
    return next(action for action in parser._actions if action.dest == name)


def _depth_encoder_poses(networks: Any, nets: Any, folder: Path) -> Shadow:
    """`networks` whose pose encoder is the hybrid depth encoder, and whose pose decoder takes that encoder's output."""
    from hybrid_encoder.weights.reading import read_tensors

    from ..clone_networks import HybridNetworks, PairPose

    ours = HybridNetworks(networks, nets)
    encoder: Any = ours.encoder(0, False)
    class_token = "linear.weight" in read_tensors(folder / "pose.pth")

    class PairEncoder(nn.Module):
        num_ch_enc = encoder.num_ch_enc

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
            own = self.encoder.state_dict()
            return self.encoder.load_state_dict({k: v for k, v in state_dict.items() if k in own}, strict, assign)

        def forward(self, images: Tensor) -> list[Any]:
            pair = images.chunk(2, dim=1)
            return list(pair) if class_token else [self.encoder(image) for image in pair]

    if class_token:
        decoder: nn.Module = PairPose(encoder)
    else:
        decoder = ours.pose_decoder(encoder.num_ch_enc, 2)
    forward: Callable[[Any], Any] = decoder.forward
    decoder.forward = lambda features: forward(features[0])
    return Shadow(networks, ResnetEncoder=lambda *_, **__: PairEncoder(), PoseDecoder=lambda *_, **__: decoder)
