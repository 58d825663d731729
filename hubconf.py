"""What `torch.hub.load("OWNER/hybrid-encoder", NAME)` offers; OWNER is whose repository it is.

encoder = torch.hub.load("OWNER/hybrid-encoder", "encoder", "paper", num_tokens=128)
model = torch.hub.load("OWNER/hybrid-encoder", "depth_model", "account/name")
"""

from typing import Any

import hybrid_encoder as _package

dependencies = ["torch", "torchvision", "timm", "open_clip", "numpy", "cv2", "safetensors", "huggingface_hub"]


def encoder(source: str = "paper", pretrained: bool = True, **changes: Any) -> "_package.HybridEncoder":
    """A hybrid encoder: RGB images (B, 3, H, W) in [0, 1] -> five maps at strides 2 to 32.

    Args:
        source: a preset, a folder with saved weights, or a repository of the hub ("account/name").
        pretrained: False: a preset's towers of random numbers.
        changes: fields of `HybridEncoderConfig`.
    """
    if not pretrained and source in _package.PRESETS:
        return _package.create_encoder(_package.PRESETS[source].without_downloads(), **changes)
    return _package.create_encoder(source, **changes)


def depth_model(source: str, **settings: Any) -> "_package.DepthModel":
    """A trained depth model: `model.predict(image)`.

    Args:
        source: a folder with saved weights, or a repository of the hub ("account/name").
        settings: of `DepthModel.from_pretrained`.
    """
    return _package.DepthModel.from_pretrained(source, **settings)
