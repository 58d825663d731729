"""Files are whole or not there, and what stands at an output path is respected."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path

import pytest

from hybrid_encoder import writing
from hybrid_encoder.errors import UserError
from hybrid_encoder.writing import atomic_path, whole_folder, write_text

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target, dangling = tmp_path / "disk" / "a.txt", tmp_path / "disk" / "b.txt"
    target.write_text("old")
    for link, goal in ((tmp_path / "link.txt", target), (tmp_path / "new.txt", dangling)):
        link.symlink_to(goal)
        write_text(link, "new")
        assert link.is_symlink()
        assert goal.read_text() == "new"
    assert sorted(path.name for path in tmp_path.rglob("*.txt")) == ["a.txt", "b.txt", "link.txt", "new.txt"]


def test_a_linked_folder_stays_and_what_it_links_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk" / "weights_best").mkdir(parents=True)
    link = tmp_path / "weights_best"
    link.symlink_to(tmp_path / "disk" / "weights_best")
    with whole_folder(link) as partial:
        (partial / "a").write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "disk" / "weights_best" / "a").read_text() == "new"


def test_pipes_and_devices_are_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "content")
    reader.join(10)
    assert read == ["content"]
    assert pipe.is_fifo()
    with atomic_path("/dev/null") as partial:
        partial.write_text("content")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(UserError, match="No space left on device"):
        write_text(Path("/dev/full"), "content")


def test_what_was_written_for_a_pipe_does_not_reach_it_when_the_block_raises(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(IsADirectoryError), atomic_path(pipe) as partial:
        partial.parent.write_text("what raises")


@pytest.mark.parametrize("name", ["x" * 240 + ".json", "é" * 125 + ".png", "x" * 255, "a." + "b" * 250])
def test_names_as_long_as_the_file_system_takes(name: str, tmp_path: Path) -> None:
    write_text(tmp_path / name, "content")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with whole_folder(tmp_path / f"d{name[1:]}") as partial:
        assert partial.is_dir()
    with pytest.raises(UserError, match="choose a shorter name"):
        write_text(tmp_path / ("x" * 256), "content")


def test_a_folder_is_no_name_for_a_file_nor_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a folder: give the name of a file"):
        write_text(tmp_path / "folder", "content")
    with pytest.raises(UserError, match="is a file: give the name of a folder"), whole_folder(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_what_others_put_into_a_replaced_folder_moves_along(tmp_path: Path) -> None:
    folder = tmp_path / "weights_best"
    for text in ("old", "new"):
        with whole_folder(folder) as partial:
            (partial / "encoder.pth").write_text(text)
        (folder / "notes.txt").write_text("mine")
        (folder / "pictures").mkdir(exist_ok=True)
    assert sorted(path.name for path in folder.iterdir()) == ["encoder.pth", "notes.txt", "pictures"]
    assert (folder / "encoder.pth").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["weights_best"]


def test_file_systems_that_do_not_sync_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(number: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{number}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(writing.os, "fsync", sync)
    write_text(tmp_path / "a", "content")
    assert (tmp_path / "a").read_text() == "content"
