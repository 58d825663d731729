"""`hybrid-encoder demo`: both stages, evaluation and pictures on rendered scenes, in minutes on two CPU cores."""

from __future__ import annotations

import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import open_clip
import timm
import torch

from ..colormap import color_range, colorize_depth, colorize_disparity, resize_to_height, tile_grid, write_picture
from ..engine.loop import Interrupted
from ..engine.processes import Processes, choose_device
from ..engine.record import read_metrics
from ..errors import UserError
from ..evaluation import DepthErrors
from ..images import read_image
from ..model.depth_model import DepthModel
from ..model.predictor import DepthPredictor, predict_disparities
from ..options import check_at_least, option
from ..stage1.checkpoint import STAGE1_FILE
from ..stage1.options import PretrainOptions
from ..stage1.training import pretrain
from ..stage2.checkpoint import load_depth_model
from ..stage2.evaluate import evaluate, prior_errors
from ..stage2.frames import open_source
from ..stage2.options import EvaluateOptions, Monodepth2Options
from ..stage2.training import build_model, train
from ..synthetic.sequence import SyntheticSource
from .report import Report


@dataclass(frozen=True)
class DemoOptions:
    """All options of `hybrid-encoder demo`; the defaults take under five minutes on two CPU cores."""

    out: Path = option(Path("demo"), "folder for runs and report.html; what an earlier demo left there is replaced")
    encoder: Literal["hybrid", "resnet"] = option("hybrid", "depth encoder; resnet has no stage 1")
    stage1_epochs: int = option(6, "epochs of stage 1")
    num_epochs: int = option(6, "epochs of stage 2")
    scenes: int = option(96, "rendered training drives of stage 2")
    height: int = option(64, "image height")
    width: int = option(192, "image width")
    batch_size: int = option(4, "samples of a step")
    learning_rate: float = option(5e-4, "learning rate of stage 2")
    device: str = option("cpu", "auto, cpu, cuda or cuda:N")
    seed: int = option(0, "seed of scenes and weights")


def run_demo(options: DemoOptions) -> dict[str, DepthErrors]:
    """Runs everything and writes `report.html`, and its pictures of depth as `depth.png`.

    Returns:
        Errors on held-out scenes by name: "prior", "before", "after".

    Raises:
        UserError: bad options, before anything is written.
        Interrupted: asked to stop.
    """
    check_at_least(options, {"stage1_epochs": 1, "num_epochs": 1, "scenes": 1})
    _stage1_options(options, options.out).check()
    _stage2_options(options, None).check()
    try:
        return _run(options)
    except Interrupted:
        raise Interrupted("the demo was stopped: the same command starts it anew") from None


def _run(options: DemoOptions) -> dict[str, DepthErrors]:
    started = time.perf_counter()
    out = _fresh_folder(options.out)
    group = Processes(choose_device(options.device))
    stage1 = out / "stage1" / STAGE1_FILE
    stage1_metrics: dict[str, float] = {}
    if options.encoder == "hybrid":
        print("stage 1: image patches ranked from close to distant against text", flush=True)
        stage1_metrics = pretrain(_stage1_options(options, stage1.parent), group)
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
    results = {
        "prior": prior_errors(test).mean,
        "before": evaluate(test, before).mean,
        "after": evaluate(test, model).mean,
    }
    _write_report(options, stage2, test, model, results, stage1_metrics, time.perf_counter() - started)
    for name, errors in results.items():
        print(f"{_ROW_NAMES[name]:<60} AbsRel {errors.abs_rel:.3f}  a1 {errors.a1:.3f}")
    print(f"report: {out / 'report.html'}")
    return results


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
        # a small unit of depth makes the first guess fit a camera that hardly moves, which is how pose nets start; and
        # class tokens already exist, where a ResNet for poses would cost more than all the rest.
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


def _write_report(
    options: DemoOptions,
    stage2: Monodepth2Options,
    test: EvaluateOptions,
    model: DepthPredictor,
    results: dict[str, DepthErrors],
    stage1: dict[str, float],
    seconds: float,
) -> None:
    report = Report(
        "hybrid-encoder: the demo's report",
        f"Preset tiny, random initial weights, rendered scenes, {seconds / 60:.1f} minutes on {_machine(options)}.",
    )
    report.heading("Depth of held-out scenes")
    source = open_source(test, "test", (0,), test.seed)
    assert isinstance(source, SyntheticSource)
    pictures = depth_pictures(model, source)
    write_picture(options.out / "depth.png", pictures)
    report.picture(pictures, "Image, prediction and truth; near is bright, on the truth's scale.")
    rows = [
        ("mean depth of the training scenes (looks at no image)", *results["prior"]),
        ("this run", *results["after"]),
    ]
    report.table(("", *DepthErrors._fields), rows)
    report.text("Median-scaled; the first four are errors, the last three shares of pixels within 1.25, 1.25², 1.25³.")
    if stage1:
        report.heading("Stage 1: patches ranked from close to distant")
        lines = [line for line in read_metrics(options.out / "stage1") if line["kind"] == "val"]
        rows1 = [(name, lines[0][key], lines[-1][key]) for name, key in _STAGE1_ROWS]
        report.table(("held-out scenes", "before training", "after"), rows1)
        for picture in sorted((options.out / "stage1" / "pictures").glob("*.jpg"))[:2]:
            report.picture(
                read_image(picture),
                "Sequences of seven patches, red is near, blue is far; right, the score of every cell.",
            )
        report.curves(_curves(options.out / "stage1", (("loss", "train"), ("ranking_accuracy", "val"))))
    report.heading("Stage 2: self-supervised depth")
    report.curves(_curves(stage2.folder, (("photometric", "train"), ("abs_rel", "val"))))
    report.heading("How to go on")
    report.code(
        "hybrid-encoder pretrain --data tusimple:TUSIMPLE --preset paper --out runs/stage1\n"
        "hybrid-encoder train monodepth2 --data_path KITTI --split eigen_zhou --stage1 runs/stage1/stage1.pth\n"
        "hybrid-encoder evaluate --weights runs/mdp --data_path KITTI --split eigen\n"
        "hybrid-encoder predict my_video.mp4 --weights runs/mdp --out depth"
    )
    report.write(options.out / "report.html")


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


def _machine(options: DemoOptions) -> str:
    device = choose_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{name}, {versions}, open_clip {open_clip.__version__}, timm {timm.__version__}"
