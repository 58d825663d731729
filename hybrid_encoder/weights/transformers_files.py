"""What a saved depth model's folder holds so that the library transformers opens it, too.

config.json and model.safetensors serve both: transformers' entries stand beside ours, and its model
(`hybrid_encoder.adapters.transformers`) names its tensors as `DepthModel` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..writing import write_text

MODEL_TYPE = "hybrid_encoder_depth"
ARCHITECTURE = "HybridEncoderForDepthEstimation"
IMAGE_PROCESSOR = "HybridEncoderImageProcessor"
OWN_ENTRIES = ("kind", "encoder", "decoder", "min_depth", "max_depth", "resize", "height", "width", "about")
"""Entries of config.json that `DepthModel` reads."""
_PROCESSOR_FILE = "preprocessor_config.json"


def config_entries() -> dict[str, Any]:
    """What transformers reads of config.json."""
    return {"model_type": MODEL_TYPE, "architectures": [ARCHITECTURE], "dtype": "float32"}


def write_processor(folder: Path, config: Mapping[str, Any]) -> None:
    """The file that says how images are brought to the model's size, with the entries of a depth model's config.

    Raises:
        UserError: it could not be written.
    """
    entries = {"image_processor_type": IMAGE_PROCESSOR, **{n: config[n] for n in ("height", "width", "resize")}}
    write_text(folder / _PROCESSOR_FILE, json.dumps(entries, indent=2) + "\n")
