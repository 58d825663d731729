"""Loads the two-frame encoder of the authors' ManyDepth folders (docs/METHOD.md, section 4).

The single-frame parts are named as in stage 2. A 3x3 convolution, which is recognised by its shape, joins CLIP's
stride-4 map and the cost volume and returns the map's channels. The file also holds the towers' layers under a second
name, grids, and convolutions that are never run: `names.TWO_FRAME_UNUSED`. Any other tensor left over is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..errors import UserError
from ..model.decoder import DPTDecoder
from ..model.encoder import HybridEncoder
from ..weights.reading import load_state, read_checkpoint, read_tensors, stated_bins, stated_size
from .facts import base_config, describe, tell
from .names import TWO_FRAME_UNUSED, decoder_tensors, encoder_tensors, read_alignment, read_config

_NUMBERS = ("min_depth_bin", "max_depth_bin", "height", "width")


@dataclass
class ReleasedMatching:
    """The parts of a two-frame model, on the CPU in eval mode.

    Attributes:
        encoder: towers, fusion and language; CLIP sees images with ImageNet's mean and standard deviation, DINO raw
            pixels in [0, 1], as in the released run.
        decoder: decodes the encoder's levels.
        join_weight, join_bias: the 3x3 convolution of [map, cost volume]: (C, C + bins, 3, 3) and (C,).
        num_bins: number of depth bins of the cost volume.
        min_depth_bin, max_depth_bin: the tracked range of the bins, in the unit of depth.
        height, width: of the images.
    """

    encoder: HybridEncoder
    decoder: DPTDecoder
    join_weight: Tensor
    join_bias: Tensor
    num_bins: int
    min_depth_bin: float
    max_depth_bin: float
    height: int
    width: int


def load_released_matching(folder: str | Path, ignore: Sequence[str] = ()) -> ReleasedMatching:
    """The two-frame encoder and its decoder from a ManyDepth folder of the authors (encoder.pth, depth.pth).

    Args:
        ignore: patterns for names of further tensors that may be left over.

    Raises:
        UserError: not such a folder, or tensors that are missing, left over or of another shape.
    """
    path, decoder_path = Path(folder) / "encoder.pth", Path(folder) / "depth.pth"
    entries = read_checkpoint(path)
    near, far = stated_bins(entries, str(path))
    height, width = stated_size(entries, str(path))
    tensors = {k: value for k, value in entries.items() if isinstance(value, Tensor) and k not in _NUMBERS}
    decoded = read_tensors(decoder_path)
    config = read_config(tensors, base_config("two frames"), str(path))
    config = read_alignment(config, tensors, decoded, str(decoder_path))
    encoder = HybridEncoder(config)
    ours = encoder_tensors(tensors, encoder, str(path), (*TWO_FRAME_UNUSED, *ignore))
    weight_name, bias_name = _join_names(ours, encoder, path)
    join_weight, join_bias = ours.pop(weight_name).clone(), ours.pop(bias_name).clone()
    load_state(encoder, ours, str(path))
    decoder = DPTDecoder(encoder, scales=(0,), head="relu")
    load_state(decoder, decoder_tensors(decoded, ignore), str(decoder_path))
    num_bins = join_weight.shape[1] - encoder.matching_tower.channels[0]
    tell(str(folder), f"{describe(config, 'two frames')}; {num_bins} depth bins from {near:.3g} to {far:.3g}")
    return ReleasedMatching(
        encoder.eval(),
        decoder.eval(),
        join_weight,
        join_bias,
        num_bins,
        near,
        far,
        height,
        width,
    )


def _join_names(tensors: dict[str, Tensor], encoder: HybridEncoder, path: Path) -> tuple[str, str]:
    """Names of weight and bias of the 3x3 convolution that joins the cost volume: the only one that is not ours."""
    channels = encoder.matching_tower.channels[0]
    own = encoder.state_dict()
    found = [
        name
        for name, value in tensors.items()
        if name not in own
        and value.ndim == 4
        and value.shape[0] == channels
        and value.shape[1] > channels
        and tuple(value.shape[2:]) == (3, 3)
        and name.endswith(".weight")
        and f"{name.removesuffix('.weight')}.bias" in tensors
    ]
    if len(found) != 1:
        named = ", ".join(found) or "none"
        raise UserError(
            f"{path}: expected one 3x3 convolution that joins {channels} channels and the cost volume, found {named}"
        )
    return found[0], f"{found[0].removesuffix('.weight')}.bias"
