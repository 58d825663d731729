"""Inserted lines that only have to follow a file's imports: they need no certain line beside them.

Python's grammar tells where the imports end, whatever a fork has added or removed. These lines are inserted there; all
other inserted lines keep the neighbours that they have in the original (`apply`).
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from .format import is_marked


@dataclass(frozen=True)
class ImportLines:
    """Inserted lines among a file's imports or right after them.

    Attributes:
        lines: with their line ends.
        before: the import that follows them in the original, as `ast.unparse` writes it; None: they follow the last
            import.
    """

    lines: tuple[bytes, ...]
    before: str | None


def split_imports(patched: bytes) -> tuple[bytes, list[ImportLines]]:
    """Removes the lines that only have to follow imports from an original with inserted lines.

    >>> text = b"import os\\nimport x  # hybrid-encoder: stack\\n\\nos.sep\\n"
    >>> rest, found = split_imports(text)
    >>> rest, found[0].lines
    (b'import os\\n\\nos.sep\\n', (b'import x  # hybrid-encoder: stack\\n',))

    Returns:
        The original with the other inserted lines; and the removed lines, in their order (none if Python cannot parse
        the file).
    """
    try:
        body = ast.parse(patched).body
    except (SyntaxError, ValueError):
        return patched, []
    lines = patched.splitlines(keepends=True)
    own = [node for node in body if not is_marked(lines[node.lineno - 1])]
    taken: set[int] = set()
    found = []
    for run in _marked_runs(lines):
        before = [node for node in own if node.lineno <= run.start]
        after = [node for node in own if node.lineno > run.start]
        if before and _is_import(before[-1]) and (before[-1].end_lineno or 0) <= run.start:
            follower = ast.unparse(after[0]) if after and _is_import(after[0]) else None
            found.append(ImportLines(tuple(lines[i] for i in run), follower))
            taken |= set(run)
    return b"".join(line for i, line in enumerate(lines) if i not in taken), found


def insert_imports(content: bytes, found: list[ImportLines]) -> bytes | None:
    """A file with the lines inserted after its imports; None: it has no imports, or Python cannot parse it."""
    for wanted in reversed(found):
        place = _place(content, wanted.before)
        if place is None:
            return None
        lines = content.splitlines(keepends=True)
        lines[place:place] = wanted.lines
        content = b"".join(lines)
    return content


def _place(content: bytes, before: str | None) -> int | None:
    """The index of the line before which to insert: at the import `before`; if it is missing, after all imports."""
    try:
        body = ast.parse(content).body
    except (SyntaxError, ValueError):
        return None
    lines = content.splitlines()
    main = next((i for i, node in enumerate(body) if _is_main(node)), len(body))
    imports = [node for node in body[:main] if _is_import(node) and not is_marked(lines[node.lineno - 1])]
    for i, node in enumerate(imports):
        if i and ast.unparse(node) == before:
            return node.lineno - 1
    return imports[-1].end_lineno if imports else None


def _marked_runs(lines: list[bytes]) -> list[range]:
    """Ranges of indices of consecutive marked lines."""
    runs: list[range] = []
    for i, line in enumerate(lines):
        if is_marked(line):
            begun = runs and runs[-1].stop == i
            runs[-1:] = [range(runs[-1].start, i + 1)] if begun else [*runs[-1:], range(i, i + 1)]
    return runs


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _is_main(node: ast.stmt) -> bool:
    """Whether this is `if __name__ == ...`: imports after it do not count."""
    return isinstance(node, ast.If) and "__name__" in {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}
