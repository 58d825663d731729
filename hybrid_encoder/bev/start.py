"""The initial image encoder of a BEV model: pretrained or random, or from a stage-1 or stage-2 run."""

from __future__ import annotations

from pathlib import Path

from ..model.contract import DepthEncoder
from ..model.depth_model import DepthModel
from ..model.encoder import HybridEncoder
from ..model.resnet import ResnetEncoder
from ..stage1.checkpoint import open_stage1
from ..stage2.checkpoint import load_depth_model, newest_weights
from ..weights.hub import TENSOR_FILE
from ..weights.in_package import shipped_folder
from ..weights.reading import load_state
from ..weights.run_files import STAGE1_FILE
from .options import BevOptions

ENCODER_FILE = "encoder.pth"
"""The encoder's file in a folder of weights of stage 2."""


def starting_encoder(options: BevOptions) -> DepthEncoder:
    """The image encoder that the options ask for.

    Raises:
        UserError: --weights is no such run or is damaged; or weights of the towers are missing.
    """
    if options.weights is not None:
        return without_maps(open_run(options.weights))
    if options.encoder == "resnet":
        weights = "random" if options.weights_init == "scratch" else "pretrained"
        return ResnetEncoder(options.num_layers or 18, weights)
    return HybridEncoder(options.config().replace(pyramid=False))


def open_run(weights: Path) -> DepthEncoder:
    """The encoder of a stage-1 or stage-2 run, or of a saved depth model, on the CPU.

    Args:
        weights: as for `encoder_file`.

    Raises:
        UserError: missing, damaged, or another kind of file.
    """
    path = encoder_file(weights)
    if path.name == TENSOR_FILE:
        return DepthModel.from_pretrained(path.parent).encoder
    return load_depth_model(path.parent).encoder if path.name == ENCODER_FILE else open_stage1(path)


def encoder_file(weights: Path) -> Path:
    """The file of an encoder's tensors.

    Args:
        weights: the folder of a run, the weights_N of an epoch, `stage1.pth`, a folder that `save_pretrained` wrote, or
            the name of weights that ship with the package.

    Raises:
        UserError: there is none.
    """
    folder = shipped_folder(weights) or weights
    if folder.is_file():
        return folder
    found = next((folder / name for name in (TENSOR_FILE, STAGE1_FILE) if (folder / name).exists()), None)
    return newest_weights(folder) / ENCODER_FILE if found is None else found


def without_maps(encoder: DepthEncoder) -> DepthEncoder:
    """The encoder without its drop-in maps: the lift reads the aligned levels."""
    if encoder.config is None or not encoder.has_drop_in_maps:
        return encoder
    found = HybridEncoder(encoder.config.without_downloads().replace(pyramid=False))
    kept = {name: value for name, value in encoder.state_dict().items() if not name.startswith("pyramid.")}
    load_state(found, kept, "the run's encoder")
    return found
