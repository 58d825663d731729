"""`hybrid-encoder bench` measures every part; the two sides of benchmarks/parts.py compute the same."""

import importlib
import json
from pathlib import Path

import pytest

from hybrid_encoder.cli import main
from hybrid_encoder.model.resnet import ResnetEncoder
from hybrid_encoder.stage2.training import build_model
from hybrid_encoder.weights.in_package import shipped_folder
from hybrid_encoder.weights.run_files import STAGE1_FILE

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = ["--preset", "tiny", "--height", "64", "--width", "96", "--repeats", "1", "--device", "cpu"]


def bench(part: str, folder: Path, *arguments: str) -> dict[str, float]:
    report = folder / f"{part}.json"
    assert main(["bench", part, *SMALL, *arguments, "--json", str(report)]) == 0
    found: dict[str, float] = json.loads(report.read_text())
    return found


def compare(part: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    report = folder / f"{part}.json"
    importlib.import_module("parts").main([part, *SMALL, "--json", str(report)])
    found: dict[str, float] = json.loads(report.read_text())
    return found


def test_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare("encoder", tmp_path, monkeypatch)
    assert found["largest_difference"] < 1e-5
    assert found["ratio_encoder"] == found["per_image_text_encoder_seconds"] / found["encoder_seconds"]
    assert {"benchmark", "machine", "ratio_encoder_decoder"} <= set(found)


def test_encoder_alone(tmp_path: Path) -> None:
    found = bench("encoder", tmp_path, "--batch_size", "2")
    assert found["images_per_second"] == 2 / found["encoder_decoder_seconds"]
    assert found["peak_memory_gib"] > 0


@pytest.mark.parametrize("encoder", ["hybrid", "resnet"])
def test_train(encoder: str, tmp_path: Path) -> None:
    found = bench("train", tmp_path, "--encoder", encoder, "--batch_size", "2")
    assert found["samples_per_second"] == 2 / found["step_seconds"]
    assert ("text_share" in found) == (encoder == "hybrid")


def test_stage1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compare("stage1", tmp_path, monkeypatch)["relative_difference"] < 1e-5


def test_a_step_of_stage1(tmp_path: Path) -> None:
    found = bench("stage1", tmp_path, "--batch_size", "2")
    assert found["samples_per_second"] == 2 / found["step_seconds"]


def test_loader(scenes: Path, tmp_path: Path) -> None:
    found = bench("loader", tmp_path, "--data_path", str(scenes / "kitti"), "--split", "synthetic")
    assert found["samples_per_second"] > 0


def test_cost_volume(tmp_path: Path) -> None:
    assert bench("cost-volume", tmp_path)["cost_volume_seconds"] > 0


def test_a_batch_that_does_not_fit_is_no_traceback(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "cost-volume", *SMALL, "--batch_size", "2000000000"]) == 2
    assert "--batch_size 2000000000 --height 64 --width 96 does not fit" in capsys.readouterr().err


@pytest.mark.parametrize("script", [path.stem for path in sorted(BENCHMARKS.glob("*.py"))])
def test_every_script_finds_what_it_imports(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    assert callable(importlib.import_module(script).main)


def test_every_arm_of_the_ablation_has_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    ablation = importlib.import_module("ablation")
    monkeypatch.setattr(ablation, "stage1_file", lambda *_: shipped_folder("tiny-rendered") / STAGE1_FILE)
    for arm in ablation.ARMS:
        options = ablation.arm_options(arm, 0, 1, tmp_path)
        model = build_model(options)
        assert isinstance(model.encoder, ResnetEncoder) == (arm == "resnet18")
        assert (model.unit is None) == (arm == "not_prevented")
