"""Checks that a changed file still has the names that inserted lines use, and uses the names that they replace.

A line may be in the right place and still read a variable that the fork has renamed: Python would fail only when the
line runs, perhaps after an epoch. And a line that replaces `networks` has no effect if the fork builds its nets by
other names: no error would show that.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from .format import is_marked

REPLACED = {
    "monodepth2": ("ResnetEncoder", "DepthDecoder"),
    "manydepth": ("ResnetEncoderMatching", "DepthDecoder"),
    "mono_vifi": (),
}
"""The names in a host's `networks` that build the depth nets which `--encoder hybrid` replaces. In Mono-ViFI,
`--backbone Hybrid` adds nets and replaces none."""

_REPLACING = ("networks", "networks_in")
"""Functions of a host's `upstream` whose result replaces `networks`."""

_Function = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def lost_name(content: bytes, reference: bytes) -> str:
    """The first name on an inserted line that means something else than in the original.

    Args:
        content: a file with the inserted lines.
        reference: the original with the same lines.

    Returns:
        The line, the name and what it is here and in the original, in words; empty if there is none.
    """
    now, then = (_uses(ast.parse(text), _marked_lines(text)) for text in (content, reference))
    for (number, name, kind), (_, _, known) in zip(now, then, strict=True):
        if kind != known:
            line = content.splitlines()[number - 1].decode(errors="replace").strip()
            return f"`{line}` needs {name}, which is {known} in the original, and {kind} here"
    return ""


def unused_networks(content: bytes, replaced: Sequence[str]) -> str:
    """The first inserted line that replaces `networks` in a function that builds its depth nets by other names.

    Args:
        content: a file with the inserted lines.
        replaced: the names by which the original builds its depth nets.

    Returns:
        The line and the names, in words; empty if there is none, or if Python cannot parse the file.
    """
    try:
        module = ast.parse(content)
    except SyntaxError:
        return ""
    marked = _marked_lines(content)
    for function in ast.walk(module):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        lines = [_line(node) for node in ast.walk(function) if _line(node) in marked and _replaces_networks(node)]
        used = _depth_networks(function)
        lost = [name for name in replaced if name not in used]
        if lines and lost:
            instead = ", ".join(f"networks.{name}" for name in sorted(used - set(replaced))) or "none of `networks`"
            return (
                f"line {lines[0]} replaces networks.{' and networks.'.join(lost)}, by which `{function.name}` does not "
                f"build its depth nets (it uses {instead}): --encoder hybrid would be ignored. Put the encoder in by "
                "hand, as README says under 'Your own trainer'"
            )
    return ""


def _replaces_networks(node: ast.AST) -> bool:
    """Whether this is `networks = upstream.networks(...)`, or `upstream.networks_in(...)` in a script."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr in _REPLACING
    )


def _depth_networks(function: ast.AST) -> set[str]:
    """Names of `networks` that a function uses, without encoders of several images, which are pose nets."""
    nodes = list(ast.walk(function))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    several = {
        id(call.func)
        for call in calls
        if len(call.args) > 2 or any(keyword.arg == "num_input_images" for keyword in call.keywords)
        if isinstance(call.func, ast.Attribute) and call.func.attr == "ResnetEncoder"
    }
    return {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "networks"
        if id(node) not in several
    }


def _marked_lines(content: bytes) -> set[int]:
    return {number for number, line in enumerate(content.splitlines(), 1) if is_marked(line)}


def _uses(module: ast.Module, marked: set[int]) -> list[tuple[int, str, str]]:
    """(line, name, origin) of every variable and attribute of self on the inserted lines, in order."""
    attributes = {_of_self(node) for node in ast.walk(module) if _line(node) not in marked} - {None}
    in_module = set(_bound(module, marked))
    functions = [node for node in ast.walk(module) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    found = []
    for node in ast.walk(module):
        line = _line(node)
        if line not in marked:
            continue
        column = getattr(node, "col_offset", 0)
        if isinstance(node, ast.Name):
            around = [f for f in functions if f.lineno <= line <= (f.end_lineno or f.lineno)]
            local = any(node.id in _bound(function, marked) for function in around)
            kind = "a local variable" if local else "a name of the module" if node.id in in_module else "not assigned"
            found.append((line, column, node.id, kind))
        elif (name := _of_self(node)) is not None:
            kind = "used elsewhere" if name in attributes else "used nowhere else"
            found.append((line, column, f"self.{name}", kind))
    return [(line, name, kind) for line, _, name, kind in sorted(found)]


def _line(node: ast.AST) -> int:
    """The line of a node, counted from 1; 0 for a node without a line."""
    return getattr(node, "lineno", 0)


def _of_self(node: ast.AST) -> str | None:
    """NAME if a node is `self.NAME`, else None."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return None


def _bound(scope: ast.AST, marked: set[int]) -> Iterator[str]:
    """Names that a module or function itself assigns, on lines that were not inserted."""
    if isinstance(scope, _Function):
        arguments = scope.args
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            yield argument.arg
        yield from (argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument is not None)
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        if _line(node) in marked:
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]
        elif isinstance(node, ast.ExceptHandler) and node.name is not None:
            yield node.name
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
            continue
        if not isinstance(node, _Function):
            waiting.extend(ast.iter_child_nodes(node))
