"""Patches a clone of an original trainer, or reverts it: all files or none, and never a line in the wrong place.

`git apply` trusts line numbers if there is no context. Here a file is patched directly only if its blob id is the one
that the patch was made for; a changed file is merged three ways with the original, which git keeps in the clone.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hybrid_encoder.errors import UserError

from .format import HostPatches, blob_id, is_marked, line_end, read_patches, without_marked
from .imports import insert_imports, split_imports
from .known_hosts import BY_HAND, BY_HAND_PAGE, advice
from .names import REPLACED, lost_name, unused_networks

_MARKER_SIZE = 31
"""Length of conflict markers in a merge; it differs from that of any markers in a user's file."""

_SCRIPTS = {
    "monodepth2": ("evaluate_depth.py", "evaluate_pose.py", "export_gt_depth.py", "test_simple.py"),
    "manydepth": ("evaluate_depth.py", "export_gt_depth.py", "test_simple.py"),
    "mono_vifi": (
        "evaluate_depth_mf.py",
        "export_gt_depth.py",
        "test_simple.py",
        "test_video.py",
        "train_vfi.py",
    ),
}
"""Files of the host, or of its package, that no other file needs: a fork may have deleted them."""


@dataclass(frozen=True)
class Change:
    """The change of one file; `after` is None: no change; `problem` says why the file cannot be patched."""

    path: str
    before: bytes
    after: bytes | None
    note: str
    problem: str = ""


class Clone:
    """A folder that holds an original or a fork of it, under git or not."""

    def __init__(self, folder: Path, patches: HostPatches) -> None:
        self.folder = folder
        self.patches = patches

    def read(self, path: str) -> bytes | None:
        """A file's content; None where there is none."""
        try:
            return (self.folder / path).read_bytes()
        except FileNotFoundError:
            return None

    def git(self, *command: str) -> bytes | None:
        """Output of a git command in the folder; None where it fails or git is missing."""
        environment = {**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
        try:
            done = subprocess.run(["git", "-C", str(self.folder), *command], capture_output=True, env=environment)
        except FileNotFoundError:
            return None
        return done.stdout if done.returncode == 0 else None

    def describe(self) -> str:
        """Which commit or fork this is, in words."""
        top = self.git("rev-parse", "--show-toplevel")
        if top is None or Path(top.decode().strip()).resolve() != self.folder.resolve():
            return "a copy without git"
        known = self.patches.commit
        head = (self.git("rev-parse", "HEAD") or b"").decode().strip()
        if head == known:
            return f"commit {known[:7]}, which the patches are made for"
        if self.git("merge-base", "--is-ancestor", known, "HEAD") is not None:
            count = (self.git("rev-list", "--count", f"{known}..HEAD") or b"?").decode().strip()
            return f"commit {head[:7]}, a fork {count} commits after {known[:7]}"
        if self.git("merge-base", "--is-ancestor", "HEAD", known) is not None:
            count = (self.git("rev-list", "--count", f"HEAD..{known}") or b"?").decode().strip()
            return f"commit {head[:7]}, {count} commits before {known[:7]}"
        return f"commit {head[:7]}, of another history than {known[:7]}"

    def uncommitted(self) -> set[str]:
        """Files with uncommitted changes other than inserted lines."""
        found = set()
        for path in self.patches.paths:
            committed, now = self.git("show", f"HEAD:./{path}"), self.read(path)
            if committed is not None and now is not None:
                same = without_marked(_unix(now)[0]) == without_marked(_unix(committed)[0])
                found |= set() if same else {path}
        return found


def patch_clone(
    host: str, path: str | Path, check: bool = False, revert: bool = False, package: str | None = None
) -> str:
    """Patches a clone so that it runs on today's libraries and has `--encoder hybrid`, or reverts that.

    Args:
        host: one of `format.HOSTS`.
        path: the clone's folder.
        check: only report what would be done.
        revert: remove the inserted lines again; every file gets its bytes back.
        package: the folder of the clone's package, if a fork of ManyDepth has renamed it.

    Returns:
        What was found and done, in lines of text.

    Raises:
        UserError: this is no such clone, the places of lines have changed, or a function builds its depth nets by other
            names than those that a line replaces; nothing is written then.
    """
    patches = read_patches(host)
    return patch_with(patches if package is None else patches.in_package(package), Path(path), check, revert)


def patch_with(patches: HostPatches, folder: Path, check: bool = False, revert: bool = False) -> str:
    """`patch_clone` with given patches."""
    clone = Clone(folder, patches)
    missing = [path for path in patches.paths if clone.read(path) is None]
    scripts = {f"{patches.package}/{name}".lstrip("/") for name in _SCRIPTS[patches.host]}
    needed = [path for path in missing if path not in scripts]
    if needed and (not revert or len(missing) == len(patches.paths)):
        raise UserError(
            f"{folder} holds no {', '.join(needed)}: expected a clone of {patches.repository}. "
            f"{advice(folder, patches.host)}"
        )
    changes = [_revert(clone, path) if revert else _plan(clone, path) for path in patches.paths if path not in missing]
    problems: dict[str, list[str]] = {}
    for change in changes:
        if change.problem:
            problems.setdefault(change.problem, []).append(change.path)
    if problems:
        found = [f"  {', '.join(paths)}: {problem}" for problem, paths in problems.items()]
        remedy = advice(folder, patches.host)
        found += [f"  {remedy}"] if remedy != BY_HAND or not any(BY_HAND_PAGE in line for line in found) else []
        raise UserError("\n".join([f"{folder} ({clone.describe()}) is not patched, nothing was written:", *found]))
    todo = [change for change in changes if change.after is not None and change.after != change.before]
    if not check:
        _write_all(folder, todo)
    lines = [f"{patches.host} at {folder}: {clone.describe()}"]
    uncommitted = clone.uncommitted() if not revert else set()
    for change in changes:
        lines.append(f"  {change.path}: {change.note}{' (uncommitted ones, too)' * (change.path in uncommitted)}")
    lines += [f"  {path}: not there, left out" for path in missing]
    done = "would change" if check else "changed"
    lines.append(f"{len(todo)} files {done}" if todo else "Nothing to do.")
    if todo and not revert and not check:
        renamed = f" --package {patches.package}" if patches.package not in ("", patches.host) else ""
        lines.append(f"Undo with: hybrid-encoder patch {patches.host} {shlex.quote(str(folder))} --revert{renamed}")
    return "\n".join(lines)


def _revert(clone: Clone, path: str) -> Change:
    before = clone.read(path) or b""
    known = set(clone.patches.lines(path))
    marked = [line for line in before.splitlines() if is_marked(line)]
    others = [line.decode(errors="replace").strip() for line in marked if line.rstrip() not in known]
    note = f"{len(marked)} lines taken out" if marked else "no inserted lines"
    if others:
        note += f", of which this version would insert others: {'; '.join(others)}"
    return Change(path, before, without_marked(before), note)


def _plan(clone: Clone, path: str) -> Change:
    """The change that inserts the lines into one file."""
    patches, before = clone.patches, clone.read(path) or b""
    text, windows = _unix(before)
    marked = sorted(line for line in text.splitlines() if is_marked(line))
    if marked == patches.lines(path):
        return Change(path, before, None, "patched already", unused_networks(text, REPLACED[patches.host]))
    own = without_marked(text)
    note = f"{len(marked)} lines of another version replaced, " if marked else ""
    same = [found for found in (without_marked(before), own) if blob_id(found) == patches.original_id(path)]
    if same:
        after, note = _unix(patches.apply(path, same[0]))[0], note + "as the original"
    else:
        original = clone.git("cat-file", "blob", patches.original_id(path))
        if original is None:
            return Change(path, before, None, "", _no_base(clone))
        patched = patches.apply(path, original)
        if b"\r\n" not in own:
            original, patched = _unix(original)[0], _unix(patched)[0]
        merged, problem = _merged(path, own, original, patched)
        if merged is None:
            return Change(path, before, None, "", problem)
        after, note = merged, note + "merged with your changes"
        problem = problem or unused_networks(after, REPLACED[patches.host])
        if problem:
            return Change(path, before, None, "", problem)
    return Change(path, before, after.replace(b"\n", b"\r\n") if windows else after, note)


def _merged(path: str, own: bytes, original: bytes, patched: bytes) -> tuple[bytes | None, str]:
    """A changed file with the inserted lines, and why the result is not trusted (""); or None and the conflicts.

    Lines that only have to follow the imports are placed by Python's grammar, all others by a three-way merge.
    """
    rest, imports = split_imports(patched)
    if insert_imports(own, imports) is None:
        rest, imports = patched, []  # Python cannot parse this file: the merge places all lines
    merged, conflicts = _merge(own, original, rest)
    if merged is None:
        return None, conflicts
    after = insert_imports(merged, imports)
    if after is None or without_marked(after) != own:
        return None, "the merge would change lines of yours"
    return after, _misplaced(path, own, (rest, merged), (patched, after))


def _no_base(clone: Clone) -> str:
    commit, repository = clone.patches.commit, clone.patches.repository
    fetch = f"`git fetch https://github.com/{repository} {commit}`"
    if (clone.folder / ".git").exists():
        known, remedy = "which the git of this folder does not know", f"get it with {fetch}"
    else:
        known, remedy = "and this folder is no git repository", f"make it one with `git init`, then {fetch}"
    return f"not as in the original at {commit[:7]}, {known}, so that a merge is not possible; {remedy}"


def _merge(own: bytes, original: bytes, patched: bytes) -> tuple[bytes | None, str]:
    """Three-way merge: the result, or None and the conflicts with their places in the user's file."""
    with tempfile.TemporaryDirectory() as folder:
        names = ["own", "original", "patched"]
        for name, content in zip(names, (own, original, patched), strict=True):
            (Path(folder) / name).write_bytes(content)
        command = ["git", "merge-file", "-p", f"--marker-size={_MARKER_SIZE}", *names]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True)
        except FileNotFoundError:
            return None, "it differs from the original, and git, which could merge it, is not installed"
    if done.returncode == 0:
        return done.stdout, ""
    conflicts = _conflicts(done.stdout)
    return None, conflicts or f"git merge-file failed: {done.stderr.decode(errors='replace').strip()}"


def _conflicts(merged: bytes) -> str:
    """From a merge with conflict markers: where the user's lines have changed, and which lines would go there."""
    found, line, side, start = [], 1, "both", 1
    wanted: list[str] = []
    for text in merged.splitlines():
        if text.startswith(b"<" * _MARKER_SIZE):
            side, start, wanted = "own", line, []
        elif side == "own" and text.startswith(b"=" * _MARKER_SIZE):
            side = "patched"
        elif side == "patched" and text.startswith(b">" * _MARKER_SIZE):
            side = "both"
            found.append(f"about line {start} it has changed where `{'; '.join(wanted)}` goes")
        elif side == "patched":
            wanted += [text.decode(errors="replace").strip()] if is_marked(text) else []
        else:
            line += not is_marked(text)
    return ". ".join(found)


def _misplaced(path: str, own: bytes, by_place: tuple[bytes, bytes], all_lines: tuple[bytes, bytes]) -> str:
    """Why a merge is not trusted; empty if it is.

    Args:
        path: names the file in Python's errors.
        own: the user's file.
        by_place: the original and the merged file, each with the lines that the merge has placed.
        all_lines: the same two files with all lines.
    """
    patched, merged = all_lines
    if _neighbours(by_place[0]) != _neighbours(by_place[1]):
        return "the merge would put lines elsewhere than in the original"
    try:
        compile(own, path, "exec", dont_inherit=True)
    except SyntaxError:
        return ""  # Python cannot parse the user's own file either
    try:
        compile(merged, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"after the merge, Python could not read line {error.lineno}"
    lost = lost_name(merged, patched)
    return f"the lines have their places, but {lost}" if lost else ""


def _neighbours(content: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Every inserted line with the file's own lines before and after it."""
    lines = content.splitlines()
    found, before = [], b""
    for i, line in enumerate(lines):
        if is_marked(line):
            after = next((other for other in lines[i:] if not is_marked(other)), b"")
            found.append((before, line, after))
        else:
            before = line
    return found


def _write_all(folder: Path, changes: list[Change]) -> None:
    """Writes all files or none: first beside the old files, then in their place; if this fails, restores the old
    files."""
    prepared: list[tuple[Change, Path, Path]] = []
    replaced: list[tuple[Change, Path]] = []
    try:
        for change in changes:
            target = (folder / change.path).resolve()
            partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
            prepared.append((change, target, partial))
            partial.write_bytes(change.after or b"")
            shutil.copymode(target, partial)
        for change, target, partial in prepared:
            if target.read_bytes() != change.before:
                raise UserError(f"{target} changed meanwhile: run the command again")
            os.replace(partial, target)
            replaced.append((change, target))
    except BaseException as error:
        for change, target in replaced:
            target.write_bytes(change.before)
        if isinstance(error, OSError):
            name = error.filename or folder
            raise UserError(f"{name} cannot be written ({error.strerror}): nothing changed") from error
        raise
    finally:
        for _, _, partial in prepared:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def _unix(content: bytes) -> tuple[bytes, bool]:
    """A file with Unix line ends, and whether all of its lines had Windows line ends."""
    if line_end(content) == b"\r\n":
        return content.replace(b"\r\n", b"\n"), True
    return content, False
