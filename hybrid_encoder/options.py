"""Command-line options from dataclasses: a default, a type and a help text live in one place, the field."""

from __future__ import annotations

import argparse
import dataclasses
import json
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .config import HybridEncoderConfig, preset
from .errors import UserError

T = TypeVar("T")


def option(default: Any, help: str, repeat: bool = False, required: bool = False) -> Any:
    """A dataclass field that becomes `--its_name`; `repeat` allows it several times."""
    metadata = {"help": help, "repeat": repeat, "required": required}
    return dataclasses.field(default=default, metadata=metadata)


def check_at_least(options: Any, least: dict[str, float]) -> None:
    """Raises `UserError` for the first option below its least value."""
    for name, value in least.items():
        if not getattr(options, name) >= value:
            raise UserError(f"--{name} {getattr(options, name)}: expected at least {value}")


def add_options(parser: argparse.ArgumentParser, options: type[Any]) -> None:
    """Adds an argument for every field made by `option`."""
    hints = get_type_hints(options)
    for field in dataclasses.fields(options):
        if "help" in field.metadata:
            _add(parser, field, hints[field.name])


def read_options(options: type[T], arguments: argparse.Namespace, **others: Any) -> T:
    """The dataclass filled from parsed arguments; `others` gives the fields that are no options."""
    values = {}
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        if "help" in field.metadata:
            value = getattr(arguments, field.name)
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return options(**values, **others)


def _add(parser: argparse.ArgumentParser, field: Any, hint: Any) -> None:
    default = field.default
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    suffix = "" if default is None or default is False or default == () else f" (default: {shown})"
    settings: dict[str, Any] = {"help": (field.metadata["help"] + suffix).replace("%", "%%"), "default": default}
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if hint is bool:
        settings["action"] = "store_true"
    elif get_origin(hint) is Literal:
        settings["choices"] = get_args(hint)
        settings["type"] = type(get_args(hint)[0])
    elif get_origin(hint) is tuple:
        settings["type"] = get_args(hint)[0]
        if field.metadata["repeat"]:
            settings["action"] = "append"
            settings["default"] = list(default)  # argparse copies it before it appends
        else:
            settings["nargs"] = "+"
    else:
        settings["type"] = hint
    if field.metadata["required"]:
        settings["required"] = True
    parser.add_argument(f"--{field.name}", **settings)


HYBRID_ONLY = ("clip_weights", "dino_weights", "encoder_option")
"""Options of `EncoderOptions` that are without effect where no encoder is a hybrid one."""


@dataclasses.dataclass(frozen=True)
class EncoderOptions:
    """Which hybrid encoder to build."""

    preset: str = option("paper", "paper, released, small, dinov3 or tiny")
    clip_weights: str | None = option(None, "CLIP's weights: a file, an open_clip tag, or random")
    dino_weights: str | None = option(None, "DINO's weights: a file, pretrained, or random")
    weights_init: Literal["pretrained", "scratch"] = option(
        "pretrained", "scratch: all towers and ResNets start random"
    )
    encoder_option: tuple[str, ...] = option(
        (), "NAME=VALUE, any field of HybridEncoderConfig, e.g. fusion=convs2_interp; may be repeated", repeat=True
    )

    def config(self) -> HybridEncoderConfig:
        """The config that these options describe.

        Raises:
            UserError: unknown preset or field, or a value of the wrong type.
        """
        config = preset(self.preset)
        if self.weights_init == "scratch":
            config = config.without_downloads()
        changes: dict[str, Any] = {}
        if self.clip_weights is not None:
            changes["clip_weights"] = self.clip_weights
        if self.dino_weights is not None:
            changes["dino_weights"] = self.dino_weights
        for text in self.encoder_option:
            name, found, value = text.partition("=")
            if not found:
                raise UserError(f"--encoder_option {text}: expected NAME=VALUE")
            changes[name] = _parse_value(value)
        return config.replace(**changes)


def _parse_value(text: str) -> Any:
    """true, false, null, numbers and lists as in JSON; anything else is a string."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)
    return tuple(value) if isinstance(value, list) else value
