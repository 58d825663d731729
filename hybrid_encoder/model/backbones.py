"""Builds the pretrained towers by name: open_clip and timm models with hub, local or random weights.

The weights are always the ones that were asked for: a missing or unfit file ends in a `UserError`, never in random
weights. Published weights are taken from the weights folder (HYBRID_ENCODER_WEIGHTS) where it holds them, else from the
hub.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import UserError
from ..weights.network import hub_address, hub_is_reachable
from ..weights.published import (
    WEIGHTS_VARIABLE,
    TowerSource,
    cached_weights,
    clip_source,
    find_weights,
    image_trunk,
    is_file_name,
    timm_source,
)
from .filling import check_quick_gelu, fill_clip, fill_timm
from .tiny import TinyClip, TinyDino

if TYPE_CHECKING:
    from open_clip.model import CLIP

_TINY_CLIP = {"image_width": 16, "text_width": 32, "text_heads": 2, "text_blocks": 2, "embed_dim": 64}
_TINY_DINO = {"width": 64, "blocks": 4, "heads": 2, "patch": 8}


def build_clip(name: str, weights: str, weights_dir: str | Path | None = None) -> CLIP | TinyClip:
    """An open_clip model in float32 on the CPU; its image tower carries the mean and standard deviation of its weights.

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
    import open_clip  # slow to import, and not needed by the tiny towers

    path = _find(clip_source(name, weights), weights_dir) if weights != "random" else None
    published = open_clip.get_pretrained_cfg(name, weights)
    if published.get("quick_gelu"):
        check_quick_gelu(name, weights)
    if path is None and weights not in ("random", "openai") and not _keeps_text_apart(name):
        if weights not in (tags := open_clip.list_pretrained_tags_by_model(name)):
            raise UserError(f"{name} has no weights {weights!r}: expected a file, 'random' or one of {', '.join(tags)}")
        model = _load(lambda: open_clip.create_model(name, pretrained=weights), f"CLIP {name}", weights, "clip_weights")
    else:
        model = _create_clip(name)
        if weights != "random":
            fill_clip(model, name, path or _download(name, weights, "clip_weights"))
        if published:
            model.visual.image_mean, model.visual.image_std = published["mean"], published["std"]  # type: ignore[union-attr]
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
        name: timm architecture, or "tiny" for `TinyDino`.
        weights: "random", "pretrained" (timm's hub), a file (timm safetensors, Facebook's .pth) or
            "local-dir:FOLDER".
        role: prefix of the option's name in messages, e.g. "dino".
        weights_dir: as for `build_clip`.
        remedy: what the message advises where weights cannot be downloaded; empty: to give a file.
        options: passed to `timm.create_model`; the tiny DINO ignores them.

    Raises:
        UserError: unknown architecture, missing or unfit file, no network.
    """
    check_timm(name, weights, role)
    if name == "tiny":
        return TinyDino(**_TINY_DINO)
    import timm  # slow to import

    if weights == "random":
        return timm.create_model(name, pretrained=False, **options)
    if weights != "pretrained" and not is_file_name(weights):
        raise UserError(f"{role}_weights={weights!r}: expected 'pretrained', 'random' or the path of a file")
    path = _find(timm_source(name, weights, f"{role}_weights"), weights_dir, remedy)
    if path is None:
        download = partial(timm.create_model, name, pretrained=True, **options)
        return _load(download, name, weights, f"{role}_weights", remedy)
    model = timm.create_model(name, pretrained=False, **options)
    fill_timm(model, path, options.get("in_chans", 3))
    return model


def build_image_tower(name: str, weights: str, weights_dir: str | Path | None = None) -> nn.Module:
    """The timm model that takes the place of CLIP's image tower.

    Args:
        name: timm architecture, or an open_clip one whose image tower is timm's, such as ViT-B-16-SigLIP.
        weights: as for `build_timm`; an open_clip architecture takes one of its tags in place of "pretrained".
        weights_dir: as for `build_clip`.

    Raises:
        UserError: as `build_timm`.
    """
    trunk = image_trunk(name)
    if trunk is None:
        return build_timm(name, weights, "image_tower", weights_dir, num_classes=0)
    import timm  # slow to import

    model = timm.create_model(trunk, pretrained=False, num_classes=0)
    if weights != "random":
        source = clip_source(name, weights, "image_tower_weights")
        fill_timm(model, _find(source, weights_dir) or _download(name, weights, source.option))
    return model


def check_clip(name: str, weights: str, role: str = "clip") -> None:
    """Raises `UserError` for an architecture that open_clip does not know, for a text tower that is not supported, and
    for pretrained weights of the tiny CLIP, which has none.

    Args:
        role: prefix of the option's name in messages.
    """
    if name == "tiny":
        _check_tiny(weights, role)
        return
    import open_clip  # slow to import

    if ":" in name or open_clip.get_model_config(name) is None:
        raise UserError(
            f"open_clip knows no architecture {name!r}: open_clip.list_models() lists them, e.g. RN50-quickgelu"
        )
    _check_text(name)


def check_timm(name: str, weights: str, role: str) -> None:
    """As `check_clip`, for a timm model."""
    if name == "tiny":
        _check_tiny(weights, role)
        return
    import timm  # slow to import

    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name.split('_')[-1].split('.')[0]}*")[:5])
        raise UserError(f"timm knows no model {name!r}" + (f": did you mean one of {similar}" if similar else ""))


def _check_tiny(weights: str, role: str) -> None:
    if weights != "random":
        raise UserError(
            f"the tiny {role} has no pretrained weights (asked for {weights!r}): use {role}_weights='random'"
        )


def _check_text(name: str) -> None:
    """Raises `UserError` for a text tower that cannot read the prompts: its tokenizer is not CLIP's, or its attention
    is not causal."""
    import open_clip  # slow to import

    text = (open_clip.get_model_config(name) or {}).get("text_cfg", {})
    if text.get("hf_model_name") or text.get("hf_tokenizer_name") or text.get("no_causal_mask"):
        beside = f", e.g. clip='RN50-quickgelu' with image_tower={name!r}" if image_trunk(name) else ""
        raise UserError(
            f"{name}: its text tower is not supported, only open_clip's CLIP class with its own tokenizer is: choose "
            f"another model for the text{beside}"
        )


def _create_clip(name: str) -> nn.Module:
    """An open_clip model of random numbers. Where open_clip keeps the text tower apart, the model is a `CLIP` all the
    same."""
    import open_clip  # slow to import

    with quiet():
        if _keeps_text_apart(name):
            config = open_clip.get_model_config(name) or {}
            config.pop("custom_text")
            return open_clip.CLIP(**config)
        device = torch.get_default_device()  # "cpu", or "meta" where only shapes are wanted
        return open_clip.create_model(name, pretrained=None, load_weights=False, device=device)


def _keeps_text_apart(name: str) -> bool:
    """Whether open_clip builds a model with the parts of its class `CLIP`, but of a class that keeps the text tower
    apart."""
    import open_clip  # slow to import

    config = open_clip.get_model_config(name) or {}
    return bool(config.get("custom_text")) and image_trunk(name) is not None and "multimodal_cfg" not in config


def _download(name: str, tag: str, option: str) -> Path:
    """The file of an open_clip model's published weights; `option` names the config's field in messages."""
    import open_clip  # slow to import

    published = open_clip.get_pretrained_cfg(name, tag)
    if not published:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        raise UserError(f"{name} has no weights {tag!r}: expected a file, 'random' or one of {tags}")
    return Path(_load(lambda: open_clip.download_pretrained(published), f"CLIP {name}", tag, option))


def _find(source: TowerSource, weights_dir: str | Path | None, remedy: str = "") -> Path | None:
    """The local file of a tower's weights; None: they have to be downloaded, and the hub answers.

    Raises:
        UserError: as `find_weights`; or the hub does not answer, and its cache does not hold them.
    """
    path = find_weights(source, weights_dir)
    if path is not None or source.hub_file is None or hub_is_reachable():
        return path
    cached = cached_weights(source)
    if cached is None:
        raise _not_loaded(
            source.weights, source.architecture, f"{hub_address()} does not answer", source.option, remedy
        )
    return cached


def _load(create: Callable[[], Any], what: str, weights: str, option: str, remedy: str = "") -> Any:
    try:
        with quiet():
            return create()
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, torch.jit.Error, ImportError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise _not_loaded(weights, what, reason, option, remedy) from error
    except Exception as error:  # unpickling and hub clients raise classes of their own; all are failures to load
        raise UserError(
            f"weights {weights!r} of {what} could not be loaded ({type(error).__name__}: {error})"
        ) from error


def _not_loaded(weights: str, what: str, reason: str, option: str, remedy: str) -> UserError:
    remedy = remedy or f"give a local file: {option}=FILE, or {option}='random' to start from random numbers"
    return UserError(
        f"weights {weights!r} of {what} could not be loaded ({reason}): without network, put them into a folder of "
        f"weights that {WEIGHTS_VARIABLE} names, or {remedy}"
    )


class quiet:  # noqa: N801 (a context manager reads as a verb)
    """Silences open_clip's warning on the root logger that a model has random weights, which was asked for. The first
    warning would also give that logger a handler, which would stay in the user's process."""

    def __enter__(self) -> None:
        self._level = logging.root.level
        self._nowhere = logging.NullHandler()
        logging.root.setLevel(logging.ERROR)
        logging.root.addHandler(self._nowhere)

    def __exit__(self, *_: object) -> None:
        logging.root.removeHandler(self._nowhere)
        logging.root.setLevel(self._level)
