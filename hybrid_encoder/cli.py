"""The command `hybrid-encoder`. Problems that the user can mend end in one message and status 2; an interrupted run
in 3."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .engine.allocator import keep_freed_memory
from .errors import UserError
from .options import add_options, read_options

if TYPE_CHECKING:
    from .engine.processes import Processes

EXIT_USER_ERROR = 2
EXIT_KEYBOARD = 130
"""A shell's status of a program that Ctrl-C ended, outside of a training run."""

Arguments = argparse.Namespace
Command = Callable[[Arguments], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit status."""
    from .engine.loop import EXIT_INTERRUPTED, Interrupted

    parsed = build_parser().parse_args(arguments)
    command: Command = parsed.command
    keep_freed_memory()
    try:
        return command(parsed)
    except UserError as error:
        print(f"hybrid-encoder: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except OSError as error:
        if error.filename is None:  # no matter of the user's files
            raise
        # Of two, the second is the file itself: the first is what was to take its place.
        print(f"hybrid-encoder: {error.filename2 or error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_USER_ERROR
    except Interrupted as message:
        print(f"hybrid-encoder: {message}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print("hybrid-encoder: interrupted", file=sys.stderr)
        return EXIT_KEYBOARD


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    from .commands.bench import BenchOptions
    from .commands.demo import DemoOptions
    from .stage1.options import PretrainOptions
    from .stage2.options import Monodepth2Options
    from .two_frame.options import ManydepthOptions, TwoFrameEvaluateOptions

    parser = argparse.ArgumentParser(
        prog="hybrid-encoder", description="CLIP and DINO, fused for self-supervised depth."
    )
    parser.add_argument("--version", action="version", version=f"hybrid-encoder {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, help: str, options: type | None = None) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(command=command)
        if options is not None:
            add_options(added, options)
        return added

    add("demo", _demo, "the whole pipeline on rendered scenes, with a report, in minutes on a CPU", DemoOptions)

    synth = add("synth", _synth, "write rendered driving scenes in the layouts of KITTI raw and TuSimple")
    synth.add_argument("out", type=Path, help="folder to write, new or empty")
    synth.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    synth.add_argument("--sequences", type=int, default=12, help="drives (default: 12)")
    synth.add_argument("--frames", type=int, default=12, help="frames of a drive (default: 12)")
    synth.add_argument("--height", type=int, default=375, help="image height of the KITTI layout (default: 375)")
    synth.add_argument("--width", type=int, default=1242, help="image width of the KITTI layout (default: 1242)")

    add("pretrain", _pretrain, "stage 1: rank patches from close to distant against text", PretrainOptions)

    train = commands.add_parser("train", help="stage 2: self-supervised depth from video")
    hosts = train.add_subparsers(required=True, metavar="HOST")
    monodepth2 = hosts.add_parser("monodepth2", help="one frame at a time")
    monodepth2.set_defaults(command=_train_monodepth2)
    add_options(monodepth2, Monodepth2Options)
    manydepth = hosts.add_parser("manydepth", help="with the frame before: a cost volume, and a single-frame teacher")
    manydepth.set_defaults(command=_train_manydepth)
    add_options(manydepth, ManydepthOptions)

    add("evaluate", _evaluate, "the seven depth metrics of a weights folder on a data set", TwoFrameEvaluateOptions)

    predict = add("predict", _predict, "depth of images, folders and videos")
    predict.add_argument("inputs", nargs="+", help="images, folders, globs or videos")
    predict.add_argument("--weights", required=True, help="folder of weights, or a hub id")
    predict.add_argument("--out", type=Path, required=True, help="folder to write")
    predict.add_argument(
        "--intrinsics",
        help="fx,fy,cx,cy of the frames, or a JSON file, whose lens distortion is taken out; two-frame weights need it "
        "for videos",
    )
    predict.add_argument("--sequence", action="store_true", help="two-frame weights: the images follow each other")
    predict.add_argument(
        "--crop_bottom", type=float, default=0.0, help="share of the height cut off below, as in training (default: 0)"
    )
    predict.add_argument("--npy", action="store_true", help="of images, also depth as .npy")
    predict.add_argument(
        "--scale_factor", type=float, default=1.0, help="metres per unit of depth; 5.4 after stereo training"
    )
    predict.add_argument("--batch_size", type=int, default=4, help="images at a time (default: 4)")
    predict.add_argument(
        "--video_codec",
        choices=["browser", "mpeg4"],
        default="browser",
        help="browser: H.264 or VP9, which browsers play; mpeg4: written much faster (default: browser)",
    )
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    predict.add_argument(
        "--precision", choices=["float32", "bf16"], default="float32", help="bf16: mixed precision (default: float32)"
    )
    predict.add_argument("--compile", action="store_true", help="compile the nets with torch.compile")

    export = add("export-gt", _export_gt, "collect a split's ground truth depth in one .npz")
    export.add_argument("--data_path", type=Path, required=True, help="KITTI raw")
    export.add_argument("--split", required=True, help="name or folder of the split")
    export.add_argument("--part", default="test", choices=["test", "val", "train"], help="which file (default: test)")
    export.add_argument("--truth", default="velodyne", choices=["velodyne", "improved"], help="(default: velodyne)")
    export.add_argument("--out", type=Path, required=True, help="the .npz to write")

    info = add("info", _info, "which pretrained files a preset needs, where they are looked for, their licences")
    info.add_argument("preset", help="paper, released, small, dinov3 or tiny")
    info.add_argument("--weights_dir", type=Path, help="folder of weights (default: $HYBRID_ENCODER_WEIGHTS)")

    convert = add("convert", _convert, "write a trainer's or the authors' weights in another layout")
    convert.add_argument("source", help="folder of a trainer or of the authors, or the authors' stage-1 .ckpt")
    convert.add_argument("--out", type=Path, required=True, help="folder to write")
    convert.add_argument("--layout", default="hub", choices=["hub", "monodepth2"], help="(default: hub)")
    convert.add_argument("--teacher", action="store_true", help="ManyDepth folders: take the single-frame teacher")
    convert.add_argument("--ignore", action="append", default=[], help="pattern of tensors that may be left over")
    convert.add_argument("--training_data", help="what the weights were trained on, for the model card")

    patch = add("patch", _patch, "make a clone of the original trainers run today, with --encoder hybrid")
    patch.add_argument("host", choices=["monodepth2", "manydepth"], help="which original the clone is of")
    patch.add_argument("path", type=Path, help="the clone's folder")
    patch.add_argument("--check", action="store_true", help="say what would happen, write nothing")
    patch.add_argument("--revert", action="store_true", help="take the patch back out")

    bench = commands.add_parser("bench", help="how fast the parts are: encoder and stage1 also the straightforward way")
    bench.add_argument("part", choices=["encoder", "train", "stage1", "loader", "cost-volume"])
    bench.set_defaults(command=_bench)
    add_options(bench, BenchOptions)
    return parser


def _patch(arguments: Arguments) -> int:
    from .patches.apply import patch_clone

    print(patch_clone(arguments.host, arguments.path, arguments.check, arguments.revert))
    return 0


def _bench(arguments: Arguments) -> int:
    from .commands.bench import BenchOptions, run_bench

    run_bench(arguments.part, read_options(BenchOptions, arguments))
    return 0


def _info(arguments: Arguments) -> int:
    from .commands.info import format_inventory, inventory

    print(format_inventory(inventory(arguments.preset, arguments.weights_dir)))
    return 0


def _convert(arguments: Arguments) -> int:
    from .commands.convert import convert

    given = arguments
    for path in convert(given.source, given.out, given.layout, given.teacher, given.ignore, given.training_data):
        print(path)
    return 0


def _demo(arguments: Arguments) -> int:
    from .commands.demo import DemoOptions, run_demo

    run_demo(read_options(DemoOptions, arguments))
    return 0


def _synth(arguments: Arguments) -> int:
    from .synthetic.files import write_synthetic

    write_synthetic(
        arguments.out, arguments.seed, arguments.sequences, arguments.frames, arguments.height, arguments.width
    )
    print(f"KITTI layout: {arguments.out / 'kitti'} (split: synthetic); TuSimple layout: {arguments.out / 'tusimple'}")
    return 0


def _pretrain(arguments: Arguments) -> int:
    from .engine.processes import processes
    from .stage1.checkpoint import STAGE1_FILE
    from .stage1.options import PretrainOptions
    from .stage1.training import pretrain

    options = read_options(PretrainOptions, arguments)
    with processes(options.device) as group:
        pretrain(options, group)
        if group.is_main:
            print(f"next: hybrid-encoder train monodepth2 --stage1 {options.out / STAGE1_FILE} ...")
    return 0


def _train_monodepth2(arguments: Arguments) -> int:
    from .stage2.options import Monodepth2Options
    from .stage2.training import train

    return _train(read_options(Monodepth2Options, arguments), train)


def _train_manydepth(arguments: Arguments) -> int:
    from .two_frame.options import ManydepthOptions
    from .two_frame.training import train

    return _train(read_options(ManydepthOptions, arguments), train)


def _train(options: Any, train: Callable[[Any, Processes], object]) -> int:
    from .engine.processes import processes

    options.check()
    with processes("cpu" if options.no_cuda else options.device) as group:
        train(options, group)
        if group.is_main and options.num_epochs:
            command = "predict INPUT" if options.dataset == "video" else "evaluate"
            print(f"next: hybrid-encoder {command} --weights {options.folder} ...")
    return 0


def _evaluate(arguments: Arguments) -> int:
    from .commands.convert import open_depth_model
    from .engine.inference import inference, prepare
    from .engine.processes import choose_device
    from .evaluation import format_table, save_csv
    from .stage2.evaluate import evaluate, prior_errors
    from .two_frame.checkpoint import is_two_frame, load_two_frame_model
    from .two_frame.evaluate import evaluate_two_frame
    from .two_frame.options import TwoFrameEvaluateOptions

    options = read_options(TwoFrameEvaluateOptions, arguments)
    two_frame = is_two_frame(options.weights)
    options.check(two_frame)
    device = choose_device(options.device)
    prior = prior_errors(options) if options.prior else None
    if two_frame and not options.eval_teacher:
        memory = None if options.matching_memory is None else options.matching_memory << 20
        matching = prepare(load_two_frame_model(options.weights, memory), device, options.compile)
        with inference(device, options.precision):
            result = evaluate_two_frame(options, matching)
    else:
        model = prepare(open_depth_model(options.weights, teacher=two_frame), device, options.compile)
        with inference(device, options.precision):
            same_frames = two_frame or options.dataset == "cityscapes"
            result = evaluate_two_frame(options, model) if same_frames else evaluate(options, model)
    print(format_table(result))
    if prior is not None:
        print(f"mean depth of the training scenes, which looks at no image:\n{format_table(prior)}")
    if options.csv is not None:
        save_csv(result, options.csv)
    return 0


def _predict(arguments: Arguments) -> int:
    from .commands.convert import open_depth_model
    from .data.calibration import read_intrinsics
    from .engine.inference import inference, prepare
    from .engine.processes import choose_device
    from .prediction.paths import predict_paths
    from .prediction.settings import PredictionSettings
    from .two_frame.checkpoint import is_two_frame, load_two_frame_model
    from .two_frame.predict import predict_two_frame

    given = arguments
    device = choose_device(given.device)
    settings = PredictionSettings(
        save_npy=given.npy,
        scale_factor=given.scale_factor,
        batch_size=given.batch_size,
        crop_bottom=given.crop_bottom,
        camera=None if given.intrinsics is None else read_intrinsics(given.intrinsics),
        video_codec=given.video_codec,
    )
    if is_two_frame(given.weights):
        matching = prepare(load_two_frame_model(given.weights), device, given.compile)
        with inference(device, given.precision):
            written = predict_two_frame(matching, given.inputs, given.out, settings, given.sequence)
    elif given.sequence:
        raise UserError(f"--sequence is for two-frame weights: those of {given.weights} look at one frame at a time")
    else:
        model = prepare(open_depth_model(given.weights), device, given.compile)
        with inference(device, given.precision):
            written = predict_paths(model, given.inputs, given.out, settings)
    print(f"{len(written)} files in {given.out}")
    return 0


def _export_gt(arguments: Arguments) -> int:
    from .data.ground_truth import export_ground_truth
    from .data.splits import SPLIT_FILES, find_split, read_split

    folder = find_split(arguments.split, arguments.data_path)
    entries = read_split(folder / SPLIT_FILES[arguments.part])
    export_ground_truth(arguments.data_path, entries, arguments.out, arguments.truth)
    print(f"{len(entries)} depth maps in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
