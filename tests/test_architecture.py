"""The house's rules, read from its imports and its functions: docs/ARCHITECTURE.md draws them."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "hybrid_encoder"

LAYERS = (
    ("errors", "config", "options", "writing", "colormap", "images"),
    ("model", "weights", "released"),
    ("data", "engine", "synthetic", "metric"),
    ("evaluation", "prediction"),
    ("stage1",),
    ("stage2",),
    ("two_frame", "bev"),
    ("adapters", "patches"),
    ("commands",),
    ("cli", "__init__", "__main__"),
)
"""Files and folders of the package, lowest first. A room imports from its own layer and from those below it."""
ONLY_FOR = {"adapters": {"commands", "cli"}, "patches": {"commands"}}
"""Who else imports these rooms."""
MAX_ROOT_FILES = 9
MAX_LINES = 45
MAX_PARAMETERS = 6
AS_THE_ORIGINAL = {f"{PACKAGE}.adapters.manydepth.clone_networks:forward"}
"""What clones call with the arguments that their own nets take."""
SLOW = {"timm", "open_clip", "torchvision"}
"""Seconds to import each, and not needed by the tiny towers."""
ALWAYS_SLOW = {f"{PACKAGE}.bev.decoder"}
"""Made of timm's blocks."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax trees of the package by module name; adapters/ and patches/ belong to it."""
    folders = {PACKAGE: ROOT / PACKAGE}
    folders |= {f"{PACKAGE}.{name}": ROOT / name for name in ("adapters", "patches")}
    found = {}
    for package, folder in folders.items():
        for path in folder.rglob("*.py"):
            name = ".".join((package, *path.relative_to(folder).with_suffix("").parts))
            found[name] = ast.parse(path.read_text(), str(path))
    return found


def room(module: str) -> str:
    """The file or folder of the package that a module lies in."""
    return module.split(".")[1]


def imports(module: str, typing: bool) -> Iterator[tuple[str, int]]:
    """The package's modules that a module imports anywhere, with the line; `typing`: also those for type checkers
    alone."""
    nodes: list[ast.AST] = [modules()[module]]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield from ((name, node.lineno) for name in [resolve(source, alias.name)] if name)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in modules())
        skipped = not typing and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        nodes += node.orelse if isinstance(node, ast.If) and skipped else ast.iter_child_nodes(node)


def resolve(source: str, name: str) -> str | None:
    """The module that `from source import name` reads; None outside of the package."""
    for candidate in (f"{source}.{name}", source, f"{source}.__init__"):
        if candidate in modules():
            return candidate
    return None


def functions() -> Iterator[tuple[str, Function]]:
    """All functions and methods, each with the place to look at."""
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module}:{node.lineno} {node.name}", node


def lines(function: Function) -> int:
    """Its lines, docstring not counted."""
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and ast.get_docstring(function) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if is_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def parameters(function: Function) -> int:
    """How many it takes, `self` and `cls` not counted."""
    given = function.args
    return sum(a.arg not in ("self", "cls") for a in [*given.posonlyargs, *given.args, *given.kwonlyargs])


def test_every_room_has_a_layer() -> None:
    known = {name for layer in LAYERS for name in layer}
    assert {room(module) for module in modules()} == known


def test_arrows_point_down() -> None:
    floor = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    wrong = set()
    for module in modules():
        source = room(module)
        for imported, line in imports(module, typing=True):
            target = room(imported)
            only = ONLY_FOR.get(target, {source})
            if floor[target] > floor[source] or source not in {*only, target}:
                wrong.add(f"{module}:{line} imports {imported}")
    assert not wrong, "\n".join(sorted(wrong))


def test_no_import_circle() -> None:
    graph = {module: {name for name, _ in imports(module, typing=False)} for module in modules()}
    graphlib.TopologicalSorter(graph).prepare()


def test_slow_libraries_are_imported_where_they_are_needed() -> None:
    """By a function that needs them: `predict` and the trainers of tiny nets start without them."""
    wrong = []
    for module, tree in modules().items():
        if module in ALWAYS_SLOW or room(module) == "adapters":
            continue
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            wrong += [f"{module}:{node.lineno} imports {name}" for name in names if name.split(".")[0] in SLOW]
    assert not wrong, "\n".join(wrong)


def test_few_files_at_the_root() -> None:
    assert len(list((ROOT / PACKAGE).glob("*.py"))) <= MAX_ROOT_FILES


def test_functions_fit_on_a_screen() -> None:
    wrong = [f"{place}: {lines(node)} lines" for place, node in functions() if lines(node) > MAX_LINES]
    assert not wrong, "\n".join(wrong)


def test_functions_take_few_parameters() -> None:
    wrong = [
        f"{place}: {parameters(node)} parameters"
        for place, node in functions()
        if parameters(node) > MAX_PARAMETERS and node.name != "__init__"
        if f"{place.partition(':')[0]}:{node.name}" not in AS_THE_ORIGINAL
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_models_room_asks_which_encoder_it_is() -> None:
    wrong = [
        f"{module}:{node.lineno}"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if room(module) != "model" and isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
        if "HybridEncoder" in {getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(node)}
    ]
    assert not wrong, "\n".join(wrong)
