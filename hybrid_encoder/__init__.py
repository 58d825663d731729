"""A depth encoder that fuses CLIP and DINO under language about distance, with both of its training stages.

What needs PyTorch is imported when it is first asked for: `hybrid_encoder.DepthModel`, or
`from hybrid_encoder import DepthModel`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .config import PRESETS, HybridEncoderConfig, list_presets
from .errors import UserError

if TYPE_CHECKING:
    from .model.decoder import DPTDecoder
    from .model.depth_model import DepthModel
    from .model.encoder import HybridEncoder, HybridFeatures, create_encoder
    from .model.export import export_onnx
    from .model.host_shapes import like
    from .released.single_frame import load_released
    from .stage1.checkpoint import load_stage1

__version__ = "0.2.0"

__all__ = [
    "PRESETS",
    "DPTDecoder",
    "DepthModel",
    "HybridEncoder",
    "HybridEncoderConfig",
    "HybridFeatures",
    "UserError",
    "create_encoder",
    "export_onnx",
    "like",
    "list_presets",
    "load_released",
    "load_stage1",
]

_MODULES = {
    "DPTDecoder": "model.decoder",
    "DepthModel": "model.depth_model",
    "HybridEncoder": "model.encoder",
    "HybridFeatures": "model.encoder",
    "create_encoder": "model.encoder",
    "like": "model.host_shapes",
    "export_onnx": "model.export",
    "load_released": "released.single_frame",
    "load_stage1": "stage1.checkpoint",
}
"""Where the names lie that are imported when they are first asked for (PEP 562)."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
