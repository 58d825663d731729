"""Removes from tensors' names the prefixes of wrappers that a net was saved in."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

_WRAPPER = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Prefixes that PyTorch's wrappers put before the names of the wrapped net: data-parallel training and averaged
weights, `torch.compile`, sharding, activation checkpointing."""

_COUNTER_OF_AVERAGES = "n_averaged"
"""What `torch.optim.swa_utils.AveragedModel` saves beside the net's tensors."""


def unwrapped(entries: dict[str, Any]) -> dict[str, Any]:
    """The entries of a file, with tensors under the names that they have in the net itself.

    If two entries would get the same name, none is renamed.

    >>> import torch
    >>> sorted(unwrapped({"module._orig_mod.weight": torch.zeros(1), "height": 192}))
    ['height', 'weight']
    """
    renamed = {_WRAPPER.sub("", name) if isinstance(value, Tensor) else name: value for name, value in entries.items()}
    if len(renamed) < len(entries) or renamed.keys() == entries.keys():
        return entries
    renamed.pop(_COUNTER_OF_AVERAGES, None)
    return renamed
