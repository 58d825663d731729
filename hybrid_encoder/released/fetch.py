"""Fetches the authors' checkpoints from their repository on the hub after asking, and says how to do it by hand.

Their repository states no licence: so the files are never part of this package, and are not fetched unasked.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ..errors import UserError

REPOSITORY = "WenyaoZhang/Hybrid-depth"
STAGE1 = "stage1_checkpoint/stage1.ckpt"
STAGE2_ROOTS = ("checkpoints", "stage2_checkpoints")
"""Folders of the repository under which stage 2 lies."""
NETS = ("encoder.pth", "depth.pth")
"""Files that every folder of stage 2 holds."""
_UNUSED = "adam.pth"
_SECONDS = 8.0
"""How long a hub may not answer before it counts as out of reach."""

Part = Literal["stage1", "stage2"]


@dataclass(frozen=True)
class Hub:
    """Where files are fetched from and kept.

    Attributes:
        endpoint: address of the hub; None: `huggingface_hub`'s default.
        cache_dir: folder for fetched files; None: `huggingface_hub`'s default.
    """

    endpoint: str | None = None
    cache_dir: Path | None = None


def fetch_released(part: Part, folder: str = "", yes: bool = False, hub: Hub | None = None) -> Path:
    """The authors' folder of stage 2, or their file of stage 1, on this machine; fetched if it is not there yet.

    Args:
        folder: which folder of stage 2 in the repository; empty: the only one.
        yes: fetch without asking.
        hub: None: the default hub.

    Raises:
        UserError: the hub is out of reach, has no such files, or has several folders and `folder` names none of them;
            or the user did not agree.
    """
    hub = hub or Hub()
    kept = _kept(part, folder, hub)
    if kept is not None:
        return kept
    info = _look_up(part, hub)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    files = _wanted(part, folder, sizes)
    _agree(files, sizes, _licence(info), yes)
    root = _download(part, files, hub)
    return root / STAGE1 if part == "stage1" else (root / files[0]).parent


def by_hand(part: Part) -> str:
    """Where the files are and what to do with them, for a user without network."""
    page = f"https://huggingface.co/{REPOSITORY}"
    if part == "stage1":
        return f"fetch {page}/resolve/main/{STAGE1} elsewhere, and give the file: --stage1 stage1.ckpt"
    roots = " or ".join(f"{page}/tree/main/{root}" for root in STAGE2_ROOTS)
    return (
        f"fetch one folder of {roots} elsewhere ({', '.join(NETS)}; pose_encoder.pth and pose.pth where they are), and "
        "give that folder in place of the name"
    )


def _look_up(part: Part, hub: Hub) -> Any:
    """The hub's information about the repository: its files with their sizes, and its licence."""
    from huggingface_hub import HfApi  # slow to import

    try:
        return HfApi(endpoint=hub.endpoint).model_info(REPOSITORY, files_metadata=True, timeout=_SECONDS)
    except Exception as error:  # the hub's client raises classes of three libraries; all mean out of reach
        raise _not_fetched(part, error) from error


def _download(part: Part, files: list[str], hub: Hub) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                REPOSITORY,
                allow_patterns=files,
                cache_dir=hub.cache_dir,
                endpoint=hub.endpoint,
                etag_timeout=_SECONDS,
            )
        )
    except Exception as error:  # as in `_look_up`
        raise _not_fetched(part, error) from error


def _not_fetched(part: Part, error: Exception) -> UserError:
    reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return UserError(f"{REPOSITORY} could not be fetched from the hub ({reason}): {by_hand(part)}")


def _kept(part: Part, folder: str, hub: Hub) -> Path | None:
    """What an earlier call has fetched; None: nothing. Read from the cache's folders, since the hub's client finds only
    whole repositories."""
    from huggingface_hub.constants import HF_HUB_CACHE

    repository = Path(hub.cache_dir or HF_HUB_CACHE) / f"models--{REPOSITORY.replace('/', '--')}"
    main = repository / "refs" / "main"
    if not main.is_file():
        return None
    root = repository / "snapshots" / main.read_text().strip()
    there = {path.relative_to(root).as_posix(): 0 for path in root.rglob("*") if path.is_file()}
    if part == "stage1":
        return root / STAGE1 if STAGE1 in there else None
    folders = _stage2_folders(there)
    if folder:
        return root / folder if folder in folders else None
    return root / folders[0] if len(folders) == 1 else None


def _stage2_folders(sizes: dict[str, int]) -> list[str]:
    """Folders of the repository that hold the nets of stage 2."""
    parents = {str(PurePosixPath(name).parent) for name in sizes}
    inside = {parent for parent in parents if PurePosixPath(parent).parts[:1] in [(root,) for root in STAGE2_ROOTS]}
    return sorted(parent for parent in inside if all(f"{parent}/{net}" in sizes for net in NETS))


def _wanted(part: Part, folder: str, sizes: dict[str, int]) -> list[str]:
    """The files to fetch, by their names in the repository."""
    if part == "stage1":
        if STAGE1 not in sizes:
            raise UserError(f"{REPOSITORY} has no {STAGE1} any more: look at https://huggingface.co/{REPOSITORY}")
        return [STAGE1]
    folders = _stage2_folders(sizes)
    if not folders:
        raise UserError(
            f"{REPOSITORY} has no {' and '.join(NETS)} under {' or '.join(STAGE2_ROOTS)} any more: look at "
            f"https://huggingface.co/{REPOSITORY}"
        )
    if (folder and folder not in folders) or (not folder and len(folders) > 1):
        names = ", ".join(f"released:{name}" for name in folders)
        raise UserError(f"{REPOSITORY} has {len(folders)} folders of stage 2: name one of {names}")
    chosen = PurePosixPath(folder or folders[0])
    return sorted(
        name
        for name in sizes
        if PurePosixPath(name).parent == chosen and name.endswith(".pth") and PurePosixPath(name).name != _UNUSED
    )


def _licence(info: Any) -> str:
    card = getattr(info, "card_data", None)
    stated = card.get("license") if card is not None else None
    return f"its page states the licence {stated}" if stated else "no licence is stated there"


def _agree(files: list[str], sizes: dict[str, int], licence: str, yes: bool) -> None:
    """Prints what would be fetched, and asks once.

    Raises:
        UserError: the answer is no, or stdin is no terminal.
    """
    total = sum(sizes[name] for name in files) / 1e6
    names = ", ".join(files)
    print(
        f"{REPOSITORY} on the Hugging Face Hub, files of Hybrid-depth's authors: {names}; {total:.0f} MB; {licence}",
        file=sys.stderr,
    )
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("nothing was fetched, as there is nobody to ask: add --yes to fetch these files")
    print("Fetch them? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was fetched: answer y, or add --yes")
