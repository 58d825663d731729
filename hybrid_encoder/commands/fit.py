"""`hybrid-encoder fit`: learns depth from a user's own drive; from videos to weights, depth videos and a report."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from ..data.calibration import intrinsics_text, read_intrinsics
from ..engine.inference import inference, prepare
from ..engine.loop import Interrupted
from ..engine.processes import Processes, choose_device
from ..engine.record import read_metrics
from ..engine.threads import suitable_threads
from ..model.depth_model import DepthModel
from ..prediction.inputs import find_inputs
from ..prediction.paths import predict_paths
from ..prediction.settings import PredictionSettings
from ..stage2.camera import CAMERA_FILE, doubt
from ..stage2.checkpoint import load_depth_model, weights_folder
from ..stage2.poses import load_pose_model
from ..stage2.training import train
from ..writing import write_text
from .fit_plan import GUESSED_FOV, Plan, make_plan, unknowable
from .fit_report import FitOutcome, verdict, write_report
from .options import FitOptions
from .whole_run import REPORT_FILE, prepare_folder


def run(options: FitOptions) -> None:
    """Runs everything; writes `weights`, `depth` (with points if the camera is known), `run` and `report.html`,
    and `intrinsics.json` if a focal length was learnt and is reliable.

    Raises:
        UserError: clips, weights or options that cannot be used, or training that collapsed.
        Interrupted: asked to stop.
    """
    try:
        _run(options)
    except Interrupted:
        raise Interrupted("the fit was stopped: the same command resumes it") from None


def _run(options: FitOptions) -> None:
    started = time.perf_counter()
    find_inputs(options.inputs)
    settings = _settings(options)
    resumed = prepare_folder(options, "fit", ("start", "run", "depth", "weights"))
    plan, group = make_plan(options), Processes(choose_device(options.device))
    with suitable_threads() as measured:
        print(describe(plan, plan.seconds(group), measured), flush=True)
        before = plan.before(group)
        train(plan.stage2, group)
    after = load_depth_model(weights_folder(plan.stage2.folder, "best")).to(group.device)
    after.save_pretrained(options.out / "weights", f"{len(plan.train)} frames of {', '.join(options.inputs)}")
    doubtful = _keep_camera(plan)
    _predict(plan, after, replace(settings, points=not doubtful), group)
    outcome = FitOutcome(plan, before, after, doubtful, time.perf_counter() - started, resumed)
    write_report(outcome)  # last: a fit with a report is finished
    print(f"depth: {options.out / 'depth'}; weights: {options.out / 'weights'}")
    print(verdict(outcome)[1])
    print(f"report: {options.out / REPORT_FILE}")


def _predict(plan: Plan, model: DepthModel, settings: PredictionSettings, group: Processes) -> None:
    """Writes the depth of the clips and, if the camera is known, their points."""
    options, poses = plan.options, None
    if settings.points and plan.stage2.learn_intrinsics:
        settings = replace(settings, camera=read_intrinsics(options.out / CAMERA_FILE))
    if settings.points and any(file.is_video for file in find_inputs(options.inputs)):
        poses = prepare(load_pose_model(weights_folder(plan.stage2.folder, "best")), group.device)
    with inference(group.device, "float32"):
        ready = prepare(model, group.device)
        predict_paths(ready, options.inputs, options.out / "depth", settings, poses=poses)


def _settings(options: FitOptions) -> PredictionSettings:
    """The settings of the clips' prediction, as far as they are known at the start."""
    return PredictionSettings(
        batch_size=options.batch_size,
        crop_bottom=options.crop_bottom,
        camera=None if options.intrinsics is None else read_intrinsics(options.intrinsics),
        fov=options.fov,
        video_codec=options.video_codec,
    )


def describe(plan: Plan, seconds: float, threads: str) -> str:
    """What a fit will do, how long it takes at most, and what it cannot determine."""
    options, stage2, left_out = plan.options, plan.stage2, plan.train.left_out
    thinned = f"; {left_out} others hardly move and are left out" if left_out else ""
    lines = [
        f"frames: {len(plan.train)} to train on, {len(plan.val)} held out, {stage2.width}x{stage2.height}{thinned}",
        f"start: {plan.start}; the pose net starts from random weights",
        f"camera: {_describe_camera(options)}",
        f"time: at most {math.ceil(seconds / 60)} min of training ({stage2.num_epochs} epochs of "
        f"{plan.steps_per_epoch} steps), less if the held-out loss does not improve for {stage2.early_stop} epochs; "
        f"{threads}",
        *(f"not known afterwards: {what}" for what in unknowable(options)),
    ]
    return "\n".join(lines)


def _describe_camera(options: FitOptions) -> str:
    if options.intrinsics is not None:
        return f"--intrinsics {options.intrinsics}"
    if options.fov is not None:
        return f"--fov {options.fov:g} degrees, square pixels, no lens distortion"
    return f"not given: the focal length is learnt, starting from a field of view of {GUESSED_FOV:g} degrees"


def _keep_camera(plan: Plan) -> str:
    """Writes a learnt camera to the fit's folder if it is reliable; returns why it is not, or nothing."""
    kept = plan.options.out / CAMERA_FILE
    kept.unlink(missing_ok=True)
    if not plan.stage2.learn_intrinsics:
        return ""
    reason = doubt([line for line in read_metrics(plan.stage2.folder) if line["kind"] == "val"])
    if not reason:
        write_text(kept, intrinsics_text(plan.learnt_camera().K, plan.size))
    return reason
