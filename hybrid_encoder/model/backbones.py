"""Builds the pretrained towers by name: open_clip and timm models with hub, local or random weights.

The weights are always the ones that were asked for: a missing or unfit file ends in a `UserError`, never in random
weights. Published weights are taken from the weights folder (HYBRID_ENCODER_WEIGHTS) where it holds them, else from the
hub.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..weights.published import WEIGHTS_VARIABLE, clip_source, find_weights, is_file_name, timm_source
from ..weights.reading import load_state, read_tensors
from .tiny import TinyClip, TinyDino

if TYPE_CHECKING:
    from open_clip.model import CLIP

_TINY_CLIP = {"image_width": 16, "text_width": 32, "text_heads": 2, "text_blocks": 2, "embed_dim": 64}
_TINY_DINO = {"width": 64, "blocks": 4, "heads": 2, "patch": 8}


def build_clip(name: str, weights: str, weights_dir: str | Path | None = None) -> CLIP | TinyClip:
    """An open_clip model in float32 on the CPU, its image tower with the mean and standard deviation of its weights.

    Args:
        name: open_clip architecture, or "tiny".
        weights: "random", an open_clip tag (e.g. "openai"), a file (OpenAI's TorchScript archive, .pt, .bin,
            .safetensors) or "local-dir:FOLDER".
        weights_dir: folder that is searched for published weights, in place of HYBRID_ENCODER_WEIGHTS.

    Raises:
        UserError: unknown architecture, unknown tag, missing or unfit file, no network.
    """
    check_clip(name, weights)
    if name == "tiny":
        return TinyClip(**_TINY_CLIP)
    import open_clip  # this library and timm are slow to import, and the tiny towers do without

    path = find_weights(clip_source(name, weights), weights_dir) if weights != "random" else None
    published = open_clip.get_pretrained_cfg(name, weights)
    if published.get("quick_gelu"):
        _check_quick_gelu(name, weights)
    if path is not None or weights in ("random", "openai"):
        with quiet():
            device = torch.get_default_device()  # "cpu", or "meta" where only shapes are wanted
            model = open_clip.create_model(name, pretrained=None, load_weights=False, device=device)
        if weights != "random":
            _fill_clip(model, name, path or _download_openai(name))
        if published:
            model.visual.image_mean, model.visual.image_std = published["mean"], published["std"]
    else:
        if weights not in (tags := open_clip.list_pretrained_tags_by_model(name)):
            raise UserError(f"{name} has no weights {weights!r}: expected a file, 'random' or one of {', '.join(tags)}")
        model = _load(lambda: open_clip.create_model(name, pretrained=weights), f"CLIP {name}", weights, "clip_weights")
    if not isinstance(model, open_clip.CLIP):
        raise UserError(
            f"{name}: only open_clip's CLIP class with its own tokenizer is supported, this is a {type(model).__name__}"
        )
    return model.float()


def build_timm(
    name: str, weights: str, role: str, weights_dir: str | Path | None = None, remedy: str = "", **options: Any
) -> nn.Module:
    """A timm model without its classifier.

    Args:
        name: timm architecture, or "tiny" for a small DINO.
        weights: "random", "pretrained" (timm's hub), a file (timm safetensors, Facebook's .pth) or
            "local-dir:FOLDER".
        role: the option's name prefix in messages, e.g. "dino".
        weights_dir: as for `build_clip`.
        remedy: what the caller's user can do where weights cannot be downloaded, for the message; empty: give a file.
        options: passed to `timm.create_model`; the small DINO takes none.

    Raises:
        UserError: unknown architecture, missing or unfit file, no network.
    """
    check_timm(name, weights, role)
    if name == "tiny":
        return TinyDino(**_TINY_DINO)
    import timm  # as above

    if weights == "random":
        return timm.create_model(name, pretrained=False, **options)
    if weights != "pretrained" and not is_file_name(weights):
        raise UserError(f"{role}_weights={weights!r}: expected 'pretrained', 'random' or the path of a file")
    path = find_weights(timm_source(name, weights, f"{role}_weights"), weights_dir)
    if path is None:
        download = partial(timm.create_model, name, pretrained=True, **options)
        return _load(download, name, weights, f"{role}_weights", remedy)
    model = timm.create_model(name, pretrained=False, **options)
    _fill_timm(model, name, path, options.get("in_chans", 3))
    return model


def check_clip(name: str, weights: str, role: str = "clip") -> None:
    """Raises `UserError` for an architecture that open_clip does not know, or weights that the tiny one does not have.

    Args:
        role: the option's name prefix in messages.
    """
    if name == "tiny":
        _check_tiny(weights, role)
        return
    import open_clip  # as above

    if ":" in name or open_clip.get_model_config(name) is None:
        raise UserError(
            f"open_clip knows no architecture {name!r}: open_clip.list_models() lists them, e.g. RN50-quickgelu"
        )


def check_timm(name: str, weights: str, role: str) -> None:
    """As `check_clip`, of timm."""
    if name == "tiny":
        _check_tiny(weights, role)
        return
    import timm  # as above

    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.split('_')[-1].split('.')[0]}*")[:5])
        raise UserError(f"timm knows no model {name!r}" + (f": did you mean one of {similar}" if similar else ""))


def _check_tiny(weights: str, role: str) -> None:
    if weights != "random":
        raise UserError(
            f"the tiny {role} has no pretrained weights (asked for {weights!r}): use {role}_weights='random'"
        )


def _download_openai(name: str) -> Path:
    import open_clip  # as above

    published = open_clip.get_pretrained_cfg(name, "openai")
    if not published:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        raise UserError(f"{name} has no weights 'openai': expected a file, 'random' or one of {tags}")
    return Path(_load(lambda: open_clip.download_pretrained(published), f"CLIP {name}", "openai", "clip_weights"))


def _check_quick_gelu(name: str, weights: str) -> None:
    """Raises `UserError` where weights that were trained with QuickGELU would fill an architecture without it."""
    import open_clip  # as above

    if not (open_clip.get_model_config(name) or {}).get("quick_gelu"):
        raise UserError(
            f"weights {weights!r} were trained with QuickGELU: choose the architecture {name}-quickgelu for them"
        )


def _fill_clip(model: nn.Module, name: str, path: Path) -> None:
    """OpenAI's TorchScript archives and open_clip's files hold the same tensors under the same names."""
    tensors = read_tensors(path)
    described = [tensors.pop(key, None) for key in ("input_resolution", "context_length", "vocab_size")]
    if described[0] is not None:
        _check_quick_gelu(name, "openai")
    load_state(model, tensors, str(path))


def _fill_timm(model: nn.Module, name: str, path: Path, in_chans: int) -> None:
    """Facebook's and timm's files; a classifier that the model does not have is left out, all else must fit."""
    from timm.models import adapt_input_conv  # as above

    tensors: dict[str, Tensor] = read_tensors(path)
    # timm keeps the translation of foreign names beside each architecture.
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if translate is not None:
        tensors = translate(tensors, model)
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    own = model.state_dict()
    for key in _names(config.get("classifier")):
        for name_of in (f"{key}.weight", f"{key}.bias"):
            if name_of not in own:
                tensors.pop(name_of, None)
    for key in _names(config.get("first_conv")):
        if in_chans != 3 and f"{key}.weight" in tensors:
            tensors[f"{key}.weight"] = adapt_input_conv(in_chans, tensors[f"{key}.weight"])
    load_state(model, tensors, str(path))


def _names(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _load(create: Callable[[], Any], what: str, weights: str, option: str, remedy: str = "") -> Any:
    try:
        with quiet():
            return create()
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, torch.jit.Error, ImportError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        remedy = remedy or f"give a local file: {option}=FILE, or {option}='random' to start from random numbers"
        raise UserError(
            f"weights {weights!r} of {what} could not be loaded ({reason}): without network, put them into a folder of "
            f"weights that {WEIGHTS_VARIABLE} names, or {remedy}"
        ) from error
    except Exception as error:  # unpickling and hub clients raise classes of their own, all of them load failures
        raise UserError(
            f"weights {weights!r} of {what} could not be loaded ({type(error).__name__}: {error})"
        ) from error


class quiet:  # noqa: N801 (a context manager reads as a verb)
    """open_clip warns on the root logger that a random model is random, which was asked for."""

    def __enter__(self) -> None:
        self._level = logging.root.level
        logging.root.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.root.setLevel(self._level)
