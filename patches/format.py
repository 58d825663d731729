"""The patch files for clones of the original trainers: their format, and how they are applied to a file.

They only insert whole lines. Every inserted line ends in a mark, so that removing the marked lines restores the file,
byte by byte. They contain no line of an original: full blob ids take the place of context.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hybrid_encoder.errors import UserError

HOSTS = ("monodepth2", "manydepth", "mono_vifi")
SERIES = (
    ("0001-current-stack.patch", "  # hybrid-encoder: stack"),
    ("0002-hybrid-encoder.patch", "  # hybrid-encoder: encoder"),
)
"""The patch files of a host in their order, each with the mark at the end of its lines."""

_MARKS = tuple(mark.strip().encode() for _, mark in SERIES)
_FILE = re.compile(
    r"^diff --git a/(?P<path>\S+) b/(?P=path)\nindex (?P<old>[0-9a-f]{40})\.\.(?P<new>[0-9a-f]{40}) (?P<mode>\d+)\n"
    r"--- a/(?P=path)\n\+\+\+ b/(?P=path)\n(?P<hunks>(?:@@ .*\n(?:\+.*\n)+)+)",
    re.MULTILINE,
)
_HUNK = re.compile(r"^@@ -(\d+),0 \+(\d+)(?:,(\d+))? @@\n((?:\+.*\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class Insertion:
    """Lines that are inserted after line `after` of the unpatched file (counted from 1; 0: at the beginning)."""

    after: int
    lines: tuple[bytes, ...]


@dataclass(frozen=True)
class FilePatch:
    """The insertions of one patch into one file.

    Attributes:
        path: relative to the clone.
        old, new: git's blob ids of the file before and after.
        mode: git's file mode.
        insertions: in the order of the file.
    """

    path: str
    old: str
    new: str
    mode: str
    insertions: tuple[Insertion, ...]

    def apply(self, content: bytes) -> bytes:
        """The file after the patch.

        Raises:
            UserError: the content is not that of the file that the patch is for.
        """
        if blob_id(content) != self.old:
            raise UserError(f"{self.path} is not the file that the patch is for: expected blob {self.old}")
        lines, end = content.splitlines(keepends=True), line_end(content)
        for insertion in reversed(self.insertions):
            lines[insertion.after : insertion.after] = [line + end for line in insertion.lines]
        patched = b"".join(lines)
        if blob_id(patched) != self.new:
            raise UserError(f"the patch of {self.path} is damaged: reinstall hybrid-encoder")
        return patched


@dataclass(frozen=True)
class HostPatches:
    """The patches of one host, in their order.

    Attributes:
        host: one of `HOSTS`.
        repository: owner and name on GitHub.
        commit: the commit that the patches are made for.
        series: for each patch, the files that it changes.
        package: the folder in the clone that holds all these files; "": the clone itself.
    """

    host: str
    repository: str
    commit: str
    series: tuple[tuple[FilePatch, ...], ...]
    package: str = ""

    def in_package(self, package: str) -> HostPatches:
        """The same patches for a clone whose package has another name.

        Raises:
            UserError: the host has no package, or `package` is no valid name.
        """
        if not self.package:
            raise UserError(f"--package {package}: {self.host} has no package; only ManyDepth has")
        name = package.rstrip("/")
        if not name or not all(part.isidentifier() for part in name.split("/")):
            raise UserError(f"--package {package!r}: expected the folder of the package in the clone, e.g. manydepth2")
        inside = f"{self.package}/"
        series = tuple(
            tuple(replace(patch, path=f"{name}/{patch.path.removeprefix(inside)}") for patch in patches)
            for patches in self.series
        )
        return replace(self, package=name, series=series)

    @property
    def paths(self) -> list[str]:
        """Paths of all files that are changed, sorted."""
        return sorted({patch.path for patches in self.series for patch in patches})

    def original_id(self, path: str) -> str:
        """The blob id of a file in the original."""
        return next(patch.old for patches in self.series for patch in patches if patch.path == path)

    def apply(self, path: str, original: bytes) -> bytes:
        """A file of the original with all patches."""
        for patches in self.series:
            for patch in patches:
                if patch.path == path:
                    original = patch.apply(original)
        return original

    def lines(self, path: str) -> list[bytes]:
        """All lines that are inserted into a file, sorted."""
        return sorted(
            line
            for patches in self.series
            for patch in patches
            if patch.path == path
            for insertion in patch.insertions
            for line in insertion.lines
        )


def read_patches(host: str, folder: Any = None) -> HostPatches:
    """The patches of a host, as shipped with the package.

    Args:
        host: one of `HOSTS`.
        folder: a path that holds the hosts' folders; None: that of the package.

    Raises:
        UserError: unknown host, or damaged patch files.
    """
    if host not in HOSTS:
        raise UserError(f"unknown host {host!r}: expected one of {', '.join(HOSTS)}")
    folder = importlib.resources.files("hybrid_encoder.patches") if folder is None else folder
    texts = [(folder / host / name).read_text(encoding="utf-8") for name, _ in SERIES]
    made_for = re.search(r"^Made for: (\S+) at ([0-9a-f]{40})$", texts[0], re.MULTILINE)
    if made_for is None:
        raise UserError(f"the patches of {host} do not say what they are made for: reinstall hybrid-encoder")
    package = "manydepth" if host == "manydepth" else ""
    return HostPatches(host, made_for[1], made_for[2], tuple(parse_patch(text) for text in texts), package)


def parse_patch(text: str) -> tuple[FilePatch, ...]:
    """Parses a patch file.

    Raises:
        UserError: it holds anything but insertions without context.
    """
    start = text.find("diff --git ")
    found, end = [], start
    for match in _FILE.finditer(text, start):
        hunks = list(_HUNK.finditer(match["hunks"]))
        if match.start() != end or "".join(hunk[0] for hunk in hunks) != match["hunks"]:
            break
        end = match.end()
        insertions = []
        for hunk in hunks:
            lines = tuple(line[1:].encode() for line in hunk[4].splitlines())
            insertions.append(Insertion(int(hunk[1]), lines))
        found.append(FilePatch(match["path"], match["old"], match["new"], match["mode"], tuple(insertions)))
    if start < 0 or end != len(text):
        line = text.count("\n", 0, max(end, 0)) + 1
        raise UserError(f"patch file, line {line}: expected insertions of whole lines without context")
    return tuple(found)


def render_patch(title: str, made_for: str, patches: Sequence[FilePatch]) -> str:
    """The text of a patch file, which `git apply --unidiff-zero` reads.

    Args:
        title: the first line: what the patch does.
        made_for: "owner/name at COMMIT".
        patches: the files that it changes.
    """
    parts = [f"{title}\n\nMade for: {made_for}\nApply with: hybrid-encoder patch, or as patches/README.md says\n"]
    parts.append("SPDX-License-Identifier: Apache-2.0\n\n")
    for patch in sorted(patches, key=lambda patch: patch.path):
        path, added = patch.path, 0
        parts.append(f"diff --git a/{path} b/{path}\nindex {patch.old}..{patch.new} {patch.mode}\n")
        parts.append(f"--- a/{path}\n+++ b/{path}\n")
        for insertion in patch.insertions:
            count = len(insertion.lines)
            size = "" if count == 1 else f",{count}"
            parts.append(f"@@ -{insertion.after},0 +{insertion.after + added + 1}{size} @@\n")
            parts += [f"+{line.decode()}\n" for line in insertion.lines]
            added += count
    return "".join(parts)


def is_marked(line: bytes) -> bool:
    """Whether a patch has inserted a line, which may be given with or without its line end."""
    return line.rstrip().endswith(_MARKS)


def without_marked(content: bytes) -> bytes:
    """A file without the lines that patches have inserted."""
    return b"".join(line for line in content.splitlines(keepends=True) if not is_marked(line))


def line_end(content: bytes) -> bytes:
    """The line end of a file: Windows' if all of its lines have it, else Unix'.

    >>> line_end(b"one\\r\\ntwo\\r\\nthree"), line_end(b"one\\r\\ntwo\\n")
    (b'\\r\\n', b'\\n')
    """
    windows = content.count(b"\r\n")
    return b"\r\n" if windows and windows == content.count(b"\n") else b"\n"


def blob_id(content: bytes) -> str:
    """Git's id of a file's content, as `git hash-object` gives it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
