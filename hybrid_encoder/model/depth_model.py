"""Encoder and decoder as one depth model: image in, depth out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from ..config import MAX_DEPTH, MIN_DEPTH, Resize, check_image_size
from ..errors import UserError
from ..weights.hub import HubModel, Saved
from ..weights.transformers_files import config_entries, write_processor
from .contract import Decodable, DepthEncoder, EncoderFeatures
from .decoder import DPTDecoder
from .disparity import disp_to_depth, disparity_to_depth
from .eval_mode import in_eval_mode
from .nets import DepthNets
from .pixels import ImageLike, is_sequence, to_pixels
from .predictor import predict_disparities, resize_map
from .resnet import UNetDecoder

_IMAGES_AT_A_TIME = 8
"""Of a batch or a list, in `predict`."""


def decode(encoder: Decodable, decoder: nn.Module, features: EncoderFeatures) -> dict[tuple[str, int], Tensor]:
    """{("disp", s): (B, 1, H / 2^s, W / 2^s)} from an encoder's features: the DPT decoder reads their levels, any other
    decoder the five drop-in maps."""
    read = features if isinstance(decoder, DPTDecoder) else encoder.drop_in_maps(features)
    disparities: dict[tuple[str, int], Tensor] = decoder(read)
    return disparities


def inverse_depth(
    disparities: Mapping[tuple[str, int], Tensor], size: Sequence[int], min_depth: float, max_depth: float
) -> Tensor:
    """1 / depth, (B, 1, *size), from the finest disparity that a decoder gives."""
    finest = disparities["disp", min(scale for _, scale in disparities)]
    if finest.shape[-2:] != tuple(size):
        finest = nn.functional.interpolate(finest, tuple(size), mode="bilinear", align_corners=False)
    return disp_to_depth(finest, min_depth, max_depth)[0]


class DepthModel(HubModel, nn.Module):
    """A depth encoder and its decoder; `predict` takes an image of any size and gives its depth.

    Args:
        encoder: a `HybridEncoder`, or a `ResnetEncoder` for the U-Net decoder.
        decoder: a `DPTDecoder` or `UNetDecoder`.
        height, width: the size at which images are seen, multiples of 32.
        min_depth, max_depth: the depths that the disparities 1 and 0 stand for, in the model's unit.
        resize: how images are brought to that size: as those that the model was trained on.

    Raises:
        UserError: a size that is no multiple of 32, or a decoder that cannot read this encoder.
    """

    hub_kind = "DepthModel"

    def __init__(
        self,
        encoder: DepthEncoder,
        decoder: nn.Module,
        height: int,
        width: int,
        min_depth: float = MIN_DEPTH,
        max_depth: float = MAX_DEPTH,
        resize: Resize = "area",
    ) -> None:
        super().__init__()
        check_image_size(height, width)
        if not 0 < min_depth < max_depth < math.inf:
            raise UserError(f"min_depth={min_depth}, max_depth={max_depth}: expected 0 < min_depth < max_depth")
        _check_channels(encoder, decoder)
        self.encoder = encoder
        self.decoder = decoder
        self.height = height
        self.width = width
        self.min_depth = float(min_depth)
        self.max_depth = float(max_depth)
        self.resize = resize
        self.about: dict[str, str] = dict(getattr(encoder, "about", {}))

    def forward(self, image: Tensor) -> dict[tuple[str, int], Tensor]:
        """(B, 3, H, W) in [0, 1], H and W multiples of 32 -> {("disp", s): (B, 1, H / 2^s, W / 2^s)}."""
        return decode(self.encoder, self.decoder, self.encoder.forward_features(image))

    @torch.no_grad()
    def disparity(self, image: Tensor) -> Tensor:
        """Images (B, 3, height, width) in [0, 1], on any device and in any precision -> 1 / depth, (B, 1, height,
        width), on the model's.

        The model should be in eval mode.
        """
        disparities = self(image.to(next(self.parameters())))
        return inverse_depth(disparities, image.shape[-2:], self.min_depth, self.max_depth)

    @overload
    def predict(self, image: ImageLike) -> np.ndarray: ...  # type: ignore[overload-overlap]  # a str is a sequence

    @overload
    def predict(self, image: Sequence[ImageLike]) -> list[np.ndarray]: ...

    def predict(self, image: ImageLike | Sequence[ImageLike]) -> np.ndarray | list[np.ndarray]:
        """Depth of images at their own sizes, as in evaluation mode; the model's own mode and buffers stay as they are.

        May be called from several threads at once, also while the model is in train mode.

        Args:
            image: a file; a PIL image of any mode; an array (H, W), (H, W, 3), (H, W, 4) or (B, H, W, 3); a tensor
                (3, H, W) or (B, 3, H, W); or a sequence of those. Whole numbers are from 0 to 255, floats in [0, 1].

        Returns:
            float32 (H, W), or (B, H, W) of a batch of several images; of a sequence, a list with one (H, W) for each
            image. Between min_depth and max_depth; the unit is metres up to an unknown factor where the model learned
            from a single camera.

        Raises:
            UserError: an unreadable file, or an image of another form or range.
        """
        pixels = to_pixels(image)
        model = in_eval_mode(self)
        depths: list[np.ndarray] = []
        for start in range(0, len(pixels), _IMAGES_AT_A_TIME):
            some = pixels[start : start + _IMAGES_AT_A_TIME]
            for own, disparity in zip(some, predict_disparities(model, some), strict=True):
                # Disparity is resized rather than depth: it is the smoother of the two at object borders.
                disparity = resize_map(disparity, *own.shape[:2])
                depths.append(disparity_to_depth(disparity, self.min_depth, self.max_depth))
        if is_sequence(image):
            return depths
        return depths[0] if len(depths) == 1 else np.stack(depths)

    @property
    def nets(self) -> DepthNets:
        """Which nets these are.

        Raises:
            UserError: an encoder or decoder of a class that is not this package's.
        """
        return DepthNets.of(self.encoder, self.decoder, self.min_depth, self.max_depth, self.resize)

    def hub_config(self) -> dict[str, Any]:
        """Both nets, the image size and the depth limits, as plain values."""
        return {**self.nets.to_dict(), "height": self.height, "width": self.width}

    def save_pretrained(self, folder: str | Path, training_data: str | None = None, transformers: bool = False) -> Path:
        """Writes model.safetensors, config.json and a model card; each whole or not at all.

        Args:
            folder, training_data: as for any `HubModel`.
            transformers: let the library transformers open the folder, too: its own entries in config.json, and
                preprocessor_config.json. `hybrid_encoder.adapters.transformers` then makes the model known to it.

        Raises:
            UserError: as `HubModel.save_pretrained`.
        """
        folder = self._write(Path(folder), training_data, config_entries() if transformers else {})
        if transformers:
            write_processor(folder, self.hub_config())
        return folder

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> DepthModel:
        """The model that `save_pretrained` wrote, on the CPU in eval mode.

        Args:
            source: a folder, a repository of the hub ("account/name"), or "tiny-rendered", which ships with this
                package: one line on stderr says what it is.
            revision, token, cache_dir, local_files_only: for the hub, as in `huggingface_hub`.

        Raises:
            UserError: nothing there, damaged, or an encoder alone.
        """
        saved = Saved(source, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
        if saved.kind != "DepthModel":
            raise UserError(
                f"{saved.path} holds a {saved.kind} without decoder: load it with create_encoder({source!r})"
            )
        model = saved.fill(_from_config)
        model.about = saved.about()
        return model


def _from_config(config: dict[str, Any]) -> DepthModel:
    nets = DepthNets.from_dict(config)
    size = int(config["height"]), int(config["width"])
    return DepthModel(*nets.build(), *size, nets.min_depth, nets.max_depth, nets.resize)


def _check_channels(encoder: DepthEncoder, decoder: nn.Module) -> None:
    """Raises `UserError` unless the decoder was built for what the encoder gives."""
    if isinstance(decoder, DPTDecoder):
        if not encoder.aligned_channels:
            raise UserError(f"the DPT decoder reads the levels of a HybridEncoder, this is a {type(encoder).__name__}")
        given, read = encoder.aligned_channels, decoder.given_channels
    elif isinstance(decoder, UNetDecoder):
        if not encoder.has_drop_in_maps:
            raise UserError("the U-Net decoder reads five maps: build the encoder with pyramid=True")
        given, read = tuple(encoder.num_ch_enc.tolist()), decoder.given_channels
    else:
        return
    if given != read:
        raise UserError(f"the encoder gives maps of {given} channels, the decoder was built for {read}")
