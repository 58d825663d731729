"""Runs that survive: resuming bit for bit, signals, faults of disk, data, numbers and processes."""

from __future__ import annotations

import copy
import errno
import io
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing import util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from hybrid_encoder import cli
from hybrid_encoder.data import loader as loading
from hybrid_encoder.engine import folder as folders
from hybrid_encoder.engine import state as states
from hybrid_encoder.engine.failures import explain
from hybrid_encoder.engine.folder import exclusive
from hybrid_encoder.engine.loop import Interrupted, LoopOptions
from hybrid_encoder.engine.output import steady_output
from hybrid_encoder.engine.processes import Processes, processes
from hybrid_encoder.engine.record import METRICS_FILE, read_metrics
from hybrid_encoder.engine.same_run import check_same_run, fixed_options, folder_digests
from hybrid_encoder.engine.signals import Stop, end_in_order
from hybrid_encoder.engine.state import load_state, save_state
from hybrid_encoder.engine.step import Stepper
from hybrid_encoder.engine.task import load_task_state, task_state
from hybrid_encoder.engine.validation import Validation
from hybrid_encoder.errors import UserError
from hybrid_encoder.stage1.inputs import stage1_inputs
from hybrid_encoder.stage1.ordered_points import open_sources
from hybrid_encoder.stage2.checkpoint import newest_weights
from hybrid_encoder.stage2.frames import open_source
from hybrid_encoder.stage2.inputs import run_inputs
from hybrid_encoder.stage2.options import FREE_OPTIONS, Monodepth2Options
from hybrid_encoder.writing import whole_folder

from .toy_run import ALONE, BATCH, SAMPLES, At, ToyModel, ToyTask, differences, run, signal_at

STEPS = SAMPLES // BATCH
UNTIMED = ("time", "images_per_second", "loading_share")


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in UNTIMED} for line in read_metrics(folder)]


def assert_same_run(folder: Path, undisturbed: Path) -> None:
    assert differences(load_state(folder), load_state(undisturbed)) == []
    assert metrics(folder) == metrics(undisturbed)


@pytest.mark.parametrize(("accumulate", "per_step"), [(1, False), (3, True)])
def test_a_run_interrupted_anywhere_ends_as_if_it_had_not_been(
    accumulate: int, per_step: bool, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options: dict[str, Any] = {"accumulate": accumulate, "per_step": per_step}
    whole = run(tmp_path / "whole", **options)
    state = load_state(tmp_path / "whole")
    assert state is not None
    assert (state["step"], state["epoch"]) == (3 * STEPS, 3)
    for step in (1, 2, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS + 3):
        folder = tmp_path / str(step)
        with pytest.raises(Interrupted, match="same command"):
            run(folder, signal_at(step), **options)
        half = load_state(folder)
        assert half is not None
        # What is added up is not lost: the group of batches is finished first, and an epoch's last one is smaller.
        in_epoch = (step - 1) % STEPS + 1
        assert half["step_in_epoch"] == min(-(-in_epoch // accumulate) * accumulate, STEPS)
        resumed = run(folder, **options)
        assert resumed.saved == whole.saved
        assert_same_run(folder, tmp_path / "whole")
    finished = run(tmp_path / "whole", **options)
    assert "finished" in capsys.readouterr().out
    assert finished.model.calls == 0


def test_a_run_begins_with_what_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(tmp_path)
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "training: 22 samples on cpu, 0.00 M parameters, of which 0.00 M train, 3 epochs of 11 steps"


def test_interrupted_again_and_again(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    for _ in range(3 * STEPS + 1):
        try:
            run(tmp_path / "often", signal_at(2, signal.SIGINT))
            break
        except Interrupted:
            pass
    assert_same_run(tmp_path / "often", tmp_path / "whole")


def test_a_stop_during_validation_does_not_wait_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "whole")

    validate, calls = ToyTask.validate, []

    def slow(self: ToyTask, group: Any) -> dict[str, float]:
        calls.append(group)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        return validate(self, group)

    monkeypatch.setattr(ToyTask, "validate", slow)
    started = time.monotonic()
    with pytest.raises(Interrupted):
        run(tmp_path / "half")
    assert time.monotonic() - started < 15
    run(tmp_path / "half")
    assert_same_run(tmp_path / "half", tmp_path / "whole")


def in_child(act: Callable[[], Any]) -> int | None:
    """Exit status of a forked process that does `act`."""
    child = multiprocessing.get_context("fork").Process(target=act)
    child.start()
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


def test_a_second_signal_exits_at_once(tmp_path: Path) -> None:
    def twice(model: ToyModel, x: Tensor) -> Tensor:
        if model.calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        return x

    assert in_child(lambda: run(tmp_path, twice)) == 128 + signal.SIGTERM


def test_killed_runs_go_on_from_their_last_state(tmp_path: Path) -> None:
    run(tmp_path / "whole", save_minutes=0)
    for step in (2, STEPS + 4):
        assert in_child(lambda at=step: run(tmp_path / "killed", signal_at(at, signal.SIGKILL))) == -signal.SIGKILL
        (tmp_path / "killed" / ".state_000000099.1.partial.pt").write_bytes(b"half")
    run(tmp_path / "killed")
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    assert not list((tmp_path / "killed").glob(".*partial*"))


def test_states_within_an_epoch(tmp_path: Path) -> None:
    killed = in_child(lambda: run(tmp_path, signal_at(5, signal.SIGKILL), save_minutes=0))
    assert killed == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.glob("state_*")) == ["state_000000003.pt", "state_000000004.pt"]


def test_tensorboard_holds_every_figure_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(Interrupted):
        run(tmp_path, signal_at(STEPS))
    run(tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("val/error")] == [0, STEPS, 2 * STEPS, 3 * STEPS]
    steps = [event.step for event in events.Scalars("train/loss")]
    assert steps == [line["step"] for line in metrics(tmp_path) if line["kind"] == "train"]
    assert len(set(steps)) == len(steps)


def test_a_damaged_line_of_metrics_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(tmp_path, epochs=1)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"kind": "tra')
    assert len(list(read_metrics(tmp_path))) == len((tmp_path / METRICS_FILE).read_text().splitlines()) - 1
    assert "damaged" in capsys.readouterr().err


def test_other_options_are_refused_and_named(tmp_path: Path) -> None:
    run(tmp_path, epochs=1, same_run={"learning_rate": 0.1, "scales": [0, 1]})
    with pytest.raises(UserError, match=r"learning_rate was 0\.1, is 0\.2"):
        run(tmp_path, same_run={"learning_rate": 0.2, "scales": [0, 1]})
    with pytest.raises(UserError, match="steps_of_an_epoch"):
        check_same_run(tmp_path, {"steps_of_an_epoch": 3}, {"steps_of_an_epoch": 4})
    first = Monodepth2Options(data_path=Path("a"), device="cpu", resume=True)
    moved = Monodepth2Options(data_path=Path("b"), num_workers=1, num_epochs=30)
    assert fixed_options(first, FREE_OPTIONS) == fixed_options(moved, FREE_OPTIONS)
    assert fixed_options(first, FREE_OPTIONS) != fixed_options(Monodepth2Options(seed=1), FREE_OPTIONS)
    run(tmp_path, same_run={"learning_rate": 0.1, "scales": [0, 1]})


def test_resuming_nothing_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(tmp_path, resume=True, epochs=1)
    assert "starting anew" in capsys.readouterr().out


def test_the_best_the_last_and_every_nth_epoch_are_kept(tmp_path: Path) -> None:
    task = run(tmp_path, epochs=6, save_frequency=4)
    errors = [line["error"] for line in metrics(tmp_path) if line["kind"] == "val"][1:]
    best = [epoch for epoch, error in enumerate(errors) if error == min(errors[: epoch + 1])]
    assert task.saved == [(epoch, epoch in best) for epoch in range(6) if epoch in (3, 5, *best)]
    run(tmp_path / "seldom", epochs=6, save_frequency=4, best=None)
    assert load_state(tmp_path / "seldom")["extra"]["saved"] == [(3, False), (5, False)]  # type: ignore[index]


def test_a_run_that_goes_wrong_says_so_and_stops_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def warn(found: Mapping[str, float]) -> str:
        return "depth is flat; what helps: another seed" if found["error"] > 0 else ""

    run(tmp_path / "on", warn=warn)
    lines = [line for line in metrics(tmp_path / "on") if line["kind"] == "warning"]
    assert [(line["epoch"], line["warning"]) for line in lines] == [(n, warn({"error": 1})) for n in (1, 2, 3)]
    assert capsys.readouterr().err.count("warning after epoch 2: depth is flat") == 1
    with pytest.raises(UserError, match=r"stops after epoch 2, its state is saved: depth is flat"):
        run(tmp_path / "off", warn=warn, stop_on_warning=True)
    assert load_state(tmp_path / "off")["epoch"] == 2  # type: ignore[index]
    run(tmp_path / "off", warn=warn)  # resumes without
    assert_same_run(tmp_path / "off", tmp_path / "on")
    run(tmp_path / "well", warn=lambda found: "", stop_on_warning=True)
    assert not [line for line in metrics(tmp_path / "well") if line["kind"] == "warning"]


def test_one_warning_alone_stops_nothing(tmp_path: Path) -> None:
    found = iter(["flat", "", "flat"])
    run(tmp_path, warn=lambda _: next(found), stop_on_warning=True)
    assert load_state(tmp_path)["epoch"] == 3  # type: ignore[index]


# --- the same run


def test_other_inputs_are_refused_and_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(tmp_path, epochs=1, inputs={"train split": "3 lines, a", "--stage1": "9 bytes, b"})
    other = {"train split": "3 lines, c", "--stage1": "9 bytes, b"}
    with pytest.raises(UserError, match=r"other data: train split: was 3 lines, a, is 3 lines, c\. .*--resume"):
        run(tmp_path, inputs=other)
    with pytest.raises(UserError, match=r"--stage1: was 9 bytes, b, is not read"):
        run(tmp_path, inputs={"train split": "3 lines, a"})
    capsys.readouterr()
    run(tmp_path, inputs=other, resume=True)
    assert "resuming with other data" in capsys.readouterr().err
    run(tmp_path, inputs=other)  # which are the run's own from then on


def test_files_are_told_apart_without_reading_them(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "drive"
    folder.mkdir(parents=True)
    files = [folder / f"{name}.jpg" for name in "ab"]
    for file in files:
        file.write_bytes(b"1234")
        os.utime(file, (1e9, 1e9))
    first = folder_digests([*files, *files, folder / "missing.jpg"], tmp_path / "data")
    assert list(first) == ["files in drive"]
    assert first["files in drive"].startswith("2 files, 8 bytes, last changed 2001-09-09 01:46:40 UTC, ")
    moved = folder.parent.rename(tmp_path / "moved")
    os.utime(moved / "drive")  # a folder that was touched
    files = [moved / "drive" / file.name for file in files]
    assert folder_digests(reversed(files), moved) == first
    files[0].write_bytes(b"4321")
    assert folder_digests(files, moved) != first
    os.utime(files[0], (1e9, 1e9 + 0.5))  # archives keep whole seconds
    assert folder_digests(files, moved) == first
    files[0].write_bytes(b"12345")
    os.utime(files[0], (1e9, 1e9))
    assert folder_digests(files, moved) != first


@pytest.fixture
def kitti(scenes: Path, tmp_path: Path) -> Path:
    """Rendered scenes that a test may change."""
    return Path(shutil.copytree(scenes / "kitti", tmp_path / "kitti"))


def what_is_read(kitti: Path, **more: Any) -> dict[str, str]:
    options = Monodepth2Options(data_path=kitti, split="synthetic", **more)
    sources = {part: open_source(options, part, (0, -1, 1)) for part in ("train", "val")}
    return run_inputs(options, sources, (0, -1, 1), {"stage1": options.stage1})


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def test_what_a_run_reads_is_compared_by_content(kitti: Path, tmp_path: Path) -> None:
    weights, camera = tmp_path / "stage1.pth", tmp_path / "camera.json"
    weights.write_bytes(b"1234")
    camera.write_text('{"K": [[200, 0, 160], [0, 200, 48], [0, 0, 1]], "image_size": [320, 96]}')
    first = what_is_read(kitti, stage1=weights)
    split, drive = kitti / "splits/synthetic/train_files.txt", "2000_01_01/2000_01_01_drive_0001_sync"
    lines = split.read_text().splitlines()
    split.write_text("\r\n".join(lines) + "\r\n\r\n")  # the same lines
    os.utime(kitti)
    shutil.copytree(kitti, tmp_path / "elsewhere")  # with the times of the files
    assert changed(first, what_is_read(tmp_path / "elsewhere", stage1=weights.rename(tmp_path / "moved.pth"))) == []
    split.write_text("\n".join(reversed(lines)))
    (tmp_path / "moved.pth").write_bytes(b"4321")
    image = kitti / drive / "image_02/data/0000000002.jpg"
    image.write_bytes(image.read_bytes() + b"x")
    calibration = kitti / "2000_01_01/calib_cam_to_cam.txt"
    calibration.write_text(calibration.read_text().replace("P_rect_02: 1", "P_rect_02: 2"))
    now = what_is_read(kitti, stage1=tmp_path / "moved.pth")
    files, scenes = (
        f"files in {drive}/image_02/data",
        [f"camera of {drive[:-6]}{number}_sync l" for number in (1, 2, 3)],
    )
    assert {"train split", "--stage1", files, scenes[0]} <= set(changed(first, now))
    assert set(changed(first, now)) <= {"train split", "--stage1", files, *scenes}
    given = what_is_read(kitti, intrinsics=str(camera))
    camera.write_text(camera.read_text().replace("160", "161"))
    assert changed(given, what_is_read(kitti, intrinsics=str(camera))) == ["--intrinsics"]


def test_what_stage_1_reads_is_compared_by_content(scenes: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(scenes, tmp_path / "scenes"))

    def read() -> dict[str, str]:
        return stage1_inputs([("train", open_sources([f"synthetic:{root}"], "train", (64, 96)))])

    first = read()
    labels, image = root / "tusimple/label_data_train.json", root / "tusimple/clips/synthetic/000001/20.jpg"
    os.utime(labels)
    assert changed(first, read()) == []
    labels.write_text("\n".join(labels.read_text().splitlines()[::-1]))
    image.write_bytes(image.read_bytes() + b"x")
    names = ["source 1: files in clips/synthetic/000001", "train lines of source 1"]
    assert sorted(changed(first, read())) == names


# --- states


def test_a_copy_of_a_state_is_neither_read_nor_deleted(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        run(folder, signal_at(3))
    copies = ["state_keep.pt", "state_3.pt", "state_0000000003.pt", "state_000000099.pt.bak", "state_000000099 (1).pt"]
    for name in copies:
        (folder / name).write_bytes((folder / "state_000000003.pt").read_bytes())
    with pytest.raises(Interrupted):
        run(folder, signal_at(STEPS))
    run(folder)
    assert_same_run(folder, tmp_path / "whole")
    assert all((folder / name).is_file() for name in copies)


def test_results_without_a_state_are_not_written_over(tmp_path: Path) -> None:
    run(tmp_path / "run", epochs=1)
    for state in (tmp_path / "run").glob("state_*.pt"):
        state.unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"holds results of a run \(metrics\.jsonl\) but none of its states"):
        run(tmp_path / "run", resume=True)
    owner = tmp_path / "run" / ".owner"
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert {**after, owner: b""} == {**before, owner: b""}
    for trace in ("stage1.pth", "models/weights_0/depth.pth", "train/events.out.tfevents.1.host"):
        path = tmp_path / trace.replace("/", "_") / trace
        path.parent.mkdir(parents=True)
        path.write_bytes(b"mine")
        with pytest.raises(UserError, match="but none of its states"):
            run(tmp_path / trace.replace("/", "_"), epochs=1)
        assert path.read_bytes() == b"mine"


def test_a_run_that_never_saved_a_state_starts_anew_beside_files_of_others(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("of the shell that started the run")
    for _ in range(2):
        assert in_child(lambda: run(tmp_path, signal_at(3, signal.SIGKILL))) == -signal.SIGKILL
    assert (tmp_path / METRICS_FILE).is_file()
    run(tmp_path, epochs=1)
    assert not (tmp_path / states.NO_STATE_YET).exists()


def test_copies_of_weights_are_not_the_last_epoch(tmp_path: Path) -> None:
    for name in ("9", "10", "010", "11_copy", "²", "99.old", "best"):
        (tmp_path / "models" / f"weights_{name}").mkdir(parents=True)
        (tmp_path / "models" / f"weights_{name}" / "encoder.pth").touch()
    assert newest_weights(tmp_path).name == "weights_10"


def test_event_and_partial_files_of_others_are_kept(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, signal_at(3))
    own = next((tmp_path / "tensorboard").glob("events.*"))
    kept = ["tensorboard/events.out.tfevents.1.other", "tensorboard/events.txt", ".notes.partial.txt", ".a.1.partial"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".metrics.1.partial.jsonl").write_text("half")
    run(tmp_path, epochs=1)
    assert all((tmp_path / name).read_text() == "mine" for name in kept)
    assert not own.exists()
    assert not (tmp_path / ".metrics.1.partial.jsonl").exists()


def test_every_damaged_state_is_refused_and_nothing_in_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rng = torch.Generator().manual_seed(0)
    good = {"step": 1, "model": {"w": torch.arange(50.0)}}
    save_state(tmp_path, good, 1)
    newest = save_state(tmp_path, {**good, "step": 2}, 2)
    content = newest.read_bytes()
    marker = tmp_path / "executed"
    for i in range(60):
        damaged = bytearray(content)
        at = int(torch.randint(len(content), (), generator=rng))
        if i % 3 == 0:
            damaged[at] ^= 1 << (i % 8)
        elif i % 3 == 1:
            del damaged[at:]
        else:
            damaged = bytearray(HOSTILE(marker))
            if i % 2:  # with a right sum, as someone would give it who means harm
                damaged = bytearray(states.with_sum(bytes(damaged)))
        newest.write_bytes(damaged)
        found = load_state(tmp_path)
        assert found is not None
        assert found["step"] == 1
        assert str(newest) in capsys.readouterr().err
        assert not marker.exists()
    next(tmp_path.glob("state_*1.pt")).write_bytes(b"")
    with pytest.raises(UserError, match="every saved state is damaged"):
        load_state(tmp_path)


class _Execute:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.marker),))


def HOSTILE(marker: Path) -> bytes:  # noqa: N802
    return pickle.dumps(_Execute(marker))


def test_a_damaged_newest_state_gives_way_to_new_ones(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "run", signal_at(STEPS + 2))
    newest = max((tmp_path / "run").glob("state_*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.raises(Interrupted):
        run(tmp_path / "run", signal_at(1))
    assert "damaged" in capsys.readouterr().err
    assert not newest.exists()
    run(tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def fail_to_write(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    write, left = states.write_bytes, [times]

    def full(path: Path, *parts: Any) -> None:
        if path.name.startswith("state") and left[0]:
            left[0] -= 1
            path.with_name(f".{path.stem}.0.partial.pt").write_bytes(b"")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *parts)

    monkeypatch.setattr(states, "write_bytes", full)


def test_a_full_disk_stops_the_run_and_keeps_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "run", signal_at(STEPS + 2))
    before = sorted(path.name for path in (tmp_path / "run").glob("state_*"))
    with monkeypatch.context() as patch:
        fail_to_write(patch, times=2)
        with pytest.raises(UserError, match="free some space"):
            run(tmp_path / "run")
    assert max(before) in {path.name for path in (tmp_path / "run").glob("state_*")}
    run(tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_the_older_state_makes_room_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for step in (1, 2):
        save_state(tmp_path, {"step": step}, step)
    fail_to_write(monkeypatch, times=1)
    save_state(tmp_path, {"step": 3}, 3)
    assert sorted(path.name for path in tmp_path.glob("state_*")) == ["state_000000002.pt", "state_000000003.pt"]
    assert "dropping state_000000001.pt" in capsys.readouterr().err


def test_metrics_on_a_full_disk_cost_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybrid_encoder.engine.record import Recorder

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "scalars", lambda self, kind, *_: full() if kind == "train" else None)
        with pytest.raises(UserError, match="No space left"):
            run(tmp_path, log_frequency=5)
    saved = load_state(tmp_path)
    assert saved is not None
    assert saved["step"] == 1


def test_folders_are_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "weights_best"
    for text in ("old", "new"):
        with whole_folder(folder) as partial:
            (partial / "a").write_text(text)
    with pytest.raises(UserError, match="weights_best"), whole_folder(folder) as partial:
        (partial / ("a" * 999)).write_text("no file system takes such a name")
    assert [path.read_text() for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["weights_best"]


def test_one_run_a_folder(tmp_path: Path) -> None:
    with exclusive(tmp_path / "run"):
        with pytest.raises(UserError, match="in use"), exclusive(tmp_path / "run"):
            pass

        def other() -> None:
            folders._held.clear()
            try:
                with exclusive(tmp_path / "run"):
                    pass
            except UserError:
                os._exit(7)

        assert in_child(other) == 7
    with exclusive(tmp_path / "run"):
        pass


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def lockf(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folders.fcntl, "lockf", lockf)
    run(tmp_path, epochs=1)
    assert "file system without locks" in capsys.readouterr().err
    assert load_state(tmp_path) is not None


@pytest.mark.parametrize(("taken", "message"), [(False, "was deleted while the run"), (True, "taken over by another")])
def test_a_folder_that_is_deleted_or_taken_over_ends_the_run(
    taken: bool, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "run"

    def act(model: ToyModel, x: Tensor) -> Tensor:
        if model.calls == STEPS + 3:
            shutil.rmtree(folder)
            if taken:
                assert in_child(lambda: take(folder)) == 0
        return x

    def take(folder: Path) -> None:
        folders._held.clear()
        run(folder, epochs=1)

    with pytest.raises(UserError, match=message):
        run(folder, act)
    assert "could not be saved" not in capsys.readouterr().err
    assert folder.exists() == taken
    if taken:
        run(folder)  # the other run's state is whole, and nobody else's


# --- what surrounds a run


class Broken(io.StringIO):
    """A terminal that is gone."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize("error", [OSError(errno.EIO, "gone"), BrokenPipeError(errno.EPIPE, "x"), ValueError("closed")])
def test_a_run_outlives_its_terminal(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(error))
    monkeypatch.setattr(sys, "stderr", Broken(error))
    with steady_output():
        run(tmp_path, epochs=1)
    assert load_state(tmp_path) is not None


def test_a_program_started_without_stdout_and_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with steady_output():
        run(tmp_path, epochs=1)
    assert load_state(tmp_path) is not None


def test_names_that_a_locale_lacks_are_printed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with steady_output():
        print("mère.jpg", os.fsdecode(b"\xff.jpg"))
    stream.seek(0)
    assert stream.read() == "m\\xe8re.jpg \\udcff.jpg\n"


PRINTING = pytest.mark.parametrize("command", ["--version", "completion bash"])
"""Commands that import no torch: of the first, the last flush fails; of the second, which prints 25 kB, a write."""


@PRINTING
@pytest.mark.parametrize("nowhere", ["/dev/full", "&-"])
def test_commands_whose_output_cannot_be_written(nowhere: str, command: str) -> None:
    line = f"exec 3>&1 1>{nowhere} 2>{nowhere}; {sys.executable} -m hybrid_encoder.cli {command}; echo $? >&3"
    assert subprocess.run(["sh", "-c", line], capture_output=True, text=True).stdout == "0\n"


@PRINTING
def test_a_reader_that_has_enough(command: str) -> None:
    """As `completion bash | head -0` does."""
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", "hybrid_encoder.cli", *command.split()]
    ended = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_terminal_that_hangs_up_again_and_again_asks_for_one_stop(tmp_path: Path) -> None:
    def hang_up(model: ToyModel, x: Tensor) -> Tensor:
        if model.calls == 3:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGHUP)
        return x

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        with pytest.raises(Interrupted, match="stopped at step 3, state saved"):
            run(tmp_path / "run", hang_up)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        run(tmp_path / "nohup", hang_up)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_outside_of_a_run_clear_half_written_files_away(tmp_path: Path) -> None:
    def stopped(partial: Path) -> None:
        (partial / "half").write_text("")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    with pytest.raises(SystemExit) as ended, end_in_order(), whole_folder(tmp_path / "out") as partial:
        stopped(partial)
    assert ended.value.code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_signal_does_not_replace_the_message_of_an_error() -> None:
    def fail() -> None:
        try:
            raise UserError("another process was lost")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    with pytest.raises(UserError, match="was lost"), end_in_order():
        fail()


def test_workers_that_cannot_make_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 110)
    long.mkdir()
    monkeypatch.setattr(util, "get_temp_dir", lambda: str(long))
    with pytest.raises(UserError, match="set TMPDIR to a folder with a short path"):
        run(tmp_path / "run", workers=1)
    run(tmp_path / "run", epochs=1)


def test_full_shared_memory_is_told_of() -> None:
    error = RuntimeError(
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        "RuntimeError: unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)\n"
    )
    assert "--shm-size" in str(explain(error, Path("run"), 1))
    error = RuntimeError("Too many open files. Communication with the workers is no longer possible.")
    assert "ulimit -n" in str(explain(error, Path("run"), 1))


def test_full_shared_memory_ends_the_run_rather_than_leave_it_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensor: Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(Tensor, "share_memory_", full)
    with pytest.raises(UserError, match="--shm-size"):
        run(tmp_path, workers=1, validate_first=False)


def test_batch_norm_over_one_value(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="raise --batch_size, or --height or --width"):
        run(tmp_path, smallest_map=1)
    assert not list(tmp_path.iterdir())
    error = ValueError("Expected more than 1 value per channel when training, got input size torch.Size([1, 8])")
    assert "single value" in str(explain(error, tmp_path, 1))
    run(tmp_path, epochs=1, smallest_map=2)


# --- numbers


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("fault", ["loss", "statistics", "gradient"])
def test_a_step_that_is_not_finite_leaves_no_trace(
    fault: str, accumulate: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    seen: list[dict[str, Tensor]] = []
    first = 3  # the first of a group in both cases

    def act(model: ToyModel, x: Tensor) -> Tensor:
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        if model.calls == first and fault == "loss":
            return x * torch.nan
        if model.calls == first and fault == "statistics":
            model.net[1].running_var.fill_(torch.inf)
        if model.calls == first and fault == "gradient":
            hook = model.net[3].weight.register_hook(lambda grad: (hook.remove(), grad * torch.inf)[1])
        return x

    task = run(tmp_path, act, accumulate=accumulate, epochs=1)
    assert "sample" in capsys.readouterr().err
    # After a loss that is not finite, the rest of its group is not even computed; other faults show at the group's end.
    after = first if fault == "loss" else first + accumulate - 1
    assert differences(seen[first - 1], seen[after]) == []
    assert differences(seen[first - 1], seen[first - 2]) != []
    assert all(torch.isfinite(value).all() for value in task.model.state_dict().values())
    assert all(torch.isfinite(v["exp_avg"]).all() for v in task.optimizer.state.values())
    lines = [line for line in metrics(tmp_path) if line["kind"] == "skipped"]
    assert [line["skipped_steps"] for line in lines] == [1]
    assert lines[0]["samples"]


@pytest.mark.parametrize(
    ("at", "save_minutes", "kept"), [(4, 30, None), (4, 0, 2), (STEPS + 4, 30, STEPS), (STEPS + 4, 0, STEPS + 2)]
)
def test_spoilt_nets_are_never_the_saved_state(at: int, save_minutes: float, kept: int | None, tmp_path: Path) -> None:
    """Steps that cannot be taken from some step on: a state that no step was taken from is dropped, too."""

    def spoil(model: ToyModel, x: Tensor) -> Tensor:
        if model.calls == at:
            model.net[0].weight.data.fill_(torch.inf)
        return x

    assert_spoilt(tmp_path, spoil, save_minutes, kept)


@pytest.mark.parametrize(("step", "save_minutes", "kept"), [(STEPS, 30, None), (STEPS, 0, STEPS - 1), (5, 0, 4)])
def test_nor_those_that_the_last_step_has_spoilt(
    step: int, save_minutes: float, kept: int | None, tmp_path: Path
) -> None:
    """At an epoch's end, or when it is time to save, nothing yet tells that they are."""
    steps = [0]

    def spoil(optimizer: torch.optim.Optimizer, *_: object) -> None:
        steps[0] += 1
        if steps[0] == step:
            optimizer.param_groups[0]["params"][0].data.fill_(torch.inf)

    handle = register_optimizer_step_post_hook(spoil)
    try:
        assert_spoilt(tmp_path, None, save_minutes, kept)
    finally:
        handle.remove()


def assert_spoilt(folder: Path, at: At | None, save_minutes: float, kept: int | None) -> None:
    said = "no state is saved yet" if kept is None else f"state of step {kept} saved in"
    with pytest.raises(UserError, match=f"error of validation were not finite: the run stops, {said}"):
        run(folder, at, max_bad_steps=100, save_minutes=save_minutes)
    saved = load_state(folder)
    assert (None if saved is None else saved["step"]) == kept
    if saved is not None:
        assert all(torch.isfinite(value).all() for value in saved["model"].values())


def test_figures_that_are_not_finite_are_told_of_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample of validation may be bad from the start: that loses neither states nor epochs."""
    monkeypatch.setattr(ToyTask, "validate", lambda *_: {"error": float("nan")})
    for _ in range(2):  # and again by the same command
        with pytest.raises(UserError, match="the run is finished, but error of validation is not finite"):
            run(tmp_path)
    saved = load_state(tmp_path)
    assert saved is not None
    assert saved["step"] == 3 * STEPS


def test_a_stop_beside_one_bad_sample_saves_all_the_same(tmp_path: Path) -> None:
    def act(model: ToyModel, x: Tensor) -> Tensor:
        if model.calls == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            return x * torch.nan
        return x

    with pytest.raises(Interrupted, match="stopped at step 5, state saved in"):
        run(tmp_path, act)


def test_too_many_of_them_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 steps were not finite.*sample \d+"):
        run(tmp_path, lambda model, x: x * torch.nan if model.calls > STEPS + 1 else x, max_bad_steps=2)
    saved = load_state(tmp_path)
    assert saved is not None
    assert saved["step"] == STEPS


# --- data


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_passed_over_up_to_a_limit(
    workers: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bad = (3, 4, 9)
    options: dict[str, Any] = {"bad": bad, "skip_bad": 3}
    run(tmp_path / "whole", **options)
    err = capsys.readouterr().err
    assert all(err.count(f"{i}.jpg is cut off") == 2 for i in bad)  # once in training, once in validation
    with pytest.raises(Interrupted):
        run(tmp_path / "half", signal_at(STEPS + 2), workers=workers, **options)
    run(tmp_path / "half", workers=workers, **options)
    assert_same_run(tmp_path / "half", tmp_path / "whole")
    with pytest.raises(UserError, match=r"(?s)\.jpg is cut off"):
        run(tmp_path / "less", workers=workers, bad=bad, skip_bad=2)


def test_an_unreadable_image_stops_the_run_with_its_steps_saved(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def broken(index: int) -> None:
        if index == 7:
            raise UserError("the image 7.jpg is cut off")

    run(tmp_path / "whole")
    with pytest.raises(UserError, match=r"7\.jpg"):
        run(tmp_path / "run", before=broken)
    assert "saved" in capsys.readouterr().err
    run(tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_lost_connection_to_a_worker_is_told_from_an_error_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(index: int) -> None:
        raise EOFError(f"sample {index} ends early")

    with pytest.raises(EOFError, match="ends early"):
        run(tmp_path / "data", before=ends, workers=1)

    def lost(*_: object) -> None:
        raise ConnectionResetError("Connection reset by peer")

    monkeypatch.setattr(torch.utils.data.dataloader._BaseDataLoaderIter, "__next__", lost)
    with pytest.raises(UserError, match=r"connection lost \(Connection reset by peer\) A worker process was killed"):
        run(tmp_path / "lost", workers=1, validate_first=False)


def test_a_dead_or_hung_worker_ends_the_run_with_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(index: int) -> None:
        if index == 7:
            os.kill(os.getpid(), signal.SIGKILL)

    def hangs(index: int) -> None:
        if index == 7:
            time.sleep(60)

    monkeypatch.setattr(loading, "WORKER_TIMEOUT", 2)
    for name, fault in (("dead", dies), ("hung", hangs)):
        started = time.monotonic()
        with pytest.raises(UserError, match="worker process was killed"):
            run(tmp_path / name, before=fault, workers=1)
        assert time.monotonic() - started < 30


# --- several processes


def pair(act: Callable[..., None], *given: Any) -> list[int | None]:
    """Exit statuses of two processes that know of each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_joined, args=(rank, port, act, given)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    return [child.exitcode for child in children]


def _joined(rank: int, port: int, act: Callable[..., None], given: tuple[Any, ...]) -> None:
    os.environ.update(WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with processes("cpu") as group:
        act(group, *given)


def _whole_and_resumed(group: Any, folder: Path) -> None:
    run(folder / "whole", processes=group)
    for step in (3, 5):
        try:
            # One process alone gets the signal; both stop at the same step.
            run(folder / "half", signal_at(step) if group.rank == 1 else None, processes=group)
            os._exit(9)
        except Interrupted:
            pass
    run(folder / "half", processes=group)


def test_two_processes_resume_bit_for_bit(tmp_path: Path) -> None:
    assert pair(_whole_and_resumed, tmp_path) == [0, 0]
    assert_same_run(tmp_path / "half", tmp_path / "whole")
    with pytest.raises(UserError, match="processes was 2, is 1"):
        run(tmp_path / "whole")


def _one_is_killed(group: Any, folder: Path) -> None:
    try:
        run(folder, signal_at(8, signal.SIGKILL) if group.rank == 1 else None, processes=group)
    except UserError as error:
        (folder / "message").write_text(str(error))
        os._exit(2)


def test_a_killed_process_ends_the_other_with_a_message(tmp_path: Path) -> None:
    started = time.monotonic()
    assert pair(_one_is_killed, tmp_path) == [2, -signal.SIGKILL]
    assert time.monotonic() - started < 60
    assert "another process of this run was lost" in (tmp_path / "message").read_text()
    saved = load_state(tmp_path)
    assert saved is not None
    assert saved["step"] == 5  # the last epoch's end: each process has five steps an epoch


# --- the command line


def test_exit_statuses_of_the_command(scenes: Path, tmp_path: Path) -> None:
    """A process of its own, which another one stops after its first epoch."""
    small = f"--data_path {scenes / 'kitti'} --split synthetic --height 32 --width 64 --preset tiny --device cpu"
    more = "--weights_init scratch --pose_model_type class_token --batch_size 2 --num_workers 0 --num_epochs 50"
    command = ["train", "monodepth2", *small.split(), *more.split(), "--log_dir", str(tmp_path)]
    reader, writer = os.pipe()

    def act() -> None:
        torch.set_num_threads(1)  # a forked process has none of the parent's threads
        sys.stdout = os.fdopen(writer, "w", buffering=1)
        sys.exit(cli.main(command))

    child = multiprocessing.get_context("fork").Process(target=act)
    child.start()
    os.close(writer)
    with os.fdopen(reader) as lines:
        assert any("after epoch 1" in line for line in lines)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGTERM)
        lines.read()
    child.join(60)
    assert child.exitcode == 3
    assert load_state(tmp_path / "mdp") is not None


def test_ctrl_c_outside_of_a_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def interrupted(_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("hybrid_encoder.commands.info.run", interrupted)
    assert cli.main(["info", "tiny"]) == 130
    assert capsys.readouterr().err == "hybrid-encoder: interrupted\n"


@pytest.mark.parametrize(("clip_grad", "norm"), [(None, 5.0), (0.0, 5.0), (0.1, 0.1)])
def test_gradients_are_clipped_where_asked(clip_grad: float | None, norm: float) -> None:
    """0 asks for nothing, as None does."""

    class Weighted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))

        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            return {"loss": (self.weight * batch).sum()}

    net = Weighted()
    optimizer = torch.optim.SGD(net.parameters(), 1.0)
    stepper = Stepper(net, net, Processes(torch.device("cpu")), "float32", clip_grad)
    stepper.run(optimizer, torch.tensor([3.0, 4.0]), ["sample"], 0, 1)
    stepper.finish(optimizer)
    assert float(net.weight.norm()) == pytest.approx(norm, rel=1e-4)


def test_early_stop_waits_for_a_better_epoch_and_a_stopped_run_stays_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The best is epoch 2, and two follow that are no better."""
    errors = [4.0, 3.0, 3.5, 3.0, 1.0]
    monkeypatch.setattr(ToyTask, "validate", lambda self, _: {"error": errors[self.scheduler.last_epoch]})
    options: dict[str, Any] = {"epochs": 5, "save_frequency": 9}
    with pytest.raises(Interrupted):
        run(tmp_path, signal_at(3 * STEPS + 2), early_stop=2, **options)
    task = run(tmp_path, early_stop=2, **options)
    assert task.saved == [(0, True), (1, True), (3, False)], "the last epoch is saved, too"
    assert "early stop after epoch 4: the best epoch was 2 before" in capsys.readouterr().out
    assert run(tmp_path, early_stop=2, **options).model.calls == 0
    assert "the run is finished" in capsys.readouterr().out
    assert run(tmp_path, early_stop=3, **options).saved[-1] == (4, True), "a longer wait resumes the run"


def test_the_loss_chooses_where_validation_lacks_the_metric() -> None:
    validation = Validation(ToyTask(None, False), ALONE, Stop(), LoopOptions(Path(), 1, best=("ranking", "max")))
    for metrics, is_best in (({"loss": 2.0}, True), ({"loss": 3.0}, False), ({"loss": 1.0}, True)):
        validation.metrics = metrics
        assert validation.is_best() == is_best
        validation.end_epoch(is_best)
    assert (validation.best, validation.since_best) == (1.0, 0)
    assert not validation.stops_after(9)


class _Layered:
    """A convolution and its optimiser, as `load_task_state` reads them of a task."""

    def __init__(self, layout: torch.memory_format) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Conv2d(8, 8, 3).to(memory_format=layout)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, fused=True)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 10)

    def extra_state(self) -> dict[str, Any]:
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        assert not state

    def step(self, image: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.model(image).square().mean().backward()
        self.optimizer.step()


def test_a_state_of_channels_last_weights_resumes_contiguously() -> None:
    """As of a GPU, or of a CPU before version 0.2: fused optimisers take memory in order, whatever its strides."""
    before, after = _Layered(torch.channels_last), _Layered(torch.contiguous_format)
    image = torch.rand(2, 8, 16, 16)
    for _ in range(5):
        before.step(image)
    load_task_state(after, copy.deepcopy(task_state(before)))  # type: ignore[arg-type]
    assert after.model.weight.is_contiguous()
    for one in (before, after):
        one.step(image)
    torch.testing.assert_close(after.model.weight, before.model.weight, atol=1e-6, rtol=0)
