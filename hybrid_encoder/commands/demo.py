"""`hybrid-encoder demo`: both stages, evaluation and pictures on rendered scenes, in minutes on two CPU cores."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..colormap import color_range, colorize_depth, colorize_disparity, resize_to_height, tile_grid, write_picture
from ..engine.loop import Interrupted
from ..engine.processes import Processes, choose_device
from ..engine.record import read_metrics
from ..errors import UserError
from ..evaluation import DepthErrors
from ..images import read_image
from ..model.depth_model import DepthModel
from ..model.predictor import DepthPredictor, predict_disparities
from ..stage1.checkpoint import STAGE1_FILE
from ..stage1.options import PretrainOptions
from ..stage1.training import pretrain
from ..stage2.checkpoint import load_depth_model
from ..stage2.evaluate import evaluate, prior_errors
from ..stage2.frames import open_source
from ..stage2.options import EvaluateOptions, Monodepth2Options
from ..stage2.training import build_model, train
from ..synthetic.sequence import SyntheticSource
from .measuring import machine
from .options import DemoOptions
from .report import Report


@dataclass(frozen=True)
class _Outcome:
    """What a finished demo reports.

    Attributes:
        options: of the demo.
        test: held-out scenes, and the weights that were evaluated on them.
        model: those weights' model.
        errors: on the held-out scenes, under the keys of `_ROW_NAMES`.
        seconds: that everything took.
    """

    options: DemoOptions
    test: EvaluateOptions
    model: DepthPredictor
    errors: dict[str, DepthErrors]
    seconds: float


def run(options: DemoOptions) -> None:
    """Runs everything and writes `report.html`, and its pictures of depth as `depth.png`.

    Raises:
        UserError: bad options, before anything is written.
        Interrupted: asked to stop.
    """
    _stage1_options(options, options.out).check()
    _stage2_options(options, None).check()
    try:
        _run(options)
    except Interrupted:
        raise Interrupted("the demo was stopped: the same command starts it anew") from None


def _run(options: DemoOptions) -> None:
    started = time.perf_counter()
    out = _fresh_folder(options.out)
    group = Processes(choose_device(options.device))
    stage1 = out / "stage1" / STAGE1_FILE
    if options.encoder == "hybrid":
        print("stage 1: image patches ranked from close to distant against text", flush=True)
        pretrain(_stage1_options(options, stage1.parent), group)
    print("stage 2: self-supervised depth from video", flush=True)
    stage2 = _stage2_options(options, stage1 if options.encoder == "hybrid" else None)
    untrained = build_model(stage2)
    train(stage2, group)
    print("evaluation on held-out scenes", flush=True)
    test = EvaluateOptions(
        dataset="synthetic", height=options.height, width=options.width, scenes=options.scenes, seed=options.seed,
        weights=str(stage2.folder), crop="none",
    )  # fmt: skip
    model = load_depth_model(stage2.folder).to(group.device)
    limits = stage2.min_depth, stage2.max_depth
    before = DepthModel(untrained.encoder, untrained.depth, options.height, options.width, *limits)
    before.eval().to(group.device)
    errors = {
        "prior": prior_errors(test).mean,
        "before": evaluate(test, before).mean,
        "after": evaluate(test, model).mean,
    }
    _write_report(_Outcome(options, test, model, errors, time.perf_counter() - started))
    for name, metrics in errors.items():
        print(f"{_ROW_NAMES[name]:<60} AbsRel {metrics.abs_rel:.3f}  a1 {metrics.a1:.3f}")
    print(f"report: {out / 'report.html'}")


def _fresh_folder(out: Path) -> Path:
    """Empties what an earlier demo left; refuses a folder that holds something else."""
    marker = out / ".hybrid-encoder-demo"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose a folder with --out")
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise UserError(f"{out} holds other files: choose another folder with --out")
    for run in ("stage1", "stage2"):
        shutil.rmtree(out / run, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return out


def _stage1_options(options: DemoOptions, out: Path) -> PretrainOptions:
    return PretrainOptions(
        preset="tiny",
        data=(f"synthetic:{options.seed}",),
        out=out,
        epochs=options.stage1_epochs,
        lr=2e-3,
        # Without a margin, towers that start from random numbers find the trivial answer: all patches alike.
        margin=5.0,
        height=options.height,
        width=options.width,
        num_workers=0,
        device=options.device,
        seed=options.seed,
    )


def _stage2_options(options: DemoOptions, stage1: Path | None) -> Monodepth2Options:
    return Monodepth2Options(
        dataset="synthetic",
        scenes=options.scenes,
        height=options.height,
        width=options.width,
        encoder=options.encoder,
        preset="tiny",
        weights_init="scratch",
        stage1=stage1,
        # From random numbers, depth and motion are learnt together from nothing. All scales reach over flat surfaces;
        # class tokens already exist, where a ResNet for poses would cost more than all the rest.
        prevent_collapse=True,
        scales=(0, 1, 2, 3),
        min_depth=0.02,
        max_depth=20.0,
        pose_model_type="class_token" if options.encoder == "hybrid" else "separate_resnet",
        log_dir=options.out,
        model_name="stage2",
        num_epochs=options.num_epochs,
        lr_schedule="one_cycle",
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        num_workers=0,
        log_frequency=10,
        device=options.device,
        seed=options.seed,
    )


def _write_report(outcome: _Outcome) -> None:
    options, minutes = outcome.options, outcome.seconds / 60
    report = Report(
        "hybrid-encoder: the demo's report",
        f"Preset tiny, random initial weights, rendered scenes, {minutes:.1f} minutes on "
        f"{machine(choose_device(options.device))}.",
    )
    _report_depth(report, outcome)
    if options.encoder == "hybrid":
        _report_stage1(report, options.out / "stage1")
    report.heading("Stage 2: self-supervised depth")
    report.curves(_curves(Path(outcome.test.weights), (("photometric", "train"), ("abs_rel", "val"))))
    report.heading("What comes next")
    report.code(
        "hybrid-encoder pretrain --data tusimple:TUSIMPLE --preset paper --out runs/stage1\n"
        "hybrid-encoder train monodepth2 --data_path KITTI --split eigen_zhou --stage1 runs/stage1/stage1.pth\n"
        "hybrid-encoder evaluate --weights runs/mdp --data_path KITTI --split eigen\n"
        "hybrid-encoder predict my_video.mp4 --weights runs/mdp --out depth"
    )
    report.write(options.out / "report.html")


def _report_depth(report: Report, outcome: _Outcome) -> None:
    """Pictures and errors of held-out scenes; the pictures also go to `depth.png`."""
    report.heading("Depth of held-out scenes")
    source = open_source(outcome.test, "test", (0,), outcome.test.seed)
    assert isinstance(source, SyntheticSource)
    pictures = depth_pictures(outcome.model, source)
    write_picture(outcome.options.out / "depth.png", pictures)
    report.picture(pictures, "Image, prediction and truth; near is bright, on the truth's scale.")
    rows = [
        ("mean depth of the training scenes (looks at no image)", *outcome.errors["prior"]),
        ("this run", *outcome.errors["after"]),
    ]
    report.table(("", *DepthErrors._fields), rows)
    report.text("Median-scaled; the first four are errors, the last three shares of pixels within 1.25, 1.25², 1.25³.")


def _report_stage1(report: Report, folder: Path) -> None:
    """Metrics before and after stage 1, two of its pictures, and its curves."""
    report.heading("Stage 1: patches ranked from close to distant")
    lines = [line for line in read_metrics(folder) if line["kind"] == "val"]
    rows = [(name, lines[0][key], lines[-1][key]) for name, key in _STAGE1_ROWS]
    report.table(("held-out scenes", "before training", "after"), rows)
    caption = "Sequences of seven patches, red is near, blue is far; right, the score of every cell."
    for picture in sorted((folder / "pictures").glob("*.jpg"))[:2]:
        report.picture(read_image(picture), caption)
    report.curves(_curves(folder, (("loss", "train"), ("ranking_accuracy", "val"))))


_ROW_NAMES = {
    "prior": "mean depth of the training scenes, which looks at no image",
    "before": "before stage 2",
    "after": "after stage 2",
}
_STAGE1_ROWS = (
    ("pairwise ranking accuracy (chance 0.5)", "ranking_accuracy"),
    ("Kendall's tau (chance 0)", "kendall_tau"),
    ("ranking loss", "ranking_loss"),
)


TILE_HEIGHT = 144
"""Pixels of a picture in the report: the nets' own size is too small to look at."""


def depth_pictures(model: DepthPredictor, source: SyntheticSource, count: int = 4) -> np.ndarray:
    """Rows of image, prediction, truth of evenly spaced frames: uint8 RGB."""
    tiles = []
    for index in np.linspace(0, len(source) - 1, count).round().astype(int).tolist():
        image, truth = source.read(index, 0), source.depth(index)
        disparity = predict_disparities(model, [image])[0]
        disparity = cv2.resize(disparity, truth.shape[::-1])
        known = (truth > 0) & (truth < 80)
        disparity = disparity * np.median(1 / truth[known]) / np.median(disparity[known])
        limits = color_range(1 / truth[known])
        pictures = {
            "image": image,
            "prediction": colorize_disparity(disparity, limits),
            "truth": colorize_depth(np.where(known, truth, 0), limits),
        }
        tiles += [(name, resize_to_height(picture, TILE_HEIGHT)) for name, picture in pictures.items()]
    return tile_grid(tiles, columns=3)


def _curves(folder: Path, wanted: tuple[tuple[str, str], ...]) -> list[tuple[str, list[float], list[float]]]:
    lines = list(read_metrics(folder))
    curves = []
    for name, kind in wanted:
        points = [(line["step"], line[name]) for line in lines if line["kind"] == kind and name in line]
        curves.append((f"{kind}: {name}", [step for step, _ in points], [value for _, value in points]))
    return curves
