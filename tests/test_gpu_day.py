"""`make gpu`: its parts share the time, lose nothing when they are stopped, and run on a CPU at small sizes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu_day")


def test_a_stop_loses_no_line_and_the_next_part_has_its_time(
    day: Any, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    programs = {
        "table": "print('| a row |')",
        "hangs": "import time; print('| the first row |'); time.sleep(60)",
        "fails": "print('| before |'); raise SystemExit(3)",
    }
    planned = [day.Part(name, 1, [sys.executable, "-c", program]) for name, program in programs.items()]
    assert not day.run_all(planned, tmp_path, 4)
    assert (tmp_path / "table.md").read_text() == "| a row |\n"
    assert (tmp_path / "hangs.md").read_text() == "| the first row |\n"
    assert (tmp_path / "fails.md").read_text() == "| before |\n"
    endings = [line.split(",")[0] for line in (tmp_path / "summary.md").read_text().splitlines()]
    assert endings == ["table: done", "hangs: out of time", "fails: failed (3)"]
    assert "| the first row |" in capfd.readouterr().out
    assert day.run_all(planned[:1], tmp_path, 3)


def test_without_a_gpu_no_part_is_begun(
    day: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        day.main(["--out", str(tmp_path / "out")])
    assert "PyTorch sees no GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_parts_fit_into_eight_minutes(day: Any, tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        planned = day.parts(device, tmp_path)
        assert [part.name for part in planned] == ["tests", "inference", "steps", "fill", "training", "profile"]
        assert sum(part.seconds for part in planned) <= day.SECONDS == 480


def test_the_tables_at_small_sizes(day: Any, capsys: pytest.CaptureFixture) -> None:
    gpu = importlib.import_module("gpu")
    size = ["--height", "32", "--width", "64", "--sizes", "32x64", "--batches", "1", "--batch", "1"]
    gpu.main([*day.SMALL, "--device", "cpu", "--parts", "inference", "fill", *size, "--largest_batch", "1"])
    lines = capsys.readouterr().out.splitlines()
    inference, step = (line.split(" | ") for line in lines if line.startswith("| hybrid, `tiny`"))
    assert inference[1:3] == ["1", "float32"]
    assert float(inference[3]) > float(inference[4]) > 0, "the decoder takes time, too"
    assert step[1:4] == ["32x64", "1", "float32"]
    assert float(step[5]) == pytest.approx(1 / float(step[4]), abs=0.1)


def test_flops_are_those_of_the_formula(day: Any) -> None:
    import torch

    gpu = importlib.import_module("gpu")
    convolution, image = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.ones(2, 3, 5, 7)
    forward = 2 * 2 * 8 * 5 * 7 * 3 * 9
    assert gpu.flops(lambda: convolution(image)) == forward
    assert gpu.flops(lambda: convolution(image).sum().backward()) == 2 * forward, (
        "no gradient of the image is asked for"
    )
