"""`--config FILE`: a trainer's options from a JSON file, such as the `models/opt.json` that a run writes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..errors import UserError, naming
from ..options import Options, add_options, given_options, option_fields

CONFIG_HELP = "JSON file of options, e.g. the models/opt.json of a run; options on the command line override it"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def read_config(path: Path, options: type[Options]) -> dict[str, Any]:
    """The options in a file, by the names of a command's fields, as in `given_options`.

    The command line's parser checks the values: it accepts and refuses the same as on the command line.

    Raises:
        UserError: no such file, no JSON, an unknown option, or a value of another type.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {path} is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f'--config {path}: expected an object of options, e.g. {{"batch_size": 4}}')
    parser = _Parser(add_help=False, allow_abbrev=False)
    add_options(parser, options, required=False)
    with naming(f"--config {path}"):
        return given_options(options, parser.parse_args(list(_as_words(values, options))))


def with_config(given: Mapping[str, Any], file: Mapping[str, Any], options: type[Options]) -> dict[str, Any]:
    """The options of a file, overridden by those of the command line; settings NAME=VALUE of both are kept.

    Raises:
        UserError: a required option is in neither.
    """
    fields = option_fields(options)
    found = {**file, **given}
    for name in given.keys() & file.keys():
        if fields[name].repeat:
            found[name] = (*file[name], *given[name])
    for name, spec in fields.items():
        if spec.required and name not in found:
            raise UserError(f"--{name} is required: {spec.help}")
    return found


def _as_words(values: Mapping[str, Any], options: type[Options]) -> Iterator[str]:
    """The words of a command line with the options of a file; null, false and empty lists give no word."""
    fields = option_fields(options)
    for name, value in values.items():
        if name not in fields:
            raise UserError(f"no option {name!r}: known are {', '.join(sorted(fields))}")
        if value is None or value is False or value == []:
            continue
        if value is True:
            yield f"--{name}"
        elif not isinstance(value, list):
            yield f"--{name}={value}"
        elif fields[name].repeat:
            yield from (f"--{name}={one}" for one in value)
        else:
            yield from (f"--{name}", *map(str, value))
