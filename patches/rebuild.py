"""Makes the patch files of a host from a clone whose work tree has the marked lines.

    python -m hybrid_encoder.patches.rebuild monodepth2 CLONE

CLONE's HEAD is the commit that the patches are for. The work tree may differ from it in lines that end in one of the
marks (`format.SERIES`), and in nothing else. patches/README.md says how to make such a work tree for a new commit of an
original.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from hybrid_encoder.errors import UserError

from .format import HOSTS, SERIES, FilePatch, Insertion, blob_id, is_marked, render_patch, without_marked

REPOSITORIES = {
    "monodepth2": "nianticlabs/monodepth2",
    "manydepth": "nianticlabs/manydepth",
    "mono_vifi": "LiuJF1226/Mono-ViFI",
}
FLAGS = {"monodepth2": "--encoder hybrid", "manydepth": "--encoder hybrid", "mono_vifi": "--backbone Hybrid"}
STACK_TITLE = "Run on today's PyTorch, torchvision, numpy and Pillow, on a GPU or not"


def insertions(after: bytes, mark: bytes) -> tuple[Insertion, ...]:
    """The lines that end in `mark`, with their places in the file without these lines."""
    found, gathered, position = [], [], 0
    for line in after.splitlines():
        if line.endswith(mark):
            gathered.append(line)
            continue
        if gathered:
            found.append(Insertion(position, tuple(gathered)))
            gathered = []
        position += 1
    return (*found, Insertion(position, tuple(gathered))) if gathered else tuple(found)


def split_marked(path: str, original: bytes, marked: bytes, mode: str) -> list[FilePatch | None]:
    """The part of each patch of the series for one marked file of a work tree; None: the patch does not change it.

    Raises:
        UserError: the file differs from the original by more than marked lines.
    """
    if without_marked(marked) != original:
        raise UserError(f"{path} differs from the commit by more than lines that end in a mark")
    patches: list[FilePatch | None] = []
    before = original
    for number, (_, mark) in enumerate(SERIES):
        later = tuple(mark.encode() for _, mark in SERIES[number + 1 :])
        lines = marked.splitlines(keepends=True)
        after = b"".join(line for line in lines if not (later and line.rstrip().endswith(later)))
        if after == before:
            patches.append(None)
        else:
            patch = FilePatch(path, blob_id(before), blob_id(after), mode, insertions(after, mark.encode()))
            assert patch.apply(before) == after
            patches.append(patch)
        before = after
    return patches


def rebuild(host: str, clone: Path, out: Path, repository: str) -> list[Path]:
    """Writes the patch files of a host to the folder `out`/`host`, and returns their paths.

    Raises:
        UserError: a patch has no marked line, or the work tree has other changes.
    """
    commit = git(clone, "rev-parse", "HEAD").decode().strip()
    series: list[list[FilePatch]] = [[] for _ in SERIES]
    for entry in git(clone, "ls-tree", "-r", "-z", "HEAD").decode().split("\0"):
        if not entry.endswith(".py"):
            continue
        mode, path = entry.split(" ", 1)[0], entry.split("\t", 1)[1]
        marked = (clone / path).read_bytes()
        if any(is_marked(line) for line in marked.splitlines()):
            original = git(clone, "cat-file", "blob", f"HEAD:{path}")
            for patches, patch in zip(series, split_marked(path, original, marked, mode), strict=True):
                patches += [patch] if patch else []
    if not all(series):
        raise UserError(f"{clone}: expected lines that end in each of the marks {[mark for _, mark in SERIES]}")
    written = []
    titles = (STACK_TITLE, f"Add {FLAGS[host]}")
    for (name, _), title, patches in zip(SERIES, titles, series, strict=True):
        file = out / host / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(render_patch(title, f"{repository} at {commit}", patches), encoding="utf-8")
        written.append(file)
    return written


def git(folder: Path, *command: str) -> bytes:
    """Output of a git command."""
    return subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True).stdout


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host", choices=HOSTS)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="default: beside this module")
    options = parser.parse_args()
    for path in rebuild(options.host, options.clone, options.out, REPOSITORIES[options.host]):
        print(path)


if __name__ == "__main__":
    main()
