"""Fills CLIP and timm models from files, under the names that their publishers gave to the tensors."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from ..weights.foundation import transformer_tensors
from ..weights.reading import load_state, read_tensors

_NUMBERS = ("input_resolution", "context_length", "vocab_size")
"""Entries of OpenAI's archives that are no weights."""


def fill_clip(model: nn.Module, name: str, path: Path) -> None:
    """Fills CLIP from OpenAI's TorchScript archive or from open_clip's file.

    Both hold the same tensors under the same names, except that names of the text tower begin with "text." where
    open_clip keeps it apart.

    Raises:
        UserError: as `load_state`; or weights with QuickGELU for an architecture without it.
    """
    tensors = read_tensors(path)
    described = [tensors.pop(key, None) for key in _NUMBERS]
    if described[0] is not None:
        check_quick_gelu(name, "openai")
    if any(key.startswith("text.") for key in tensors):
        tensors = {key.removeprefix("text."): value for key, value in tensors.items()}
        tensors.pop("attn_mask", None)  # in old files; a model computes its own
    load_state(model, tensors, str(path))


def check_quick_gelu(name: str, weights: str) -> None:
    """Raises `UserError` where weights that were trained with QuickGELU would fill an architecture without it."""
    import open_clip  # slow to import, and not needed by the tiny towers

    if not (open_clip.get_model_config(name) or {}).get("quick_gelu"):
        raise UserError(
            f"weights {weights!r} were trained with QuickGELU: choose the architecture {name}-quickgelu for them"
        )


def fill_timm(model: nn.Module, path: Path, in_chans: int = 3) -> None:
    """Fills a timm model from its publisher's file, from timm's, or from a file that holds the model as a part.

    Raises:
        UserError: as `load_state` and `timm_tensors`.
    """
    load_state(model, timm_tensors(model, read_tensors(path), str(path), in_chans), str(path))


def timm_tensors(model: nn.Module, tensors: Mapping[str, Tensor], source: str, in_chans: int = 3) -> dict[str, Tensor]:
    """A file's tensors under the names of a timm model; a classifier that the model does not have is left out.

    Args:
        source: names the file in messages.
        in_chans: channels of the model's images: the first convolution is adapted to them.

    Raises:
        UserError: the file holds biases that the architecture lacks.
    """
    from timm.models import adapt_input_conv  # slow to import

    found = _without_empty_biases(model, transformer_tensors(tensors), source)
    # timm keeps the translation of foreign names beside each architecture.
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if translate is not None:
        found = translate(found, model)
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    own = model.state_dict()
    for key in _names(config.get("classifier")):
        for name_of in (f"{key}.weight", f"{key}.bias"):
            if name_of not in own:
                found.pop(name_of, None)
    for key in _names(config.get("first_conv")):
        if in_chans != 3 and f"{key}.weight" in found:
            found[f"{key}.weight"] = adapt_input_conv(in_chans, found[f"{key}.weight"])
    return found


def _without_empty_biases(model: nn.Module, tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Leaves out the biases of attention in DINOv3's official files, where the architecture has none, as most of
    timm's. The biases of queries and values must be zero then; those of keys have no effect.

    Raises:
        UserError: a bias of queries or values is not zero.
    """
    if "storage_tokens" not in tensors or any(name.endswith("attn.q_bias") for name in model.state_dict()):
        return tensors
    kept = {name: value for name, value in tensors.items() if not name.endswith("attn.qkv.bias")}
    for name in tensors.keys() - kept.keys():
        queries, _, values = tensors[name].chunk(3)
        if queries.any() or values.any():
            architecture = model.pretrained_cfg["architecture"]  # type: ignore[index]
            raise UserError(
                f"{source} holds biases that {architecture} has no place for, {name} among them: choose dino="
                f"{architecture}_qkvb"
            )
    return kept


def _names(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())
