"""A depth encoder that fuses CLIP and DINO under language about distance, with both of its training stages."""

from .config import PRESETS, HybridEncoderConfig
from .decoder import DPTDecoder
from .depth_model import DepthModel
from .encoder import HybridEncoder, HybridFeatures, create_encoder
from .errors import UserError
from .proxy.checkpoint import load_stage1
from .released import load_released

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
