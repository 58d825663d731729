"""The model card of saved weights: what the model is, how to call it, and from whom its towers' weights come."""

from __future__ import annotations

import json
from typing import Any

_USE = {
    "HybridEncoder": """from hybrid_encoder import create_encoder

encoder = create_encoder("FOLDER_OR_HUB_ID").eval()
features = encoder(image)                # image: (B, 3, H, W), RGB in [0, 1]; five maps at strides 2, 4, 8, 16, 32
levels = encoder.forward_features(image) # fused and aligned levels, text logits, class token
""",
    "DepthModel": """from hybrid_encoder import DepthModel

model = DepthModel.from_pretrained("FOLDER_OR_HUB_ID")
depth = model.predict("image.jpg")       # float32 (H, W)
""",
}

CARD_MARK = "Saved by `hybrid-encoder`"
_RESNET = "- ResNet: ImageNet weights of torchvision, BSD-3-Clause, where it did not start from random numbers"


def model_card(config: dict[str, Any]) -> str:
    """The text of README.md, from the config that `save_pretrained` writes into config.json."""
    about: dict[str, str] = config.get("about", {})
    encoder = config["encoder"]
    name = "hybrid CLIP + DINO" if encoder["kind"] == "hybrid" else f"ResNet-{encoder['num_layers']}"
    what = "depth model" if config["kind"] == "DepthModel" else "depth encoder"
    rest = {key: value for key, value in config.items() if key not in ("about", "kind")}
    return f"""---
library_name: hybrid-encoder
pipeline_tag: depth-estimation
tags:
- depth-estimation
- self-supervised
---

# {name[0].upper() + name[1:]} {what}

{CARD_MARK}. Architecture of the hybrid encoder: Hybrid-depth, ICCV 2025, arXiv 2510.09320.

## Use

```python
{_USE[config["kind"]]}```

## Origin

- Preset: {about.get("preset", "own configuration")}
- Weights: {about.get("origin", "not stated")}
- Training data: {about.get("training_data", "not stated")}

Depth of a model trained on single-camera video is right up to an unknown factor.

## Licences of the towers

{about.get("towers", _RESNET)}

The training data may set terms of its own.

## Configuration

```json
{json.dumps(rest, indent=2)}
```
"""
