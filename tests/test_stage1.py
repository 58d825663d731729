"""Stage 1's parts around its losses: schedule, held-out lanes, metrics of several processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.utils.data import DataLoader

from hybrid_encoder.data.loader import LoaderOptions, make_loader
from hybrid_encoder.engine.processes import Processes, leave
from hybrid_encoder.errors import UserError
from hybrid_encoder.stage1.dataset import Stage1Batch, Stage1Dataset, collate
from hybrid_encoder.stage1.lanes import TuSimpleSource
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage1.ordered_points import SyntheticDepthSource
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
    multiprocessing.spawn(_validate, (str(tmp_path), images, gaps), nprocs=2)
    alone = task(images=images, gaps=gaps)
    alone.model.eval()
    with torch.no_grad():
        expected = alone.validate(Processes(CPU))
    for rank in range(2):
        metrics, confusion = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        assert metrics == pytest.approx(expected, rel=1e-5)
        assert torch.equal(confusion, alone.confusion)
