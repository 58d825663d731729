"""Depth models as the library transformers knows models: a config, a model and an image processor, registered.

    import hybrid_encoder.adapters.transformers
    model.save_pretrained(FOLDER, transformers=True)              # a DepthModel; then, here or elsewhere:
    pipe = transformers.pipeline("depth-estimation", FOLDER)
    depth = pipe("street.jpg")["predicted_depth"]                 # as DepthModel.predict gives it

Importing this module enters them into transformers' lists. `pip install hybrid-encoder[transformers]` installs the
library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    BatchFeature,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.modeling_outputs import DepthEstimatorOutput

from hybrid_encoder.config import Resize
from hybrid_encoder.errors import UserError
from hybrid_encoder.images import resize_image
from hybrid_encoder.model.depth_model import decode, inverse_depth
from hybrid_encoder.model.disparity import disparity_to_depth
from hybrid_encoder.model.nets import DepthNets
from hybrid_encoder.model.pixels import ImageLike, to_pixels
from hybrid_encoder.model.predictor import resize_map
from hybrid_encoder.weights.transformers_files import MODEL_TYPE, OWN_ENTRIES


class HybridEncoderDepthConfig(PretrainedConfig):
    """What config.json says.

    Attributes:
        saved: the entries that `DepthModel` reads: both nets, image size and depth limits. They are one attribute here,
            since transformers takes a config's `decoder` for a text model.
    """

    model_type = MODEL_TYPE

    def __init__(self, **entries: Any) -> None:
        self.saved = {name: entries.pop(name) for name in OWN_ENTRIES if name in entries}
        super().__init__(**entries)

    def to_dict(self) -> dict[str, Any]:
        """As config.json has them, which both libraries read."""
        values: dict[str, Any] = super().to_dict()
        return {**values.pop("saved", {}), **values}

    @property
    def nets(self) -> DepthNets:
        """Which nets the model is made of.

        Raises:
            UserError: no depth model of this package is described.
        """
        try:
            return DepthNets.from_dict(self.saved)
        except (LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"this config describes no depth model ({type(error).__name__}: {error}): expected what "
                "save_pretrained(..., transformers=True) wrote"
            ) from error


class HybridEncoderForDepthEstimation(PreTrainedModel):
    """A depth model whose tensors are named as those of `DepthModel`.

    Args:
        config: says which nets.
    """

    config_class = HybridEncoderDepthConfig
    main_input_name = "pixel_values"

    def __init__(self, config: HybridEncoderDepthConfig) -> None:
        super().__init__(config)
        nets = config.nets
        with torch.device("cpu"):  # transformers builds on "meta", where what no file holds would be lost
            self.encoder, self.decoder = nets.build()
        self.min_depth, self.max_depth = nets.min_depth, nets.max_depth
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> DepthEstimatorOutput:
        """(B, 3, H, W) in [0, 1], H and W multiples of 32 -> `predicted_depth` (B, H, W)."""
        disparities = decode(self.encoder, self.decoder, self.encoder.forward_features(pixel_values))
        disparity = inverse_depth(disparities, pixel_values.shape[-2:], self.min_depth, self.max_depth)
        return DepthEstimatorOutput(predicted_depth=1 / disparity[:, 0])

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nets start as this package starts them."""


class HybridEncoderImageProcessor(BaseImageProcessor):
    """Brings images to a model's size, and depth back to theirs, as `DepthModel.predict` does.

    Args:
        height, width, resize: of the model.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 (as in transformers)

    def __init__(self, height: int = 192, width: int = 640, resize: Resize = "area", **entries: Any) -> None:
        super().__init__(**entries)
        self.height, self.width, self.resize = height, width, resize

    def preprocess(self, images: ImageLike | Sequence[ImageLike], return_tensors: Any = None, **_: Any) -> BatchFeature:
        """What `to_pixels` takes -> `pixel_values` (B, 3, height, width), float32 in [0, 1].

        Raises:
            UserError: an image that cannot be read.
        """
        seen = [resize_image(image, self.height, self.width, self.resize) for image in to_pixels(images)]
        pixels = np.stack(seen).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)

    def post_process_depth_estimation(
        self, outputs: DepthEstimatorOutput, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[dict[str, Tensor]]:
        """Depth at the images' own sizes (height, width): one {"predicted_depth": (H, W) float32} an image."""
        depths = outputs.predicted_depth.float().cpu().numpy()
        found = []
        for depth, size in zip(depths, target_sizes or [depth.shape for depth in depths], strict=True):
            # As `predict` does, inverse depth is resized: it is the smoother of the two at object borders.
            resized = disparity_to_depth(resize_map(1 / depth, *size), float(depth.min()), float(depth.max()))
            found.append({"predicted_depth": torch.from_numpy(resized)})
        return found


AutoConfig.register(MODEL_TYPE, HybridEncoderDepthConfig)
AutoModelForDepthEstimation.register(HybridEncoderDepthConfig, HybridEncoderForDepthEstimation)
AutoImageProcessor.register(
    HybridEncoderDepthConfig,
    slow_image_processor_class=HybridEncoderImageProcessor,
    fast_image_processor_class=HybridEncoderImageProcessor,
)
