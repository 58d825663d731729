"""The demo: what it does with its folder, its verdict and its page, its threads."""

from __future__ import annotations

import html.parser
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hybrid_encoder import UserError
from hybrid_encoder.commands import demo
from hybrid_encoder.commands.demo_report import verdict
from hybrid_encoder.commands.options import DemoOptions
from hybrid_encoder.commands.report import Curve, Report
from hybrid_encoder.commands.whole_run import REPORT_FILE
from hybrid_encoder.engine.signals import Interrupted
from hybrid_encoder.engine.threads import suitable_threads, wait_asleep
from hybrid_encoder.evaluation import DepthErrors
from hybrid_encoder.stage1 import ordered_points

SMALL: dict[str, Any] = {"scenes": 6, "height": 32, "width": 64, "num_epochs": 1, "batch_size": 2}


def errors(abs_rel: float) -> DepthErrors:
    return DepthErrors(abs_rel, 1.0, 5.0, 0.3, 0.7, 0.8, 0.9)


class Elements(html.parser.HTMLParser):
    """Counts a page's elements, and keeps its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_stopped_demo_resumes_and_a_finished_one_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(ordered_points, "RENDERED_SCENES", 16)
    options = DemoOptions(out=tmp_path / "demo", from_scratch=True, stage1_epochs=1, **SMALL)
    whole, calls = demo.evaluate, []

    def stop(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise Interrupted("stopped")
        return whole(*arguments)

    monkeypatch.setattr(demo, "evaluate", stop)
    with pytest.raises(Interrupted, match="the same command resumes it"):
        demo.run(options)
    assert not (options.out / REPORT_FILE).exists()
    first = (options.out / "stage2" / "metrics.jsonl").read_text()
    capsys.readouterr()
    demo.run(options)
    out = capsys.readouterr().out
    assert "the run is finished" in out
    assert (options.out / "stage2" / "metrics.jsonl").read_text() == first
    page = Elements((options.out / REPORT_FILE).read_text())
    assert "since it was resumed" in page.text
    for part in (
        "learnt depth",
        "best guess without an image",
        "before stage 2",
        "after stage 2",
        "lanes",
        "and nearer",
    ):
        assert part in page.text
    assert page.count["img"] == 4 * 4 + 2
    assert page.count["svg"] >= 1  # a run of three steps has too few points for others
    assert not demo._prepare_folder(options)
    assert not (options.out / "stage2").exists()


def test_other_options_start_anew(tmp_path: Path) -> None:
    options = DemoOptions(out=tmp_path / "demo", **SMALL)
    assert not demo._prepare_folder(options)
    (options.out / "stage2").mkdir()
    assert demo._prepare_folder(options)
    assert not demo._prepare_folder(DemoOptions(out=options.out, **{**SMALL, "num_epochs": 2}))
    assert not (options.out / "stage2").exists()


def test_an_old_demo_s_folder_is_taken_over_and_a_foreign_one_is_not(tmp_path: Path) -> None:
    (tmp_path / ".hybrid-encoder-demo").touch()
    (tmp_path / "stage1").mkdir()
    assert not demo._prepare_folder(DemoOptions(out=tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files"):
        demo._prepare_folder(DemoOptions(out=tmp_path / "other"))


def test_stage1_ships_only_for_the_architecture_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo._shipped_stage1(DemoOptions(encoder="resnet")) is None
    other = demo.preset("tiny").replace(num_tokens=5)
    monkeypatch.setattr(demo, "preset", lambda _: other)
    assert demo._shipped_stage1(DemoOptions()) is None


def test_the_verdict_is_against_the_guess_and_the_start() -> None:
    good, text = verdict({"prior": errors(0.3), "before": errors(0.4), "after": errors(0.225)})
    assert good
    assert "AbsRel 0.225, 25 % less than the best guess that looks at no image (0.300)" in text
    assert "before stage 2 it was 0.400" in text
    good, text = verdict({"prior": errors(0.3), "before": errors(0.4), "after": errors(0.31)})
    assert not good
    assert "has not learnt depth" in text


def test_the_page_has_one_line_to_compare_with_and_fits_narrow_screens(tmp_path: Path) -> None:
    report = Report("title", "lead")
    report.curves([Curve("error <&>", [0, 10, 20], [0.4, 0.3, 0.2]).with_line(0.5, "the guess")])
    report.colour_bar("far", "near")
    report.pictures([("a", np.zeros((4, 8, 3), np.uint8))] * 4, columns=4)
    report.pictures([("b", np.zeros((4, 8, 3), np.uint8))] * 3, columns=3)
    report.write(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("stroke-dasharray") == 1
    assert "the guess: 0.5" in page
    assert "error &lt;&amp;&gt;" in page
    assert ">0.5</text>" in page, "the axis holds the line, too"
    assert "rgb(0, 0, 4)" in page, "magma begins in black"
    assert "@media (max-width: 640px)" in page
    assert "--columns: 4; --narrow: 2" in page
    assert "--columns: 3; --narrow: 3" in page, "rows of three stay whole"


def test_threads_are_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    with suitable_threads() as measured:
        assert 1 <= torch.get_num_threads() <= before
        assert f"of {before} threads" in measured
        assert "ms with 1" in measured
    assert torch.get_num_threads() == before


def test_waiting_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    wait_asleep()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    wait_asleep()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
