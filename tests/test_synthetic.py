"""Rendered scenes: depth, pose and intrinsics agree with the pictures; both layouts hold what their readers expect."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from hybrid_encoder.data.depth_files import read_depth
from hybrid_encoder.data.splits import find_split, read_split
from hybrid_encoder.data.velodyne import improved_depth_path, read_scan_depth
from hybrid_encoder.engine.signals import Interrupted
from hybrid_encoder.errors import UserError
from hybrid_encoder.stage2.geometry import project, warp
from hybrid_encoder.synthetic.files import write_synthetic
from hybrid_encoder.synthetic.sequence import BASELINE, SyntheticSequence, SyntheticSource, render_sequence
from hybrid_encoder.synthetic.settings import SynthSettings
from hybrid_encoder.synthetic.tusimple import label_lanes

HEIGHT, WIDTH = 96, 320


@pytest.fixture(scope="module")
def sequences() -> list[SyntheticSequence]:
    return [render_sequence(seed, 3, HEIGHT, WIDTH, stereo=True) for seed in range(6)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "out"
    write_synthetic(out, SynthSettings(3, 3, 3, 96, 320, stereo=True, clips=5, clip_size=(180, 320), progress=False))
    return out


def errors(sequence: SyntheticSequence, other: Tensor, other_depth: Tensor, T: Tensor) -> tuple[float, float]:
    """Mean photometric error over the static, visible pixels of frame 0 against `other`, warped by depth and not."""
    depth, image = sequence.depth[:1], sequence.images[:1].float() / 255
    grid = project(depth, sequence.K[None], T[None])
    other = other[None].float() / 255
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    pixels = torch.stack([columns, rows, torch.ones_like(rows)]).view(3, -1).float()
    points = torch.linalg.inv(sequence.K) @ pixels * depth.view(1, -1)
    expected = (T[:3, :3] @ points + T[:3, 3:])[2].view_as(depth)
    seen = (warp(other_depth[None], grid) - expected).abs() < 0.05 * expected
    valid = seen & (depth > 0) & (depth < 80) & ~sequence.moving[:1] & (grid.abs().amax(-1) < 1)[:, None]
    assert valid.float().mean() > 0.25
    warped = (warp(other, grid) - image).abs().mean(1, keepdim=True)[valid].mean()
    return float(warped), float((other - image).abs().mean(1, keepdim=True)[valid].mean())


def test_a_seed_determines_everything() -> None:
    first, again = (render_sequence(5, 2, 48, 160, stereo=True) for _ in range(2))
    for name in ("images", "depth", "T_world_camera", "K", "moving", "images_right", "depth_right"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert all(np.array_equal(a, b) for a, b in zip(first.lanes[1], again.lanes[1], strict=True))
    other = render_sequence(6, 2, 48, 160)
    assert (other.depth - first.depth).abs().mean() > 1
    assert other.images_right is None


def test_shapes_types_and_ranges(sequences: list[SyntheticSequence]) -> None:
    for sequence in sequences:
        assert sequence.images.shape == (3, 3, HEIGHT, WIDTH)
        assert sequence.images.dtype == torch.uint8
        assert sequence.depth.shape == sequence.moving.shape == (3, 1, HEIGHT, WIDTH)
        assert torch.isfinite(sequence.depth).all()
        assert ((sequence.depth == 0) | ((sequence.depth > 0.3) & (sequence.depth <= 200))).all()
        assert sequence.moving.float().mean() < 0.2
        assert torch.allclose(
            sequence.K, torch.tensor([[0.58 * WIDTH, 0, WIDTH / 2], [0, 1.92 * HEIGHT, HEIGHT / 2], [0, 0, 1]])
        )
        steps = sequence.T_world_camera[1:, :3, 3] - sequence.T_world_camera[:-1, :3, 3]
        assert ((steps.norm(dim=1) > 0.45) & (steps.norm(dim=1) < 1.25)).all()
        rotation = sequence.T_world_camera[:, :3, :3]
        assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand(3, 3, 3), atol=1e-5)


def test_warping_by_depth_pose_and_intrinsics_explains_the_next_frame(sequences: list[SyntheticSequence]) -> None:
    for sequence in sequences:
        T = torch.linalg.inv(sequence.T_world_camera[1]) @ sequence.T_world_camera[0]
        warped, still = errors(sequence, sequence.images[1], sequence.depth[1], T)
        assert warped < 0.02
        assert warped < 0.5 * still


def test_warping_explains_the_right_camera(sequences: list[SyntheticSequence]) -> None:
    T = torch.eye(4)
    T[0, 3] = -BASELINE
    for sequence in sequences:
        assert sequence.images_right is not None
        assert sequence.depth_right is not None
        warped, still = errors(sequence, sequence.images_right[0], sequence.depth_right[0], T)
        assert warped < 0.02
        assert warped < 0.5 * still


def test_lanes_run_near_to_far(sequences: list[SyntheticSequence]) -> None:
    lanes = 0
    for sequence in sequences:
        for frame, frame_lanes in enumerate(sequence.lanes):
            for lane in frame_lanes:
                x, y = lane.T
                assert (np.diff(y) <= -1).all()
                depth = sequence.depth[frame, 0].numpy()[y.round().astype(int), x.round().astype(int)]
                assert (depth > 0).all()
                assert (np.diff(depth) > 0).all()
                lanes += len(lane) >= 7
    assert lanes > 20


def test_no_single_depth_map_explains_the_scenes() -> None:
    """Median-scaled AbsRel of the mean depth map of other scenes: a network has something to learn."""
    train, test = (SyntheticSource(seed, 32, 1, 48, 160, margin=0) for seed in (0, 1))
    maps = np.stack([train.depth(i) for i in range(len(train))])
    known = (maps > 0) & (maps < 80)
    mean = (maps * known).sum(0) / known.sum(0).clip(1)
    found = []
    for index in range(len(test)):
        depth = test.depth(index)
        valid = (depth > 0) & (depth < 80)
        scaled = mean[valid] * np.median(depth[valid]) / np.median(mean[valid])
        found.append((np.abs(scaled.clip(1e-3, 80) - depth[valid]) / depth[valid]).mean())
    assert np.mean(found) > 0.35


def test_source() -> None:
    source = SyntheticSource(seed=1, sequences=2, frames=4, height=48, width=160, stereo=True)
    assert len(source) == 4
    whole = render_sequence(1_000_003 + 1, 4, 48, 160)
    assert np.array_equal(source.read(2, 0), whole.images[1].permute(1, 2, 0).numpy())
    assert np.array_equal(source.read(2, -1), whole.images[0].permute(1, 2, 0).numpy())
    assert np.array_equal(source.read(2, 1), whole.images[2].permute(1, 2, 0).numpy())
    assert not np.array_equal(source.read(2, "s"), source.read(2, 0))
    assert np.array_equal(source.depth(3), whole.depth[2, 0].numpy())
    assert np.array_equal(source.pose(2, 1), source.pose(3, 0))
    assert source.intrinsics(0).dtype == np.float32
    assert source.stereo_sign(0) == -1
    assert len({source.name(index) for index in range(4)}) == 4
    with pytest.raises(IndexError):
        source.read(4, 0)
    with pytest.raises(UserError, match="margin"):
        source.read(0, 2)
    with pytest.raises(UserError, match="right camera"):
        SyntheticSource(1, 1, 3, 48, 160).read(0, "s")
    with pytest.raises(UserError, match="neighbours"):
        SyntheticSource(1, 1, 2, 48, 160)
    with pytest.raises(UserError, match="seed -1"):
        SyntheticSource(-1, 1, 3, 48, 160)


def test_kitti_layout(written: Path) -> None:
    root = written / "kitti"
    split = find_split("synthetic", root)
    folders: dict[str, set[str]] = {}
    for part in ("train", "val", "test"):
        entries = read_split(split / f"{part}_files.txt")
        folders[part] = {entry.folder for entry in entries}
        for folder, frame, side in entries:
            for neighbour in (frame - 1, frame, frame + 1):
                image = root / folder / f"image_0{2 if side == 'l' else 3}" / "data" / f"{neighbour:010d}.jpg"
                assert cv2.imread(str(image)).shape == (96, 320, 3)
    assert not folders["train"] & folders["val"]
    assert not folders["test"] & (folders["val"] | folders["train"])
    assert sum(map(len, folders.values())) == 3


@pytest.mark.parametrize("side", ["l", "r"])
def test_scans_project_onto_the_exact_depth(written: Path, side: str) -> None:
    root = written / "kitti"
    for folder, frame, _ in read_split(root / "splits" / "synthetic" / "test_files.txt"):
        exact = read_depth(improved_depth_path(root, folder, frame, side))
        scan = read_scan_depth(root, folder, frame, side)
        hit = (scan > 0) & (exact > 0)
        assert hit.sum() > 500
        error = np.abs(scan - exact)[hit]
        if side == "l":
            assert error.max() < 0.01  # a pixel's own depth, but for the PNG's steps of 4 mm
        assert np.median(error) < 0.05
        # counted along the scanner's axis, depth is larger by the scanner's distance behind the camera
        assert np.median((read_scan_depth(root, folder, frame, "l", "scanner") - exact)[hit]) == pytest.approx(
            0.27, abs=0.05
        )


def test_tusimple_layout(written: Path) -> None:
    names = []
    for part, count in (("train", 4), ("val", 1)):
        lines = (written / "tusimple" / f"label_data_{part}.json").read_text().splitlines()
        assert len(lines) == count
        for line in lines:
            label = json.loads(line)
            rows = label["h_samples"]
            assert rows == sorted(set(rows))
            assert cv2.imread(str(written / "tusimple" / label["raw_file"])).shape == (180, 320, 3)
            assert label["lanes"]
            for lane in label["lanes"]:
                assert len(lane) == len(rows)
                assert all(x == -2 or 0 <= x < 320 for x in lane)
                assert sum(x >= 0 for x in lane) >= 7
            names.append(label["raw_file"])
    assert len(set(names)) == 5


def test_lane_labels_leave_out_what_is_hidden() -> None:
    y = np.concatenate([np.arange(100, 60, -1), np.arange(40, 20, -1)]).astype(np.float32)
    lane = np.stack([2 * y, y], axis=1)
    (label,) = label_lanes([lane, lane[:3]], list(range(10, 110, 5)))
    assert label == [-2, -2, -2, 50, 60, 70, 80, -2, -2, -2, -2, 130, 140, 150, 160, 170, 180, 190, 200, -2]


SMALLEST = SynthSettings(0, 3, 3, 32, 96, clips=2, clip_size=(90, 160), progress=False)


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "note").write_text("mine")
    (tmp_path / "link").symlink_to("used")
    (tmp_path / "circle").symlink_to("circle")
    for bad in ("used", "used/note", "link", "circle"):
        with pytest.raises(UserError, match="give a new folder"):
            write_synthetic(tmp_path / bad, SMALLEST)
    with pytest.raises(UserError, match="cannot make a folder"):
        write_synthetic(tmp_path / "used" / "note" / "out", SMALLEST)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("hybrid_encoder.synthetic.files.write_tusimple", fail)
    (tmp_path / "empty").mkdir()
    for out in ("empty", "new"):
        with pytest.raises(OSError, match="disk full"):
            write_synthetic(tmp_path / out, SMALLEST)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "empty", "link", "used"]
    assert not list((tmp_path / "empty").iterdir())


def test_links_are_followed_and_an_empty_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "full_name").symlink_to("disk")
    (tmp_path / "new_name").symlink_to("new")
    before = (tmp_path / "disk").stat().st_ino
    for link, folder in (("full_name", "disk"), ("new_name", "new")):
        write_synthetic(tmp_path / link, SMALLEST)
        assert (tmp_path / link).is_symlink()
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["kitti", "tusimple"]
    assert (tmp_path / "disk").stat().st_ino == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "full_name", "new", "new_name"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # a write's error names no file

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"No space left on device.*free some space"):
        write_synthetic(tmp_path / "out", SMALLEST)
    assert not list(tmp_path.iterdir())


def test_workers_write_the_same_files(tmp_path: Path) -> None:
    for name, num_workers in (("alone", 0), ("shared", 2)):
        write_synthetic(tmp_path / name, dataclasses.replace(SMALLEST, num_workers=num_workers))
    alone, shared = (files_of(tmp_path / name) for name in ("alone", "shared"))
    assert len([name for name in alone if name.endswith(".jpg")]) == 3 * 3 + 2
    assert alone == shared


def files_of(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a folder by their paths in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_stopped_synth_ends_its_workers_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would write on into the folder that is being removed."""

    def write_on(root: Path, *_: object) -> list[str]:
        os.kill(os.getppid(), signal.SIGTERM)
        while True:
            root.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr("hybrid_encoder.synthetic.kitti.write_drive", write_on)
    with pytest.raises(Interrupted, match="nothing was written"):
        write_synthetic(tmp_path / "out", dataclasses.replace(SMALLEST, num_workers=1))
    assert not multiprocessing.active_children()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_stopped_synth_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    number = signal.Signals[name]
    before = signal.getsignal(number)
    if before == signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here, as nohup asks for")

    def stop(root: Path, *_: object) -> None:
        assert list(root.parent.glob("kitti/splits/*/*.txt"))
        assert signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler)
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr("hybrid_encoder.synthetic.files.write_tusimple", stop)
    with pytest.raises(Interrupted, match=f"nothing was written to {tmp_path}"):
        write_synthetic(tmp_path / "deep" / "out", SMALLEST)
    assert signal.getsignal(number) == before
    assert not list(tmp_path.glob("deep/*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequences": 2}, "at least 3"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**31}, "seed 2147483648"),
        ({"height": 16}, "at least 32x32"),
        ({"height": 100_000_000}, "100000000x96.*at most 4096x4096"),
        ({"width": 10**30}, "at most 4096x4096"),
        ({"clip_size": (90, 10**9)}, "90x1000000000.*at least 90x160 and at most 4096x4096"),
        ({"sequences": 10**9}, "1000000000 sequences.*at most 9999"),
        ({"frames": 10**9}, "1000000000 frames.*at most"),
        ({"clips": 10**9}, "1000000000 TuSimple images"),
        ({"clips": 1}, "at least 2"),
    ],
)
def test_what_cannot_be_rendered_is_refused_at_once(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_synthetic(tmp_path / "out", dataclasses.replace(SMALLEST, **change))
    assert not list(tmp_path.iterdir())


def test_sources_and_sequences_refuse_what_memory_cannot_hold() -> None:
    with pytest.raises(UserError, match="at most 4096x4096"):
        render_sequence(0, 1, 10**8, 96)
    with pytest.raises(UserError, match="cannot render 1000000000 frames"):
        render_sequence(0, 10**9, 32, 96)
    with pytest.raises(UserError, match="at most 4096x4096"):
        SyntheticSource(0, 1, 3, 96, 10**8)
    with pytest.raises(UserError, match="at most 1000003 sequences"):
        SyntheticSource(0, 10**9, 3, 96, 320)
