"""A depth encoder that fuses CLIP and DINO under language about distance, with both of its training stages."""

from .config import PRESETS, HybridEncoderConfig
from .errors import UserError
from .model.decoder import DPTDecoder
from .model.depth_model import DepthModel
from .model.encoder import HybridEncoder, HybridFeatures, create_encoder
from .released.single_frame import load_released
from .stage1.checkpoint import load_stage1

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "DPTDecoder",
    "DepthModel",
    "HybridEncoder",
    "HybridEncoderConfig",
    "HybridFeatures",
    "UserError",
    "create_encoder",
    "load_released",
    "load_stage1",
]
