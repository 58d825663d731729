"""Stage 1's parts around its losses: schedule, held-out lanes, metrics of several processes."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes
from torch.utils.data import DataLoader

from hybrid_encoder.data.loader import LoaderOptions, make_loader
from hybrid_encoder.engine.processes import Processes, leave
from hybrid_encoder.errors import UserError
from hybrid_encoder.stage1.dataset import Stage1Batch, Stage1Dataset, collate
from hybrid_encoder.stage1.lanes import TuSimpleSource
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage1.ordered_points import KittiDepthSource, SyntheticDepthSource, open_sources
from hybrid_encoder.stage1.patch_features import patch_features
from hybrid_encoder.stage1.training import Stage1Task

CPU = torch.device("cpu")
LANE = {"lanes": [[10.0] * 10], "h_samples": list(range(10))}


class Some(SyntheticDepthSource):
    """The first few rendered scenes; every other one may have no sequence."""

    def __init__(self, images: int, gaps: bool) -> None:
        super().__init__("val", 0, 64, 96)
        self.images, self.gaps = images, gaps

    def __len__(self) -> int:
        return self.images

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        image, points = super().read(index, rng)
        return image, points[:0] if self.gaps and index % 2 else points


def task(processes: Processes | None = None, images: int = 6, gaps: bool = False, **changes: Any) -> Stage1Task:
    torch.manual_seed(0)
    options = PretrainOptions(preset="tiny", weights_init="scratch", height=64, width=96, **changes)
    processes = processes or Processes(CPU)
    loading = LoaderOptions(rank=processes.rank, world_size=processes.world_size)
    dataset = Stage1Dataset(Some(images, gaps), 64, 96, train=False)
    loader: DataLoader[Any] = make_loader(dataset, 2, False, loading, collate)
    return Stage1Task(options, 12, loader, processes)


def test_the_schedule_counts_steps_of_the_optimiser() -> None:
    found = task(epochs=2, accumulate=5)
    for _ in range(2 * 3 - 1):  # 12 batches are three groups of at most five; the last step is taken at this rate
        found.optimizer.step()
        found.scheduler.step()
    assert found.optimizer.param_groups[0]["lr"] < 1e-3 * found.options.lr


def test_a_batch_without_sequences_is_a_step_like_any() -> None:
    batch = Stage1Batch(torch.rand(1, 3, 64, 96), torch.zeros(0, 7, 2), torch.zeros(0, dtype=torch.long), ["x"])
    scalars = task().model(batch)
    assert float(scalars["loss"].detach()) == 0
    assert float(scalars["accuracy"]) == 0.5


def labels(folder: Path, *names: str) -> None:
    for name in names:
        lines = [json.dumps({"raw_file": f"{name}/{i}.jpg", **LANE}) for i in range(20)]
        (folder / f"label_data_{name}.json").write_text("\n".join(lines))


def parts(folder: Path, label: str | None = None) -> tuple[set[str], set[str]]:
    train, val = (TuSimpleSource(folder, part, label) for part in ("train", "val"))
    found = {train.name(i) for i in range(len(train))}, {val.name(i) for i in range(len(val))}
    assert not found[0] & found[1]
    return found


def test_lanes_are_held_out_whatever_the_files_are_called(tmp_path: Path) -> None:
    labels(tmp_path, "train")
    assert [len(part) for part in parts(tmp_path)] == [18, 2]
    assert [len(part) for part in parts(tmp_path, "label_data_train")] == [18, 2]
    labels(tmp_path, "val", "0313")
    train, val = parts(tmp_path)
    assert len(train) == 40
    assert all(name.startswith("val/") for name in val)
    (tmp_path / "label_data_0313.json").write_text(json.dumps({"raw_file": "x.jpg", "lanes": [], "h_samples": []}))
    with pytest.raises(UserError, match="no lane with 7 points"):
        TuSimpleSource(tmp_path, "train", "label_data_0313")


def test_images_beyond_what_bfloat16_counts_keep_their_own_regions() -> None:
    levels = [torch.randn(300, 8, 4, 4) for _ in range(4)]
    points, owner = torch.full((300, 7, 2), 32.0), torch.arange(300)
    exact = patch_features(levels, points, owner, (64, 64), 32, region=True)
    half = patch_features([level.bfloat16() for level in levels], points, owner, (64, 64), 32, region=True)
    assert (exact * half).sum(-1).min() > 0.99


def _validate(rank: int, folder: str, images: int, gaps: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    processes = Processes(CPU, rank, 2)
    found = task(processes, images, gaps)
    found.model.eval()
    with torch.no_grad():
        metrics = processes.mean(found.validate(processes))
    torch.save((metrics, found.confusion), f"{folder}/{rank}.pth")
    leave()


@pytest.mark.parametrize(("images", "gaps"), [(5, False), (2, True)])
def test_processes_share_validation(images: int, gaps: bool, tmp_path: Path) -> None:
    """Figures and confusion are those of one process, also where one of two has no sequence to look at."""
    start_processes(_validate, (str(tmp_path), images, gaps), nprocs=2, start_method="fork")
    alone = task(images=images, gaps=gaps)
    alone.model.eval()
    with torch.no_grad():
        expected = alone.validate(Processes(CPU))
    for rank in range(2):
        metrics, confusion = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        assert metrics == pytest.approx(expected, rel=1e-5)
        assert torch.equal(confusion, alone.confusion)


def write_lidar(root: Path, size: tuple[int, int], frames: int = 2) -> None:
    """KITTI raw of a camera of 400x200 pixels that looks at 40 posts, nearer to the right; images of another size."""
    day = root / "day"
    (day / "drive" / "image_02" / "data").mkdir(parents=True, exist_ok=True)
    (day / "drive" / "velodyne_points" / "data").mkdir(parents=True, exist_ok=True)
    (day / "calib_cam_to_cam.txt").write_text(
        "R_rect_00: 1 0 0 0 1 0 0 0 1\nS_rect_02: 400 200\nP_rect_02: 200 0 200 0 0 200 100 0 0 0 1 0\n"
    )
    (day / "calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n")
    columns = np.linspace(20, 380, 40)
    depth = np.geomspace(60, 4, 40)
    scan = np.stack([depth, -(columns - 200) / 200 * depth, 0 * depth, 0 * depth], axis=1).astype("<f4")
    for frame in range(frames):
        cv2.imwrite(str(day / f"drive/image_02/data/{frame:010d}.png"), np.zeros((*size[::-1], 3), np.uint8))
        scan.tofile(day / f"drive/velodyne_points/data/{frame:010d}.bin")


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.37, 2.0])
def test_points_of_lidar_lie_on_resized_images_where_they_lie_on_whole_ones(tmp_path: Path, factor: float) -> None:
    write_lidar(tmp_path, (round(400 * factor), round(200 * factor)))
    image, points = KittiDepthSource(tmp_path, "train").read(0, np.random.default_rng(0))
    assert image.shape[1] == round(400 * factor)
    assert len(points)
    assert (np.diff(points[..., 0]) < 0).all(), "nearer is further to the right"
    assert points[..., 0].max() > 0.7 * image.shape[1]
    assert points[..., 1] == pytest.approx(99 * image.shape[0] / 200, rel=1e-5)


def test_lidar_of_cropped_images_is_refused(tmp_path: Path) -> None:
    write_lidar(tmp_path, (352, 200))
    with pytest.raises(UserError, match=r"day/drive 0 l: made for images of 400x200, but these are 352x200"):
        KittiDepthSource(tmp_path, "train").read(0, np.random.default_rng(0))


def test_missing_scans_and_images_are_told_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lidar(tmp_path, (400, 200), frames=4)
    (tmp_path / "train_files.txt").write_text("".join(f"day/drive {frame} l\n" for frame in range(6)))
    (tmp_path / "day/drive/velodyne_points/data/0000000002.bin").unlink()
    spec = f"kitti:{tmp_path}:{tmp_path}"
    with pytest.raises(UserError, match=r"(?s)5 images and scans .*3 of 6 samples.*0002\.bin.*--skip_bad 3"):
        open_sources([spec], "train", (64, 96), skip_bad=2)
    assert len(open_sources([spec], "train", (64, 96), skip_bad=3)) == 3
    assert "3 of 6 samples" in capsys.readouterr().err
    labels(tmp_path, "0313")
    with pytest.raises(UserError, match=r"(?s)18 images .*18 of 18 samples.*0313/0\.jpg"):
        open_sources([f"tusimple:{tmp_path}"], "train", (64, 96), skip_bad=99)


def test_only_label_files_of_the_data_set_are_read(tmp_path: Path) -> None:
    labels(tmp_path, "0313", "interval")
    (tmp_path / "label_data_0313 (copy).json").write_text("a user's own")
    assert [len(part) for part in parts(tmp_path)] == [36, 4], "an interval is no validation part"
    (tmp_path / "label_data_0531.json").write_text((tmp_path / "label_data_0313.json").read_text())
    with pytest.raises(UserError, match=r"label_data_0313\.json and label_data_0531\.json .* both label 0313/0\.jpg"):
        TuSimpleSource(tmp_path, "train")


def clips(folder: Path, label: str, *names: str) -> None:
    """A label file with one line for each of these images, which are written below its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / label).write_text("\n".join(json.dumps({"raw_file": name, **LANE}) for name in names))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((20, 30, 3), np.uint8))


def test_the_benchmarks_folders_open_without_a_label(tmp_path: Path) -> None:
    clips(tmp_path / "train_set", "label_data_0313.json", *(f"clips/0313-1/{i}/20.jpg" for i in range(12)))
    clips(tmp_path / "train_set", "label_data_0531.json", *(f"clips/0531/{i}/20.jpg" for i in range(4)))
    clips(tmp_path / "test_set", "test_label.json", *(f"clips/0530/{i}/20.jpg" for i in range(4)))
    (tmp_path / "test_set" / "test_tasks_0627.json").write_text('{"raw_file": "clips/0530/0/20.jpg"}')
    train, val = parts(tmp_path)
    assert (len(train), len(val)) == (18, 2)
    found = open_sources([f"tusimple:{tmp_path}"], "train", (64, 96))  # which also looks for the images
    assert found.read(0, np.random.default_rng(0))[1].shape == (1, 7, 2)
    assert {name.split("/")[0] for name in train | val} == {"train_set", "test_set"}
    assert all(len(part) for part in parts(tmp_path, "test_label"))
    (tmp_path / "test_set" / "test_label.json").rename(tmp_path / "test_label.json")  # as one mirror has it
    assert parts(tmp_path)[0] | parts(tmp_path)[1] == train | val


def test_the_authors_folder_opens_without_a_label(tmp_path: Path) -> None:
    root = tmp_path / "TUSimple" / "train_set"
    images = [f"clips/0313-1/{i}/20.jpg" for i in range(12)]
    clips(root, "label_data_0313.json", *images[:8])
    clips(root, "label_data_0531.json", *images[8:])
    clips(root, "train_label_data.json", *images)  # made of the two
    for folder in (tmp_path, tmp_path / "TUSimple", root):
        train, val = parts(folder)
        assert {Path(folder, name) for name in train | val} == {root / image for image in images}
        assert len(open_sources([f"tusimple:{folder}"], "train", (64, 96))) == 11
    clips(root, "label_data_0601.json", images[0], "clips/0601/1/20.jpg")
    with pytest.raises(UserError, match=r"both label TUSimple/train_set/clips/0313-1/0/20\.jpg"):
        TuSimpleSource(tmp_path, "train")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"none has no label_data_\*\.json: .* or in train_set and test_set in it"):
        TuSimpleSource(tmp_path / "none", "train")


def test_folders_with_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lidar(tmp_path / "rec_12:30:00", (400, 200), frames=4)
    (tmp_path / "rec_12:30:00" / "splits" / "own").mkdir(parents=True)
    (tmp_path / "rec_12:30:00" / "splits" / "own" / "train_files.txt").write_text("day/drive 1 l\n")
    monkeypatch.chdir(tmp_path)
    assert len(open_sources(["kitti:rec_12:30:00"], "train", (64, 96))) == 3
    assert open_sources(["kitti:rec_12:30:00:own"], "train", (64, 96)).name(0) == "day/drive 1 l"
    for spec, named in ((r"C:\data\TUSIMPLE", r"C:\data\TUSIMPLE"), (r"C:\data:0313", r"C:\data"), ("none:x", "none")):
        with pytest.raises(UserError) as raised:
            open_sources([f"tusimple:{spec}"], "train", (64, 96))
        assert str(raised.value) == f"--data tusimple:{spec}: {named}: no such folder"
