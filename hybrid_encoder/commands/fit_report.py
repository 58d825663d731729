"""The report of a finished fit: a verdict, pictures before and after, metrics and curves of the held-out frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..colormap import color_range, colorize_disparity, resize_to_height
from ..data.splits import evenly_spaced
from ..engine.processes import choose_device
from ..engine.record import read_metrics
from ..images import cut_bottom
from ..model.depth_model import DepthModel
from ..model.predictor import DepthPredictor, predict_disparities, resize_map
from ..stage2.camera import CAMERA_FILE
from ..stage2.health import unhealthy
from .demo_report import PHOTOMETRIC_TITLE, TILE_HEIGHT
from .fit_plan import Plan, unknowable
from .measuring import machine
from .report import Report, run_curve
from .whole_run import REPORT_FILE

_SHOWN = 4
_METRICS = {
    "photometric": "photometric loss: error of a frame rebuilt from its neighbours, lower is better",
    "auto_mask_share": "share of pixels that depth and motion rebuild better than no motion does, higher is better",
    "log_depth_spread": "spread of log depth within a frame; 0 is flat",
    "row_correlation": "correlation of depth with the row: -1 is far at the top and near at the bottom, as on roads",
    "translation": "motion between frames, as a share of the mean depth",
}


@dataclass(frozen=True)
class FitOutcome:
    """The results of a finished fit.

    Attributes:
        plan: of the fit.
        before, after: the depth model before training and after its best epoch.
        doubtful: why the learnt focal length is refused; empty if it is accepted, or if none was learnt.
        seconds: since the command started.
        resumed: whether an earlier command did part of the work.
    """

    plan: Plan
    before: DepthModel
    after: DepthModel
    doubtful: str
    seconds: float
    resumed: bool

    def validations(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The metrics of held-out frames before training and in the best epoch."""
        lines = [line for line in read_metrics(self.plan.stage2.folder) if line["kind"] == "val"]
        return lines[0], min(lines[1:], key=lambda line: float(line["loss"]))


def verdict(outcome: FitOutcome) -> tuple[bool, str]:
    """Whether the fit succeeded, and a sentence that says why."""
    first, best = outcome.validations()
    change = f"from {first['photometric']:.4f} to {best['photometric']:.4f}"
    if wrong := unhealthy(best):
        return False, f"This fit went wrong: {wrong}. The photometric loss of held-out frames went {change}."
    if best["photometric"] >= first["photometric"]:
        return False, f"This fit has learnt nothing: the photometric loss of held-out frames went {change}."
    return True, (
        f"The photometric loss of held-out frames fell {change}, and depth is neither flat nor upside down. Check the "
        "pictures, because no ground truth is known here."
    )


def write_report(outcome: FitOutcome) -> None:
    """Writes the page."""
    plan, options = outcome.plan, outcome.plan.options
    took = f"{outcome.seconds / 60:.1f} minutes" + (" since it was resumed" if outcome.resumed else "")
    clips = ", ".join(Path(name).name for name in options.inputs)
    report = Report(f"hybrid-encoder: fit to {clips}", f"{took} on {machine(choose_device(options.device))}.")
    report.verdict(*verdict(outcome))
    report.heading("Held-out frames: the end of the clip, which is not in training")
    report.pictures(_tiles(outcome), columns=3)
    report.colour_bar("farthest of the frame", "nearest of the frame")
    first, best = outcome.validations()
    rows = [(text, first[name], best[name]) for name, text in _METRICS.items()]
    report.table(("on held-out frames", "before", "best epoch"), rows)
    report.text("Before training, the pose net is random: part of the gain comes from learnt motion, not from depth.")
    report.heading("Training")
    run = plan.stage2.folder
    curves = [run_curve(run, "photometric", "train", PHOTOMETRIC_TITLE)]
    curves.append(run_curve(run, "photometric", "val", "photometric loss of held-out frames"))
    if plan.stage2.learn_intrinsics:
        curves.append(run_curve(run, "focal_length", "val", "focal length as a share of the frame's width"))
    report.curves(curves)
    report.heading("The camera")
    report.text(_camera(outcome))
    report.heading("What this fit does not know")
    for what in unknowable(options):
        report.text(f"{what[0].upper()}{what[1:]}.")
    report.heading("What comes next")
    report.code(f"hybrid-encoder predict {clips} --weights {options.out / 'weights'} --out depth")
    report.write(options.out / REPORT_FILE)


def _camera(outcome: FitOutcome) -> str:
    plan = outcome.plan
    if not plan.stage2.learn_intrinsics:
        return f"As it was given: {plan.options.intrinsics or f'--fov {plan.options.fov:g}'}."
    _, best = outcome.validations()
    if outcome.doubtful:
        return f"The focal length is refused: {outcome.doubtful}. Or give --fov DEGREES or --intrinsics."
    K, (width, height) = plan.learnt_camera().K, plan.size
    return (
        f"Learnt: fx {K[0, 0]:.0f}, fy {K[1, 1]:.0f} pixels of frames of {width}x{height}, that is "
        f"{best['focal_length']:.3f} of the width ({CAMERA_FILE})."
    )


def _tiles(outcome: FitOutcome) -> list[tuple[str, np.ndarray]]:
    """For evenly spaced held-out frames, the image and both predictions, each with its own colour scale; uint8 RGB."""
    val, options = outcome.plan.val, outcome.plan.options
    models: dict[str, DepthPredictor] = {"before": outcome.before, "after": outcome.after}
    found: list[tuple[str, np.ndarray]] = []
    for index in evenly_spaced(len(val), _SHOWN):
        image = cut_bottom(val.read(index, 0), options.crop_bottom)
        found.append((val.name(index), resize_to_height(image, TILE_HEIGHT)))
        for name, model in models.items():
            disparity = resize_map(predict_disparities(model, [image])[0], *image.shape[:2])
            coloured = colorize_disparity(disparity, color_range(disparity))
            found.append((name, resize_to_height(coloured, TILE_HEIGHT)))
    return found
