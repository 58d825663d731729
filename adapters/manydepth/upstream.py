"""The functions that a patched clone of ManyDepth calls: old behaviour on today's libraries, and `--encoder hybrid`.

    hybrid-encoder patch manydepth PATH

Every public function is called by one line in the clone; patches/README.md explains how these lines are inserted.
Modules of the clone are passed as their `globals()`, and never imported.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from torch import nn

from hybrid_encoder.errors import UserError

from .. import old_libraries
from ..old_libraries import Shadow


def mend(names: dict[str, Any]) -> None:
    """Mends a file of the clone; `names` is its `globals()`, after its imports."""
    old_libraries.mend(names, SummaryWriter=_one_image_writer, optim=_optim, torch=_torch)


def parsed(options: Any) -> None:
    """Sets the device, and checks the hybrid encoder's options.

    Args:
        options: the clone's `MonodepthOptions`, with its `parser` and the parsed `options`.
    """
    old_libraries.settle(options, check_options)


def script_of_root(file: str) -> str:
    """Lets `export_gt_depth.py` find the modules beside it however it is started, and the splits in the root folder.

    Args:
        file: `__file__` of the script.

    Returns:
        The `__file__` that the script would have in the root folder.
    """
    folder = Path(file).resolve().parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return str(folder.parent / Path(file).name)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the hybrid encoder, for the two-frame net and for its teacher."""
    from .. import clone_options

    group = clone_options.add_options(parser)
    group.add_argument(
        "--teacher_encoder", choices=("resnet", "hybrid"), default="resnet", help="encoder of the single-frame teacher"
    )
    group.add_argument("--teacher_decoder", choices=("dpt", "unet"), help="its decoder (hybrid: dpt)")


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Sets options that depend on others.

    Raises:
        UserError: options that contradict each other.
    """
    from .. import clone_options

    clone_options.check_options(parser, options, "hybrid" in (options.encoder, options.teacher_encoder))
    if options.teacher_encoder != "hybrid" and options.teacher_decoder == "dpt":
        raise UserError("--teacher_decoder dpt reads the hybrid encoder's levels: add --teacher_encoder hybrid")
    options.teacher_decoder = options.teacher_decoder or ("dpt" if options.teacher_encoder == "hybrid" else "unet")
    if options.head == "relu" and "dpt" not in (options.decoder, options.teacher_decoder):
        raise UserError("--head relu is an end of the DPT decoder: use --encoder hybrid --decoder dpt")


def networks(names: dict[str, Any], options: Any) -> Any:
    """The trainer's `networks`; the original's if neither encoder is a hybrid encoder.

    Args:
        names: the trainer's `globals()`.
        options: parsed options.
    """
    if "hybrid" not in (options.encoder, options.teacher_encoder):
        return names["networks"]
    from hybrid_encoder.model.nets import DepthNets

    from ..clone_networks import Start, asked_nets, watched
    from .clone_networks import MatchingNetworks

    student = teacher = DepthNets()
    loaded = options.models_to_load if options.load_weights_folder is not None else []
    if options.encoder == "hybrid":
        student = asked_nets(options, options.decoder, "encoder" in loaded)
    if options.teacher_encoder == "hybrid":
        filled = options.mono_weights_folder is not None or "mono_encoder" in loaded
        teacher = asked_nets(options, options.teacher_decoder, filled)
    start = Start(options.stage1, options.encoder_lr)
    return watched(names, MatchingNetworks(names["networks"], student, teacher, start=start))


def describe(trainer: Any, name: str, to_save: dict[str, Any]) -> None:
    """Adds descriptions of their nets to encoder.pth and mono_encoder.pth; none for the original's usual nets."""
    from .. import clone_weights

    if name not in ("encoder", "mono_encoder"):
        return
    encoder = trainer.models[name]
    clone_weights.describe(to_save, encoder, trainer.opt)
    matching = {"binning": trainer.opt.depth_binning, "frames": list(trainer.matching_ids[1:])}
    if name == "encoder" and (hasattr(encoder, "nets") or matching != {"binning": "linear", "frames": [-1]}):
        to_save["matching_config"] = json.dumps(matching)


def check_weights(model: nn.Module, tensors: dict[str, Any], path: str) -> None:
    """Checks that weights fill a net of ours.

    Raises:
        UserError: they do not.
    """
    from .. import clone_weights

    clone_weights.check_weights(model, tensors, path)


def networks_in(names: dict[str, Any], folder: str) -> Any:
    """The `networks` that a folder of weights was written with.

    Args:
        names: `globals()` of the script.
        folder: holds encoder.pth, and mono_encoder.pth with the teacher.
    """
    from hybrid_encoder.stage2.checkpoint import described_nets
    from hybrid_encoder.weights.reading import read_checkpoint

    from ..clone_networks import watched
    from ..clone_weights import unusual_scales
    from .clone_networks import MatchingNetworks

    files = [Path(folder).expanduser() / f"{name}.pth" for name in ("encoder", "mono_encoder")]
    entries = [read_checkpoint(path) if path.exists() else {} for path in files]
    student, teacher = (described_nets(found, str(path)) for found, path in zip(entries, files, strict=True))
    # One run has the same scales for both of its decoders.
    scales = unusual_scales(student) or unusual_scales(teacher)
    if student.config is None and teacher.config is None and scales is None:
        return names["networks"]
    if not files[0].with_name("pose_encoder.pth").exists():
        raise UserError(
            f"{folder}: its poses come from the depth encoder, which only `hybrid-encoder evaluate` can read"
        )
    settings: dict[str, Any] = {}
    if student.config is not None:
        join = entries[0]["reduce_conv.0.weight"]
        settings["num_depth_bins"] = join.shape[1] - join.shape[0]
        settings["depth_binning"] = json.loads(entries[0].get("matching_config") or "{}").get("binning", "linear")
    return watched(names, MatchingNetworks(names["networks"], student, teacher, scales, **settings))


def _optim(module: Any) -> Shadow:
    return Shadow(module, Adam=old_libraries.LazyAdam(module.Adam))


def _torch(module: Any) -> Shadow:
    def load(file: Any, *args: Any, **settings: Any) -> Any:
        """`torch.load` that adds the image size of encoder.pth to mono_encoder.pth, which lacks it: evaluation needs
        it."""
        content = old_libraries.load_anywhere(file, *args, **settings)
        beside = Path(file).with_name("encoder.pth") if isinstance(file, (str, Path)) else None
        if beside and Path(file).name == "mono_encoder.pth" and "height" not in content and beside.exists():
            sizes = old_libraries.load_anywhere(beside)
            content.update({name: sizes[name] for name in ("height", "width") if name in sizes})
        return content

    return Shadow(old_libraries.shadow_torch(module), load=load)


def _one_image_writer(kind: Any) -> Any:
    """tensorboardX's writer, which accepts images with a leading dimension of 1, as it used to."""

    class SummaryWriter(kind):
        def add_image(self, tag: str, image: Any, *args: Any, **settings: Any) -> Any:
            one = image[0] if getattr(image, "ndim", 0) == 4 and image.shape[0] == 1 else image
            return super().add_image(tag, one, *args, **settings)

    return SummaryWriter
