"""The command fit: what it plans, leaves and says, on a short rendered drive."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybrid_encoder import UserError
from hybrid_encoder.colormap import write_picture
from hybrid_encoder.commands import fit, fit_plan
from hybrid_encoder.commands.fit_report import FitOutcome, verdict
from hybrid_encoder.commands.options import FitOptions
from hybrid_encoder.config import preset
from hybrid_encoder.data.calibration import read_intrinsics
from hybrid_encoder.engine.record import METRICS_FILE
from hybrid_encoder.model.nets import DepthNets
from hybrid_encoder.prediction.inputs import InputFile
from hybrid_encoder.stage2.networks import asked_nets
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.synthetic.sequence import render_sequence

from .test_demo import Elements
from .videos import write_video

HEALTHY = {"log_depth_spread": 0.5, "limit_share": 0.0, "row_correlation": -0.9, "translation": 0.05}


@dataclass(frozen=True)
class Finished:
    """A fit that was run, and what it printed."""

    options: FitOptions
    told: str


@pytest.fixture(scope="module")
def finished(module_path: Path) -> Finished:
    """A fit to 12 frames, the third of which is shown three times."""
    images = render_sequence(5, 12, 64, 96).images
    for number, shown in enumerate([0, 1, 2, 2, 2, *range(3, 12)]):
        write_picture(module_path / "drive" / f"{number:03d}.png", images[shown].permute(1, 2, 0).numpy())
    options = FitOptions(
        inputs=(str(module_path / "drive"),), out=module_path / "fit", height=32, width=64, num_epochs=2, batch_size=4,
        min_motion=0.001, device="cpu",
    )  # fmt: skip
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        fit.run(options)
    return Finished(options, told.getvalue())


def test_a_fit_leaves_weights_depth_and_a_report(finished: Finished) -> None:
    out = finished.options.out
    assert (out / "run/models/weights_best/encoder.pth").is_file()
    assert json.loads((out / "weights/config.json").read_text())["height"] == 32
    assert len(list((out / "depth").glob("*_disp.png"))) == 14, "still frames are predicted like all others"
    page = Elements((out / "report.html").read_text())
    assert page.count["img"] == 3, "one held-out frame, before and after"
    for part in (
        "on held-out frames",
        "before",
        "The focal length is refused",
        "Metres. Depth is correct",
        "drive frame",
    ):
        assert part in page.text, part
    refused = [*out.glob("intrinsics.json"), *(out / "depth").glob("*.ply")]
    assert not refused, "a camera that is refused is not left for others to take, nor points made by it"


def test_a_fit_says_at_the_start_how_long_it_takes_and_what_it_cannot_know(finished: Finished) -> None:
    beginning, _, rest = finished.told.partition("training:")
    for part in (
        "frames: 7 to train on, 1 held out, 64x32; 2 others hardly move and are left out",
        "start: tiny-rendered",
        "the focal length is learnt, starting from a field of view of 60 degrees",
        "time: at most 1 min of training (2 epochs of 1 steps)",
        "not known afterwards: metres",
        "not known afterwards: lens distortion",
    ):
        assert part in beginning, beginning
    assert "the focal length is refused: " in rest


def test_tensorboard_shows_a_held_out_frame_after_every_validation(finished: Finished) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished.options.out / "run/tensorboard/pictures"), {"images": 0})
    events.Reload()
    assert {"frame", "depth", "frame_-1_warped", "auto_mask"} == set(events.Tags()["images"])
    assert [event.step for event in events.Images("depth")] == [0, 1, 2]
    assert (events.Images("depth")[0].height, events.Images("depth")[0].width) == (32, 64)


def test_options_build_the_nets_of_the_weights() -> None:
    tiny = DepthNets(config=preset("tiny").without_downloads().replace(num_tokens=5), decoder="dpt", scales=(0,))
    resnet = DepthNets(num_layers=34, min_depth=0.5)
    for nets in (replace(tiny, config=tiny.config and tiny.config.replace(pyramid=False)), resnet):
        options = Monodepth2Options(**fit_plan.net_options(nets), weights_init="scratch")
        assert asked_nets(options, options.config()) == nets


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, (128, 256)), ({"crop_bottom": 0.0}, (128, 224)), ({"width": 320}, (160, 320)), ({"height": 96}, (96, 192))],
)
def test_frames_keep_their_proportions_and_the_weights_pixels(given: dict[str, Any], expected: tuple[int, int]) -> None:
    options = FitOptions(**{"crop_bottom": 0.07, **given})
    assert fit_plan._net_size(options, (1280, 720), 96 * 320) == expected


def test_a_field_of_view_is_a_camera(tmp_path: Path) -> None:
    """Half of 100 pixels at 45 degrees is 50 pixels away."""
    path = fit_plan._write_camera(FitOptions(fov=90.0), (100, 40), tmp_path)
    np.testing.assert_allclose(read_intrinsics(path).K, [[50, 0, 49.5], [0, 50, 19.5], [0, 0, 1]])
    guess = read_intrinsics(fit_plan._write_camera(FitOptions(), (100, 40), tmp_path)).K[0, 0]
    assert guess == pytest.approx(50 * math.sqrt(3))


def test_several_clips_are_one_data_set(tmp_path: Path) -> None:
    clips = [write_video(tmp_path / name / "a.avi") for name in ("one", "two")]
    files = [InputFile(clip, True, True) for clip in clips]
    options = FitOptions(inputs=tuple(map(str, clips)))
    for _ in range(2):  # as when a fit resumes
        folder = fit_plan._data_path(options, files, tmp_path)
    assert [link.resolve() for link in sorted(folder.iterdir())] == clips
    assert fit_plan._data_path(FitOptions(inputs=(str(clips[0]),)), files[:1], tmp_path) == clips[0]
    with pytest.raises(UserError, match=r"x\.png is an image"):
        fit_plan._data_path(options, [*files, InputFile(tmp_path / "x.png", False, True)], tmp_path)


def test_what_makes_no_sense_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file or folder: drive\.mp4"):
        fit.run(FitOptions(inputs=("drive.mp4",), out=tmp_path / "fit"))
    write_picture(tmp_path / "0.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(UserError, match="leave one of them out"):
        fit.run(FitOptions(inputs=(str(tmp_path),), fov=60.0, intrinsics="90,90,16,16", out=tmp_path / "fit"))
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize(
    ("best", "good", "told"),
    [
        ({"photometric": 0.08}, True, "fell from 0.1000 to 0.0800"),
        ({"photometric": 0.11}, False, "has learnt nothing"),
        ({"photometric": 0.08, "log_depth_spread": 0.0}, False, "went wrong: depth is flat"),
    ],
)
def test_the_verdict_needs_less_loss_and_healthy_depth(
    best: Mapping[str, float], good: bool, told: str, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    lines = [{"photometric": 0.1, "loss": 0.1}, {"photometric": 0.2, "loss": 0.2}, {**best, "loss": 0.09}]
    text = "".join(
        json.dumps({"kind": "val", "step": step, "epoch": step, "time": 1.0, **HEALTHY, **line}) + "\n"
        for step, line in enumerate(lines)
    )
    (tmp_path / "run" / METRICS_FILE).write_text(text)
    stage2 = Monodepth2Options(log_dir=tmp_path, model_name="run")
    plan = fit_plan.Plan(FitOptions(), stage2, "", (1, 1), *[None] * 2)  # type: ignore[arg-type]
    found = verdict(FitOutcome(plan, None, None, "", 1.0, False))  # type: ignore[arg-type]
    assert found[0] == good
    assert told in found[1]
