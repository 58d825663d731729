"""The presets as encoders of segmentation_models.pytorch, for its decoders on images of road scenes.

    import hybrid_encoder.adapters.smp
    model = smp.Unet("hybrid_encoder_paper.published", encoder_weights=None, classes=19)

Importing this module registers them with that library: `hybrid_encoder_PRESET` with towers of random numbers,
`hybrid_encoder_PRESET.published` with published ones. `pip install hybrid-encoder[smp]` installs the library.
"""

from __future__ import annotations

from typing import Any

from segmentation_models_pytorch.encoders import encoders
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor

from hybrid_encoder.config import PRESETS
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.encoder import HybridEncoder


class SmpEncoder(EncoderMixin, HybridEncoder):
    """A hybrid encoder that returns the image and then its maps, as that library's decoders expect.

    FPN and UPerNet do not read the map at stride 2, PSPNet reads one map only: layers for the other maps then get no
    gradient.

    Args:
        preset: name of the preset.
        published: whether towers have their published weights rather than random numbers.
        depth: number of maps, from stride 2 on: 3 to 5.
        output_stride: 2 to the power of depth, at most 32.

    Raises:
        UserError: another depth or output stride.
    """

    def __init__(self, preset: str, published: bool, depth: int = 5, output_stride: int = 32) -> None:
        config = PRESETS[preset] if published else PRESETS[preset].without_downloads()
        if not 3 <= depth <= len(config.strides):
            raise UserError(f"encoder_depth={depth}: a hybrid encoder has 3 to {len(config.strides)} maps")
        EncoderMixin.__init__(self)
        HybridEncoder.__init__(
            self, config.replace(num_ch_enc=config.num_ch_enc[:depth], strides=config.strides[:depth])
        )
        self._depth = depth
        self._out_channels = [3, *self.num_ch_enc]
        if output_stride != 32:
            self.make_dilated(output_stride)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> the image and its maps at strides 2, 4, ..."""
        return [image, *super().forward(image)]

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Accepts 3 channels only, since both towers see RGB.

        Raises:
            UserError: another number of channels.
        """
        if in_channels != 3:
            raise UserError(f"in_channels={in_channels}: a hybrid encoder looks at RGB images, in_channels=3")

    def make_dilated(self, output_stride: int) -> None:
        """Raises `UserError`: a transformer's grid has no strides that dilation could replace."""
        raise UserError(
            f"a hybrid encoder cannot be dilated to an output stride of {output_stride}, as DeepLabV3, DeepLabV3Plus "
            "and PAN ask for: use Unet, UnetPlusPlus, FPN, PSPNet, Linknet, MAnet, UPerNet or Segformer"
        )


def _entry(preset: str, published: bool) -> dict[str, Any]:
    return {"encoder": SmpEncoder, "pretrained_settings": {}, "params": {"preset": preset, "published": published}}


for _preset in PRESETS:
    encoders[f"hybrid_encoder_{_preset}"] = _entry(_preset, False)
    encoders[f"hybrid_encoder_{_preset}.published"] = _entry(_preset, True)
