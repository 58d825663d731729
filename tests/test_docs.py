"""README and docs: links lead somewhere, commands are understood, README's blocks and the notebooks run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hybrid_encoder.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("patches/*.md"), *ROOT.glob("benchmarks/*.md")})
LINK = re.compile(r"\]\(([^)\s]+)\)")
SMALL = "--height 64 --width 96 --batch_size 2 --num_workers 0 --device cpu"
SMALLER = {
    "pip": None,  # what is installed is what is tested
    "patch": None,  # of clones: tests/test_patches.py
    "predict": "",
    "pretrain": f"{SMALL} --epochs 1",
    "train": f"{SMALL} --num_epochs 1 --weights_init scratch --preset tiny --pose_model_type class_token",
    "evaluate": "--device cpu",
}
"""What README's commands are given besides, to run in seconds; None: not run here."""


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The words of every command of a page's bash blocks, without comments."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option of a written command exists; `...` stands for more of them."""
    asked: list[Any] = []
    monkeypatch.setattr("hybrid_encoder.cli.run_command", asked.append)
    ours = [words[1:] for words in commands(page) if words[0] == "hybrid-encoder" and words[-1] != "..."]
    for words in ours:
        assert main(words) == 0, words
    assert len(asked) == len(ours)


@pytest.fixture(scope="module")
def newcomer(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what README's commands name."""
    path = tmp_path_factory.mktemp("newcomer")
    shutil.copytree(scenes / "kitti", path / "KITTI")
    shutil.copytree(scenes / "tusimple", path / "TUSIMPLE")
    for name in ("eigen_zhou", "eigen"):
        shutil.copytree(path / "KITTI" / "splits" / "synthetic", path / "KITTI" / "splits" / name)
    frames = sorted((path / "KITTI").rglob("image_02/data/*.*"))[:3]
    pictures = [cv2.imread(str(frame)) for frame in frames]
    cv2.imwrite(str(path / "photo.jpg"), pictures[0])
    writer = cv2.VideoWriter(str(path / "drive.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, pictures[0].shape[1::-1])
    for picture in pictures:
        writer.write(picture)
    writer.release()
    yield path
    shutil.rmtree(path)


def test_readme_is_followed_literally(newcomer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(newcomer)
    for words in commands(ROOT / "README.md"):
        name = words[1] if words[0] == "hybrid-encoder" else words[0]
        more = SMALLER[name]
        if more is not None:
            assert main([*(word.replace("paper", "tiny") for word in words[1:]), *more.split()]) == 0, words
    assert {path.suffix for path in (newcomer / "depth").iterdir()} >= {".png", ".mp4"}
    assert (newcomer / "runs" / "mdp" / "models" / "weights_0" / "encoder.pth").exists()


def test_readmes_python_runs(newcomer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(newcomer)
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "README.md", "python"):
        exec(block.replace('"paper"', '"tiny"'), names)
    assert names["depth"].shape == (96, 320)
    assert np.isfinite(names["depth"]).all()
    assert [tuple(level.shape[2:]) for level in names["features"]] == [(192 >> i, 640 >> i) for i in range(1, 6)]


NOTEBOOKS_SMALLER = {
    "EPOCHS = 2": "EPOCHS = 1",
    "--sequences 6 --frames 6": "--sequences 3 --frames 3",
    "--height 96 --width 320 --lr": "--height 64 --width 96 --lr",
}


@pytest.mark.parametrize("notebook", sorted(ROOT.glob("examples/*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run(notebook: Path, module_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one folder, as in examples/: a notebook takes the scenes that another one has written."""
    monkeypatch.chdir(module_path)
    names: dict[str, Any] = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            for large, small in NOTEBOOKS_SMALLER.items():
                source = source.replace(large, small)
            exec(source, names)
    picture = names.get("picture", names.get("depth"))
    assert picture.shape[0] < picture.shape[1]
    assert picture.std() > 0


def test_the_site_is_built(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="pip install '.[docs]'")
    pytest.importorskip("mkdocstrings", reason="pip install '.[docs]'")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    ended = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "create_encoder" in (tmp_path / "site" / "REFERENCE" / "index.html").read_text(encoding="utf-8")
