"""The report of a finished demo: a verdict, pictures before and after, metrics, curves, and stage 1 on lanes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..colormap import color_range, colorize_depth, colorize_disparity, resize_to_height, tile_grid, write_picture
from ..data.splits import evenly_spaced
from ..engine.processes import choose_device
from ..evaluation import DepthErrors
from ..model.depth_model import DepthModel
from ..model.predictor import DepthPredictor, predict_disparities
from ..stage1.lane_check import LaneCheck, check_lanes
from ..stage2.frames import open_source
from ..stage2.options import EvaluateOptions
from ..synthetic.sequence import SyntheticSource
from .measuring import machine
from .options import DemoOptions
from .report import Report, run_curve
from .whole_run import REPORT_FILE

TILE_HEIGHT = 144
"""Height of a picture in the report, pixels: the nets' own size is too small to see details."""
PHOTOMETRIC_TITLE = "photometric loss: error of each frame rebuilt from its neighbours (training)"
_ROWS = {
    "prior": "mean depth of the training scenes, which looks at no image",
    "before": "before stage 2",
    "after": "after stage 2",
}
_METRICS = {
    "abs_rel": "mean relative error (AbsRel), lower is better",
    "sq_rel": "squared relative error (SqRel), lower",
    "rmse": "RMSE in metres, lower",
    "rmse_log": "RMSE of log depth, lower",
    "a1": "pixels within 25 % (a1), higher is better",
    "a2": "pixels within 56 % (a2), higher",
    "a3": "pixels within 95 % (a3), higher",
}


@dataclass(frozen=True)
class Outcome:
    """The results of a finished demo.

    Attributes:
        options: of the demo.
        test: options of the evaluation on held-out scenes.
        before, model: the depth model before and after stage 2.
        stage1: the stage-1 file that stage 2 started from; None without stage 1.
        errors: on the held-out scenes, by the keys of `_ROWS`.
        seconds: since the command started.
        resumed: whether an earlier command did part of the work.
    """

    options: DemoOptions
    test: EvaluateOptions
    before: DepthModel
    model: DepthModel
    stage1: Path | None
    errors: dict[str, DepthErrors]
    seconds: float
    resumed: bool


def names_and_errors(outcome: Outcome) -> Iterator[tuple[str, DepthErrors]]:
    """The names and values of the errors."""
    return ((_ROWS[key], errors) for key, errors in outcome.errors.items())


def verdict(errors: dict[str, DepthErrors]) -> tuple[bool, str]:
    """Whether a run has learnt depth, and a sentence that says why.

    It is compared with the best guess that looks at no image, and with the model before training.
    """
    after, prior, before = (errors[key].abs_rel for key in ("after", "prior", "before"))
    guess = f"the best guess that looks at no image ({prior:.3f})"
    change = f"before stage 2 it was {before:.3f}"
    if after < prior:
        better = 100 * (1 - after / prior)
        return True, f"This run has learnt depth: AbsRel {after:.3f}, {better:.0f} % less than {guess}; {change}."
    advice = "Train longer (--num_epochs), or try another --seed."
    return False, f"This run has not learnt depth: AbsRel {after:.3f}, not less than {guess}; {change}. {advice}"


def write_report(outcome: Outcome) -> None:
    """Writes the report, and the pictures of depth as `depth.png`."""
    options, minutes = outcome.options, outcome.seconds / 60
    took = f"{minutes:.1f} minutes" + (" since it was resumed" if outcome.resumed else "")
    report = Report(
        "hybrid-encoder: the demo's report",
        f"Preset tiny, rendered scenes, {took} on {machine(choose_device(options.device))}.",
    )
    report.verdict(*verdict(outcome.errors))
    _report_depth(report, outcome)
    _report_training(report, outcome)
    if outcome.stage1 is not None:
        _report_stage1(report, outcome)
    report.heading("What comes next")
    report.code(
        "hybrid-encoder pretrain --data tusimple:TUSIMPLE --preset paper --out runs/stage1\n"
        "hybrid-encoder train monodepth2 --data_path KITTI --split eigen_zhou --stage1 runs/stage1/stage1.pth\n"
        "hybrid-encoder evaluate --weights runs/mdp --data_path KITTI --split eigen\n"
        "hybrid-encoder predict my_video.mp4 --weights runs/mdp --out depth"
    )
    report.write(options.out / REPORT_FILE)


def _report_depth(report: Report, outcome: Outcome) -> None:
    """Pictures and errors of held-out scenes; the pictures also go to `depth.png`."""
    report.heading("Depth of held-out scenes")
    source = open_source(outcome.test, "test", (0,), outcome.test.seed)
    assert isinstance(source, SyntheticSource)
    shown = DepthPictures(source, {"before stage 2": outcome.before, "after stage 2": outcome.model})
    report.pictures(shown.tiles(), columns=4)
    near, far = shown.range_in_metres()
    report.colour_bar(f"{far:.0f} m and farther", f"{near:.0f} m and nearer")
    small = DepthPictures(source, {"prediction": outcome.model})
    write_picture(outcome.options.out / "depth.png", tile_grid(small.tiles(), columns=3))
    report.table(
        ("on held-out scenes", "best guess without an image", "before stage 2", "after stage 2"),
        [
            (name, *(getattr(outcome.errors[key], metric) for key in ("prior", "before", "after")))
            for metric, name in _METRICS.items()
        ],
    )
    report.text(
        "Predicted depth is first scaled to the median of the truth, because a single camera does not know the scale."
    )


def _report_training(report: Report, outcome: Outcome) -> None:
    report.heading("Stage 2: depth from video, without labels")
    folder = Path(outcome.test.weights)
    report.curves(
        [
            run_curve(folder, "photometric", "train", PHOTOMETRIC_TITLE),
            run_curve(folder, "abs_rel", "val", "mean relative error (AbsRel) on validation scenes").with_line(
                outcome.errors["prior"].abs_rel, "best guess without an image"
            ),
        ]
    )


def _report_stage1(report: Report, outcome: Outcome) -> None:
    """Ranking of points on rendered lanes before and after stage 1, with pictures, and its curves if it ran."""
    assert outcome.stage1 is not None
    report.heading("Stage 1: image patches ranked from close to distant")
    options, folder = outcome.options, outcome.options.out / "stage1"
    found: LaneCheck = check_lanes(outcome.stage1, (options.height, options.width), options.seed)
    report.text(
        "The order of points along a painted lane is their order of distance, so that no depth label is needed. The "
        "encoder compares the patch of each point with the seven words from “very close” to “very distant”."
    )
    report.table(
        ("lanes of held-out streets", "before stage 1", "after stage 1"),
        [("pairs in the right order (chance 0.5)", found.before, found.after)],
    )
    for picture in found.pictures:
        report.picture(picture, "Left: points on lanes. Right: every cell of the image. Near is bright, far is dark.")
    lines = [
        run_curve(folder, "loss", "train", "training loss"),
        run_curve(folder, "ranking_accuracy", "val", "pairs in the right order on validation scenes (chance 0.5)"),
    ]
    if all(len(line.values) > 1 for line in lines):
        report.curves(lines)


class DepthPictures:
    """Pictures of evenly spaced frames, all with the same colour scale.

    Args:
        source: the frames and their exact depth.
        models: by the labels of their predictions.
        count: number of frames.
    """

    def __init__(self, source: SyntheticSource, models: dict[str, DepthPredictor], count: int = 4) -> None:
        self.source, self.models = source, models
        self.indices = evenly_spaced(len(source), count)
        truths = [source.depth(index) for index in self.indices]
        self.limits = color_range(np.concatenate([1 / truth[_known(truth)] for truth in truths]))

    def range_in_metres(self) -> tuple[float, float]:
        """The depths at the bright and at the dark end of the colour scale, metres."""
        far, near = self.limits
        return 1 / near, 1 / far

    def tiles(self) -> list[tuple[str, np.ndarray]]:
        """For each frame the image, the predictions and the truth, with labels; uint8 RGB."""
        found: list[tuple[str, np.ndarray]] = []
        for index in self.indices:
            image, truth = self.source.read(index, 0), self.source.depth(index)
            known = _known(truth)
            pictures = {"image": image}
            for name, model in self.models.items():
                disparity = cv2.resize(predict_disparities(model, [image])[0], truth.shape[::-1])
                disparity = disparity * np.median(1 / truth[known]) / np.median(disparity[known])
                pictures[name] = colorize_disparity(disparity, self.limits)
            pictures["truth"] = colorize_depth(np.where(known, truth, 0), self.limits)
            found += [(name, resize_to_height(picture, TILE_HEIGHT)) for name, picture in pictures.items()]
        return found


def _known(truth: np.ndarray) -> np.ndarray:
    """Pixels whose depth is shown: known and below 80 m."""
    return (truth > 0) & (truth < 80)
