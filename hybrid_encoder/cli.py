"""The command `hybrid-encoder`. Problems that the user can mend end in one message and status 2; an interrupted run
in 3.

`build_parser` reads options alone: a command's module, and PyTorch with it, is imported when the command runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from . import __version__
from .bev.options import BevEvaluateOptions, BevOptions, BevPredictOptions
from .commands.completion import script
from .commands.config_file import CONFIG_HELP, read_config, with_config
from .commands.options import (
    AppOptions,
    BenchOptions,
    CacheOptions,
    CompletionOptions,
    ConvertOptions,
    DemoOptions,
    ExportModelOptions,
    ExportOptions,
    FitOptions,
    InfoOptions,
    PatchOptions,
    PredictOptions,
    SynthOptions,
)
from .commands.recipes import with_recipe
from .engine.allocator import keep_freed_memory
from .engine.options import TrainingOptions
from .engine.output import steady_output
from .engine.signals import EXIT_INTERRUPTED, Interrupted, end_in_order
from .engine.threads import wait_asleep
from .errors import UserError
from .options import Options, add_options, check_outputs, given_options
from .stage1.options import PretrainOptions
from .stage2.options import Monodepth2Options
from .two_frame.options import ManydepthOptions, TwoFrameEvaluateOptions

EXIT_USER_ERROR = 2
TWO_WORDS = ("evaluate bev", "predict bev")
"""Names of commands."""
EXIT_KEYBOARD = 130
"""A shell's status of a program that Ctrl-C ended, outside of a training run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit status."""
    with steady_output(), end_in_order():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    parsed = build_parser().parse_args(with_joined_names(sys.argv[1:] if arguments is None else arguments))
    keep_freed_memory()
    try:
        run_command(parsed)
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
    return 0


def with_joined_names(arguments: Sequence[str]) -> list[str]:
    """The command line with a command's name of two words as one, since a command without a second word may be
    followed by files.

    >>> with_joined_names(["predict", "bev", "--out", "maps"]), with_joined_names(["predict", "a.jpg"])
    (['predict bev', '--out', 'maps'], ['predict', 'a.jpg'])
    """
    first = " ".join(arguments[:2])
    return [first, *arguments[2:]] if first in TWO_WORDS else list(arguments)


def run_command(parsed: argparse.Namespace) -> None:
    """Reads a command's options and calls `run` of its module.

    Raises:
        UserError: a number out of range, an output in whose place something else stands, or what the command finds.
    """
    module, options_type = parsed.command
    given = given_options(options_type, parsed)
    if issubclass(options_type, TrainingOptions):
        given = with_config(given, read_config(parsed.config, options_type) if parsed.config else {}, options_type)
    options = with_recipe(options_type, given)
    check_outputs(options)
    if isinstance(options, CompletionOptions):  # the one command about the command line itself
        print(script(build_parser(), options.shell))
        return
    wait_asleep()
    import_module(f".commands.{module}", __package__).run(options)


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    description = "CLIP and DINO, fused for self-supervised depth."
    parser = argparse.ArgumentParser(prog="hybrid-encoder", description=description)
    parser.add_argument("--version", action="version", version=f"hybrid-encoder {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, options: type[Options], help: str) -> None:
        command = commands.add_parser(name, help=help, description=help)
        _fill(command, name.replace("-", "_").replace(" ", "_"), options)

    add("demo", DemoOptions, "the whole pipeline on rendered scenes, with a report, in minutes on a CPU")
    add("fit", FitOptions, "learn depth from your own drive: from a video to weights, a depth video and a report")
    add("synth", SynthOptions, "write rendered driving scenes in the layouts of KITTI raw and TuSimple, or of nuScenes")
    add("pretrain", PretrainOptions, "stage 1: rank patches from close to distant against text")
    train = commands.add_parser("train", help="stage 2: self-supervised depth from video; or a bird's-eye-view model")
    hosts = train.add_subparsers(required=True, metavar="HOST")
    _fill(hosts.add_parser("monodepth2", help="one frame at a time"), "train", Monodepth2Options)
    two_frame = "with the frame before: a cost volume, and a single-frame teacher"
    _fill(hosts.add_parser("manydepth", help=two_frame), "train", ManydepthOptions)
    lift_splat = "a lift-splat model: maps of vehicles and road around a rig of cameras"
    _fill(hosts.add_parser("bev", help=lift_splat), "train_bev", BevOptions)
    add("evaluate", TwoFrameEvaluateOptions, "the seven depth metrics of a weights folder on a data set")
    add("evaluate bev", BevEvaluateOptions, "IoU of a bird's-eye-view model's maps by class and range")
    add("predict", PredictOptions, "depth of images, folders and videos")
    add("predict bev", BevPredictOptions, "pictures of rigs: their images beside the map that a model draws")
    add("app", AppOptions, "a page in the browser, on this machine alone: drop an image or a video, see its depth")
    add("export", ExportModelOptions, "write a depth model as an ONNX file, or as a program of torch.export")
    add("export-gt", ExportOptions, "collect a split's ground truth depth in one .npz")
    add("info", InfoOptions, "the presets; which pretrained files one needs, where they are looked for, their licences")
    add("convert", ConvertOptions, "write a trainer's or the authors' weights in another layout")
    add("patch", PatchOptions, "make a clone of the original trainers run today, with --encoder hybrid")
    add("bench", BenchOptions, "how fast the parts are on this machine, and the memory that they take")
    add("cache", CacheOptions, "the decoded videos that training keeps: where, how large; --empty deletes them")
    add("completion", CompletionOptions, "a script with which bash or zsh completes commands and options")
    return parser


def _fill(parser: argparse.ArgumentParser, module: str, options: type[Options]) -> None:
    """Gives a command its options and the name of its module."""
    parser.set_defaults(command=(module, options))
    trains = issubclass(options, TrainingOptions)
    if trains:
        parser.add_argument("--config", type=Path, metavar="FILE", help=CONFIG_HELP)
    add_options(parser, options, required=not trains)


if __name__ == "__main__":
    sys.exit(main())
