"""Builds the pretrained towers by name: open_clip and timm models with hub, local or random weights.

The weights are always the ones that were asked for: a missing or unfit file ends in a `UserError`, never in random
weights.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import nn

from .errors import UserError

_TINY_CLIP: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": CLIPVisionCfg(layers=(1, 1, 1, 1), width=16, image_size=64, patch_size=None),
    "text_cfg": CLIPTextCfg(width=32, heads=2, layers=2),
    "quick_gelu": True,
}
_TINY_DINO: dict[str, Any] = {"embed_dim": 64, "depth": 4, "num_heads": 2}
_TINY_DINO_BASE = "vit_small_patch8_224"


def build_clip(name: str, weights: str) -> CLIP:
    """An open_clip model in float32 on the CPU.

    Args:
        name: open_clip architecture, or "tiny".
        weights: "random", an open_clip tag (e.g. "openai"), or a file that open_clip reads (OpenAI's TorchScript
            archive, .pt, .safetensors).

    Raises:
        UserError: unknown architecture, unknown tag, missing or unfit file, no network.
    """
    if name == "tiny":
        if weights != "random":
            raise UserError(
                f"the tiny CLIP has no pretrained weights (asked for {weights!r}): use clip_weights='random'"
            )
        return CLIP(**_TINY_CLIP)
    if open_clip.get_model_config(name) is None:
        raise UserError(
            f"open_clip knows no architecture {name!r}: open_clip.list_models() lists them, e.g. RN50-quickgelu"
        )
    if weights == "random":
        with _quiet():
            model = open_clip.create_model(name, pretrained=None, load_weights=False)
    else:
        if is_file_name(weights):
            _check_file(weights, f"CLIP {name}")
        elif weights not in (tags := open_clip.list_pretrained_tags_by_model(name)):
            raise UserError(f"{name} has no weights {weights!r}: expected a file, 'random' or one of {', '.join(tags)}")
        model = _load(lambda: open_clip.create_model(name, pretrained=weights), f"CLIP {name}", weights, "clip_weights")
    if not isinstance(model, CLIP):
        raise UserError(
            f"{name}: only open_clip's CLIP class with its own tokenizer is supported, this is a {type(model).__name__}"
        )
    return model.float()


def build_timm(name: str, weights: str, role: str, **options: Any) -> nn.Module:
    """A timm model without its classifier.

    Args:
        name: timm architecture, or "tiny" for a small DINO.
        weights: "random", "pretrained" (timm's hub), or a file (timm safetensors, Facebook's .pth).
        role: the option's name prefix in messages, e.g. "dino".
        options: passed to `timm.create_model`.

    Raises:
        UserError: unknown architecture, missing or unfit file, no network.
    """
    if name == "tiny":
        if weights != "random":
            raise UserError(
                f"the tiny {role} has no pretrained weights (asked for {weights!r}): use {role}_weights='random'"
            )
        return timm.create_model(_TINY_DINO_BASE, pretrained=False, **_TINY_DINO, **options)
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.split('_')[-1].split('.')[0]}*")[:5])
        raise UserError(f"timm knows no model {name!r}" + (f": did you mean one of {similar}" if similar else ""))
    if weights == "random":
        return timm.create_model(name, pretrained=False, **options)
    if is_file_name(weights):
        _check_file(weights, name)
        options["pretrained_cfg_overlay"] = {"file": weights}
    elif weights != "pretrained":
        raise UserError(f"{role}_weights={weights!r}: expected 'pretrained', 'random' or the path of a file")
    return _load(lambda: timm.create_model(name, pretrained=True, **options), name, weights, f"{role}_weights")


def is_file_name(weights: str) -> bool:
    """Whether a weights option names a local file rather than a tag: it exists, or looks like a path."""
    path = Path(weights)
    return path.exists() or len(path.parts) > 1 or path.suffix in {".pt", ".pth", ".bin", ".safetensors"}


def _check_file(weights: str, what: str) -> None:
    if not Path(weights).is_file():
        raise UserError(f"{weights}: no such file, expected the weights of {what}")


def _load(create: Any, what: str, weights: str, option: str) -> Any:
    try:
        with _quiet():
            return create()
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, torch.jit.Error, ImportError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        remedy = (
            "the file does not hold this architecture's weights, or is damaged"
            if is_file_name(weights)
            else f"without network, give a local file: {option}=FILE, or {option}='random' to start from nothing"
        )
        raise UserError(f"weights {weights!r} of {what} could not be loaded ({reason}): {remedy}") from error
    except Exception as error:  # unpickling and hub clients raise classes of their own, all of them load failures
        raise UserError(
            f"weights {weights!r} of {what} could not be loaded ({type(error).__name__}: {error})"
        ) from error


class _quiet:  # noqa: N801 (a context manager reads as a verb)
    """open_clip warns on the root logger that a random model is random, which was asked for."""

    def __enter__(self) -> None:
        self._level = logging.root.level
        logging.root.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.root.setLevel(self._level)
