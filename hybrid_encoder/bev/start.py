"""What a BEV model's image encoder starts from: pretrained towers or random numbers, or a stage-1 or stage-2 run."""

from __future__ import annotations

from pathlib import Path

from ..model.contract import DepthEncoder
from ..model.encoder import HybridEncoder
from ..model.resnet import ResnetEncoder
from ..stage1.checkpoint import STAGE1_FILE, open_stage1
from ..stage2.checkpoint import load_depth_model
from ..weights.reading import load_state
from .options import BevOptions


def starting_encoder(options: BevOptions) -> DepthEncoder:
    """The image encoder that the options ask for.

    Raises:
        UserError: what --weights names is no such run, or is damaged; or weights of towers are missing.
    """
    if options.weights is not None:
        return without_maps(open_run(options.weights))
    if options.encoder == "resnet":
        weights = "random" if options.weights_init == "scratch" else "pretrained"
        return ResnetEncoder(options.num_layers or 18, weights)
    return HybridEncoder(options.config().replace(pyramid=False))


def open_run(folder: Path) -> DepthEncoder:
    """The encoder of a stage-1 or stage-2 run, on the CPU.

    Args:
        folder: of the run, or `stage1.pth`, or the weights_N of an epoch.

    Raises:
        UserError: nothing there, damaged, or of another kind.
    """
    stage1 = folder if folder.is_file() else folder / STAGE1_FILE
    return open_stage1(stage1) if stage1.exists() else load_depth_model(folder).encoder


def without_maps(encoder: DepthEncoder) -> DepthEncoder:
    """The encoder without its drop-in maps, which the lift does not read: its own levels serve it."""
    if encoder.config is None or not encoder.config.pyramid:
        return encoder
    found = HybridEncoder(encoder.config.without_downloads().replace(pyramid=False))
    kept = {name: value for name, value in encoder.state_dict().items() if not name.startswith("pyramid.")}
    load_state(found, kept, "the run's encoder")
    return found
