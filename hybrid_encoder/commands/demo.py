"""`hybrid-encoder demo`: stages 1 and 2, evaluation and pictures on rendered scenes, in minutes on two CPU cores."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ..config import preset
from ..engine.loop import Interrupted
from ..engine.processes import Processes, choose_device
from ..engine.threads import suitable_threads
from ..errors import UserError
from ..stage1.checkpoint import open_stage1
from ..stage1.options import PretrainOptions
from ..stage1.training import pretrain
from ..stage2.checkpoint import load_depth_model
from ..stage2.evaluate import evaluate, prior_errors
from ..stage2.options import EvaluateOptions, Monodepth2Options
from ..stage2.training import train
from ..weights.in_package import DEFAULT, shipped_folder
from ..weights.run_files import STAGE1_FILE
from .demo_report import Outcome, names_and_errors, write_report
from .options import DemoOptions
from .whole_run import REPORT_FILE, prepare_folder, untrained


def run(options: DemoOptions) -> None:
    """Runs everything; writes `report.html`, and its pictures of depth as `depth.png`.

    Raises:
        UserError: bad options, before anything is written.
        Interrupted: asked to stop.
    """
    _stage1_options(options, options.out).check()
    _stage2_options(options, None).check()
    try:
        _run(options)
    except Interrupted:
        raise Interrupted("the demo was stopped: the same command resumes it") from None


def _run(options: DemoOptions) -> None:
    started = time.perf_counter()
    resumed = _prepare_folder(options)
    group = Processes(choose_device(options.device))
    shipped = None if options.from_scratch else _shipped_stage1(options)
    stage1 = options.out / "stage1" / STAGE1_FILE if shipped is None and options.encoder == "hybrid" else shipped
    if shipped is not None:
        print(f"stage 1: the weights in the package ({shipped}); --from_scratch trains them", flush=True)
    elif stage1 is not None:
        with suitable_threads() as measured:
            print(f"stage 1: image patches ranked from close to distant against text ({measured})", flush=True)
            pretrain(_stage1_options(options, stage1.parent), group)
    stage2 = _stage2_options(options, stage1)
    with suitable_threads() as measured:
        print(f"stage 2: self-supervised depth from video ({measured})", flush=True)
        before = untrained(stage2, group)
        train(stage2, group)
        print("evaluation on held-out scenes", flush=True)
        test = EvaluateOptions(
            dataset="synthetic", height=options.height, width=options.width, scenes=options.scenes, seed=options.seed,
            weights=str(stage2.folder), crop="none",
        )  # fmt: skip
        model = load_depth_model(stage2.folder).to(group.device)
        errors = {
            "prior": prior_errors(test).mean,
            "before": evaluate(test, before).mean,
            "after": evaluate(test, model).mean,
        }
        outcome = Outcome(options, test, before, model, stage1, errors, time.perf_counter() - started, resumed)
        write_report(outcome)
    for name, metrics in names_and_errors(outcome):
        print(f"{name:<60} AbsRel {metrics.abs_rel:.3f}  a1 {metrics.a1:.3f}")
    print(f"report: {options.out / REPORT_FILE}")


def _prepare_folder(options: DemoOptions) -> bool:
    """As `prepare_folder`."""
    return prepare_folder(options, "demo", ("stage1", "stage2"))


def _shipped_stage1(options: DemoOptions) -> Path | None:
    """The package's stage-1 weights; None if they are of another architecture than the demo's, or unreadable."""
    folder = shipped_folder(DEFAULT)
    if options.encoder != "hybrid" or folder is None or not (folder / STAGE1_FILE).is_file():
        return None
    try:
        ours, shipped = preset("tiny").without_downloads(), open_stage1(folder / STAGE1_FILE).config
        same = shipped.replace(ranking=ours.ranking) == ours
    except UserError as error:
        print(f"the package's stage-1 weights are not used: {error}", file=sys.stderr)
        return None
    return folder / STAGE1_FILE if same else None


def _stage1_options(options: DemoOptions, out: Path) -> PretrainOptions:
    return PretrainOptions(
        preset="tiny",
        data=(f"synthetic:{options.seed}",),
        out=out,
        epochs=options.stage1_epochs,
        lr=2e-3,
        # Without a margin, towers with random weights collapse: they give all patches the same features.
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
        # Depth and motion both start from random weights. Coarse scales compare pixels over longer distances, which
        # surfaces without texture need. Class tokens already exist; a ResNet for poses would cost more than all other
        # nets.
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
