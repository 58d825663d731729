"""`hybrid-encoder completion SHELL`: a script with which the shell completes commands, options and their choices."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Literal

_BASH = """\
# hybrid-encoder: completion of commands, options and their choices, made by `hybrid-encoder completion`.
_hybrid_encoder() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} path="" words="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$path ${{COMP_WORDS[i]}}" in
{commands}
        esac
    done
    case "$path $before" in
{values}
        *)
            case "$path" in
{options}
            esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _hybrid_encoder hybrid-encoder
"""
_ZSH = "autoload -Uz compinit bashcompinit\ncompinit\nbashcompinit\n"


def script(parser: argparse.ArgumentParser, shell: Literal["bash", "zsh"]) -> str:
    """The script for a shell; `eval "$(hybrid-encoder completion bash)"` loads it. Where it offers no word, the shell
    completes file names.

    Args:
        parser: the parser of all commands.
    """
    parsers = dict(_parsers("", parser))
    commands, values, options = list[str](), list[str](), list[str]()
    for path, one in parsers.items():
        after = [known.removeprefix(path).split() for known in parsers if known.startswith(f"{path} ")]
        names = [words[0] for words in after if len(words) == 1]
        commands += [f'            "{path} {name}") path="{path} {name}" ;;' for name in names]
        listed = [flag for action in one._actions for flag in action.option_strings]
        options.append(f'                "{path}") words="{" ".join([*names, *_positional(one), *listed])}" ;;')
        for action in one._actions:
            if action.option_strings and action.nargs != 0:
                patterns = "|".join(f'"{path} {flag}"' for flag in action.option_strings)
                values.append(f'        {patterns}) words="{" ".join(map(str, action.choices or ()))}" ;;')
    text = _BASH.format(commands="\n".join(commands), values="\n".join(values), options="\n".join(options))
    return _ZSH + text if shell == "zsh" else text


def _parsers(path: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser and the parsers of its commands, each with its words on the command line, such as " train manydepth"."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from _parsers(f"{path} {name}", command)


def _positional(parser: argparse.ArgumentParser) -> list[str]:
    """The choices of positional arguments."""
    given = (action for action in parser._actions if not action.option_strings)
    return [
        str(choice)
        for action in given
        if not isinstance(action, argparse._SubParsersAction)
        for choice in action.choices or ()
    ]
