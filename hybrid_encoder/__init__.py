"""A depth encoder that fuses CLIP and DINO under language about distance, with both of its training stages."""

from .config import PRESETS, HybridEncoderConfig
from .decoder import DPTDecoder
from .encoder import HybridEncoder, HybridFeatures, create_encoder
from .errors import UserError

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "DPTDecoder",
    "HybridEncoder",
    "HybridEncoderConfig",
    "HybridFeatures",
    "UserError",
    "create_encoder",
]
