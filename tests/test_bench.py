"""`hybrid-encoder bench`: every part runs, writes what it measured, and its two sides compute the same."""

import json
from pathlib import Path

import pytest

from hybrid_encoder.cli import main

SMALL = ["--preset", "tiny", "--height", "64", "--width", "96", "--repeats", "1", "--device", "cpu"]


def bench(part: str, folder: Path, *arguments: str) -> dict[str, float]:
    report = folder / f"{part}.json"
    assert main(["bench", part, *SMALL, *arguments, "--json", str(report)]) == 0
    found: dict[str, float] = json.loads(report.read_text())
    return found


def test_encoder(tmp_path: Path) -> None:
    found = bench("encoder", tmp_path)
    assert found["largest_difference"] < 1e-5
    assert found["ratio_encoder"] == found["per_image_text_encoder_seconds"] / found["encoder_seconds"]
    assert {"benchmark", "machine", "ratio_encoder_decoder"} <= set(found)


@pytest.mark.parametrize("encoder", ["hybrid", "resnet"])
def test_train(encoder: str, tmp_path: Path) -> None:
    found = bench("train", tmp_path, "--encoder", encoder, "--batch_size", "2")
    assert found["samples_per_second"] == 2 / found["step_seconds"]
    assert ("text_share" in found) == (encoder == "hybrid")


def test_stage1(tmp_path: Path) -> None:
    assert bench("stage1", tmp_path)["relative_difference"] < 1e-5


def test_loader(scenes: Path, tmp_path: Path) -> None:
    found = bench("loader", tmp_path, "--data_path", str(scenes / "kitti"), "--split", "synthetic")
    assert found["samples_per_second"] > 0


def test_cost_volume(tmp_path: Path) -> None:
    assert bench("cost-volume", tmp_path)["cost_volume_seconds"] > 0
