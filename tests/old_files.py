"""Weights as version 0.1.0 wrote them: folders, stage1.pth and `save_pretrained`, rebuilt from their lists of entries.

`tests/data/old_files.json` lists every entry of files that 0.1.0's commands left (`pretrain`, `train monodepth2`,
`train manydepth`, `convert`, `save_pretrained`, all `--preset tiny`): shape and type of a tensor, any other value as it
is.
`tests/data/old_files.npz` holds what 0.1.0 computed from the files that `write_old_files` makes of it.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

DATA = Path(__file__).parent / "data"


def write_old_files(folder: Path) -> None:
    """Writes all files under `folder`, tensors filled by name."""
    files: dict[str, Any] = json.loads((DATA / "old_files.json").read_text())
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".json"):
            path.write_text(content)
        elif name.endswith(".safetensors"):
            save_file(_filled(content["tensors"]), path, metadata=content["metadata"])
        else:
            torch.save(_filled(content), path)


def old_image(frames: int = 1) -> Tensor:
    """(frames, 3, 64, 96) in [0, 1]."""
    coarse = torch.from_numpy(np.random.default_rng(7).random((frames, 3, 8, 12), dtype=np.float32))
    return torch.nn.functional.interpolate(coarse, (64, 96), mode="bilinear")


def _filled(content: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(name, entry) for name, entry in content.items()}


def _value(name: str, entry: Any) -> Any:
    if isinstance(entry, dict):
        return _filled(entry)
    if not isinstance(entry, list) or not entry or entry[0] != "tensor":
        return entry
    _, shape, dtype = entry
    if not dtype.startswith("float"):
        return torch.zeros(shape, dtype=getattr(torch, dtype))
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
    values = torch.from_numpy(np.asarray(noise))
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        values = 1 + 0.1 * values.abs()
    else:
        values = values * (0.1 if len(shape) < 2 else float(np.prod(shape[1:])) ** -0.5)
    return values.to(getattr(torch, dtype))
