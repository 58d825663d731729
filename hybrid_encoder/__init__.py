"""Depth from one image, by an encoder that fuses CLIP and DINO under language about distance.

    import hybrid_encoder

    model = hybrid_encoder.open_depth_model("tiny-rendered")     # or a folder of weights, or a hub id
    depth = model.predict("street.jpg")                          # (H, W), float32

    encoder = hybrid_encoder.create_encoder("tiny")              # for a trainer of your own
    maps = encoder(image)                                        # (B, 3, H, W) in [0, 1] -> five maps, strides 2 to 32

`help(hybrid_encoder.NAME)` says more about each of these:

    create_encoder         an encoder by preset name, config, folder or hub id
    HybridEncoderConfig    what an encoder is made of
    PRESETS, list_presets  the configs that have a name
    HybridEncoder          the encoder's class; HybridFeatures is what its forward_features returns
    DPTDecoder             a decoder of its levels
    DepthModel             encoder and decoder: predict, save_pretrained, from_pretrained
    open_depth_model       a DepthModel from weights of any layout: saved, of a trainer, of the authors
    export_onnx            a DepthModel or an encoder as an ONNX file
    load_released          the authors' nets: encoder and, of stage 2, decoder
    load_stage1            fills an encoder with what stage 1 trained
    like                   an encoder whose maps are those of another encoder
    UserError              the one error for what the caller can mend

The command `hybrid-encoder`, also `python -m hybrid_encoder`, trains, evaluates and predicts: `hybrid-encoder --help`.
"""

# There is no `__all__`: `help(hybrid_encoder)` would print every class that it lists with all that nn.Module has.
# What needs PyTorch is imported when it is first asked for (PEP 562).

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from .config import PRESETS as PRESETS
from .config import HybridEncoderConfig as HybridEncoderConfig
from .config import list_presets as list_presets
from .errors import UserError as UserError

if _TYPE_CHECKING:
    from .commands.convert import open_depth_model as open_depth_model
    from .model.decoder import DPTDecoder as DPTDecoder
    from .model.depth_model import DepthModel as DepthModel
    from .model.encoder import HybridEncoder as HybridEncoder
    from .model.encoder import HybridFeatures as HybridFeatures
    from .model.encoder import create_encoder as create_encoder
    from .model.export import export_onnx as export_onnx
    from .model.host_shapes import like as like
    from .released.single_frame import load_released as load_released
    from .stage1.checkpoint import load_stage1 as load_stage1

__version__ = "0.2.0"

_MODULES = {
    "DPTDecoder": "model.decoder",
    "DepthModel": "model.depth_model",
    "HybridEncoder": "model.encoder",
    "HybridFeatures": "model.encoder",
    "create_encoder": "model.encoder",
    "export_onnx": "model.export",
    "like": "model.host_shapes",
    "load_released": "released.single_frame",
    "load_stage1": "stage1.checkpoint",
    "open_depth_model": "commands.convert",
}
"""Where the names lie that are imported when they are first asked for."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
