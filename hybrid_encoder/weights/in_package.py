"""The weights in the package: their names, their folders and what they are."""

from __future__ import annotations

from pathlib import Path

DEFAULT = "tiny-rendered"
"""The weights that `hybrid-encoder predict` takes where none are given."""
_FOLDER = Path(__file__).parent / "shipped"


def shipped_folder(name: str | Path) -> Path | None:
    """The folder of the shipped weights of this name; None: there are none, or a local file or folder has the name.

    >>> shipped_folder("paper") is None
    True
    """
    if Path(name).exists() or str(name) not in shipped_names():
        return None
    return _FOLDER / str(name)


def shipped_names() -> list[str]:
    """All names, sorted."""
    return sorted(folder.name for folder in _FOLDER.iterdir() if folder.is_dir())


def what_it_is(name: str, training_data: str) -> str:
    """One line about shipped weights.

    >>> what_it_is("tiny-rendered", "rendered scenes")  # doctest: +NORMALIZE_WHITESPACE
    'tiny-rendered: a tiny model for trying out, trained on rendered scenes; its depth has no metric scale (your own
    weights: --weights FOLDER)'
    """
    return (
        f"{name}: a tiny model for trying out, trained on {training_data}; its depth has no metric scale (your own "
        "weights: --weights FOLDER)"
    )
