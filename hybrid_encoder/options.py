"""Command-line options from dataclasses: a field states its default, its type, its help text and its range in one
place."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .config import HybridEncoderConfig, preset
from .errors import UserError

T = TypeVar("T", bound="Options")
Precision = Literal["float32", "bf16"]
"""What nets compute in; bf16 is mixed precision."""

MAX_SEED = 2**63 - 1
"""Largest seed of a run: with the number of its steps added, it still fits the 64 bits of PyTorch's generators."""
MAX_SCENE_SEED = 2**30
"""Largest seed of rendered scenes."""
MAX_SCENES = 500_000
"""Most rendered scenes of one seed: later streets are those of its TuSimple images."""
_MAX_INT = 2**31 - 1
"""Largest value of an integer whose field states no other: what compiled libraries take."""


@dataclass(frozen=True)
class Option:
    """How a field is given on the command line, and which values it takes.

    Attributes:
        help: what it means, in words.
        at_least: the smallest number, where there is one; for a tuple, of each of its numbers.
        above: the number that all values exceed, where there is one.
        at_most: the largest number, where there is one. Numbers are finite in any case.
        repeat: `--name` may be given several times; other tuples take several values after one `--name`.
        required: the command line has to give it.
        positional: given by its place, without `--name`; required unless its type allows None.
        writes: the command writes this path: a "file" or a "folder".
    """

    help: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    repeat: bool = False
    required: bool = False
    positional: bool = False
    writes: Literal["file", "folder"] | None = None

    def refusal(self, number: float) -> str:
        """What was expected in place of a number, in words; empty where the field takes it."""
        if isinstance(number, float) and not math.isfinite(number):
            return "a finite number"
        if self.at_least is not None and number < self.at_least:
            return f"at least {self.at_least}"
        if self.above is not None and number <= self.above:
            return f"above {self.above}"
        most = _MAX_INT if self.at_most is None and isinstance(number, int) else self.at_most
        return f"at most {most}" if most is not None and number > most else ""


def option(default: Any, help: str, **settings: Any) -> Any:
    """A dataclass field that becomes `--its_name`; `settings` are the attributes of `Option`.

    >>> @dataclass(frozen=True)
    ... class Training(Options):
    ...     epochs: int = option(20, "epochs", at_least=1)
    >>> Training(epochs=0)
    Traceback (most recent call last):
    hybrid_encoder.errors.UserError: --epochs 0: expected at least 1
    """
    return dataclasses.field(default=default, metadata={"option": Option(help, **settings)})


@dataclass(frozen=True)
class Options:
    """Options of a command, made of `option()` fields.

    Raises:
        UserError: a number out of its field's range, or a path in the home folder of a user that there is not.
    """

    def __post_init__(self) -> None:
        for name, spec in option_fields(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, Path):
                object.__setattr__(self, name, _in_home(_flag(name, spec), value))
            values = value if isinstance(value, tuple) else (value,)
            for expected in (spec.refusal(number) for number in values if isinstance(number, int | float)):
                if expected:
                    shown = " ".join(map(str, values))
                    raise UserError(f"{_flag(name, spec)} {shown}: expected {expected}")


def option_fields(options: type[Any]) -> dict[str, Option]:
    """The fields made by `option`, by name."""
    return {f.name: f.metadata["option"] for f in dataclasses.fields(options) if "option" in f.metadata}


def check_outputs(options: Any) -> None:
    """Raises `UserError` where a file stands in the place of a folder to write, or a folder in that of a file."""
    for name, spec in option_fields(type(options)).items():
        path = getattr(options, name)
        if spec.writes is None or path is None or not path.exists():
            continue
        if path.is_dir() != (spec.writes == "folder"):
            found, wanted = ("folder", "file") if path.is_dir() else ("file", "folder")
            raise UserError(f"{_flag(name, spec)} {path} is a {found}: name a {wanted}")


def add_options(parser: argparse.ArgumentParser, options: type[Any], required: bool = True) -> None:
    """Adds an argument for every field made by `option`; one that is not given is absent from what is parsed.

    Args:
        required: whether the command line alone has to give the required ones.
    """
    hints = get_type_hints(options)
    for field in dataclasses.fields(options):
        if "option" in field.metadata:
            _add(parser, field, hints[field.name], required)


def given_options(options: type[Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line gave, by the names of the fields; the others keep their defaults."""
    given = {name: value for name, value in vars(arguments).items() if name in option_fields(options)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def read_options(options: type[T], arguments: argparse.Namespace) -> T:
    """The dataclass filled from parsed arguments.

    Raises:
        UserError: a number out of range.
    """
    return options(**given_options(options, arguments))


def _add(parser: argparse.ArgumentParser, field: Any, hint: Any, required: bool) -> None:
    spec: Option = field.metadata["option"]
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    settings: dict[str, Any] = {"help": _help(spec, field.default)}
    if spec.positional and field.default is None:
        settings["nargs"] = "?"
    if hint is bool:
        settings["action"] = "store_true"
    elif get_origin(hint) is Literal:
        settings |= {"choices": get_args(hint), "type": type(get_args(hint)[0])}
    elif get_origin(hint) is tuple:
        settings["type"] = get_args(hint)[0]
        settings |= {"action": "append"} if spec.repeat else {"nargs": "+"}
    else:
        settings["type"] = hint
    if spec.positional:
        parser.add_argument(field.name, **settings)
        return
    parser.add_argument(f"--{field.name}", required=required and spec.required, default=argparse.SUPPRESS, **settings)


def _help(spec: Option, default: Any) -> str:
    """The help text with the default, where there is one to tell, as argparse wants it."""
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    untold = spec.required or spec.positional or default is None or default is False or default in ("", ())
    return (spec.help if untold else f"{spec.help} (default: {shown})".lstrip()).replace("%", "%%")


def _flag(name: str, spec: Option) -> str:
    return name if spec.positional else f"--{name}"


def _in_home(flag: str, path: Path) -> Path:
    """The path with `~` and `~user` replaced by home folders, as a shell does at the beginning of a word."""
    try:
        return path.expanduser()
    except RuntimeError:
        home = path.parts[0]
        raise UserError(f"{flag} {path}: {home} is no home folder on this machine, write the path in full") from None


YES = "with the authors' weights (released): fetch them without asking"
"""Help text of the commands' `--yes`."""

SCALE_FROM = (
    "metres from camera_height=1.65 (above ground), lidar (KITTI's layout), baseline=0.54 (after stereo "
    "training), speed=FILE (lines of seconds, metres per second) or poses=FILE (KITTI's form or TUM's)"
)
"""Help text of `--scale_from`."""

HYBRID_ONLY = ("clip_weights", "dino_weights", "encoder_option")
"""Options of `EncoderOptions` that are without effect where no encoder is a hybrid one."""


@dataclass(frozen=True)
class EncoderOptions(Options):
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
        return config.replace(**{**changes, **parse_settings("encoder_option", self.encoder_option)})


def parse_settings(option_name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Fields of a config from NAME=VALUE; of a name that comes twice, the last value.

    >>> parse_settings("encoder_option", ["dino_blocks=[0, 1, 2, 3]", "fusion=convs2_interp", "pyramid=false"])
    {'dino_blocks': (0, 1, 2, 3), 'fusion': 'convs2_interp', 'pyramid': False}

    Args:
        option_name: what the texts were given to, for messages.

    Raises:
        UserError: a text without "=".
    """
    changes: dict[str, Any] = {}
    for text in texts:
        name, found, value = text.partition("=")
        if not found:
            raise UserError(f"--{option_name} {text}: expected NAME=VALUE")
        changes[name] = _parse_value(value)
    return changes


def _parse_value(text: str) -> Any:
    """true, false, null, numbers and lists as in JSON; anything else is a string."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)
    return tuple(value) if isinstance(value, list) else value
