"""Options: every number has a range, help needs no PyTorch, and what no one can mean ends in one sentence."""

import dataclasses
import importlib
import math
import pydoc
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import hybrid_encoder
from hybrid_encoder import UserError
from hybrid_encoder.cli import build_parser, main
from hybrid_encoder.commands.options import BenchOptions, DemoOptions, PredictOptions, SynthOptions
from hybrid_encoder.config import PRESETS, HybridEncoderConfig, PresetName
from hybrid_encoder.model.config_changes import ConfigChanges
from hybrid_encoder.options import Options, option, option_fields, read_options
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage2.options import EvaluateOptions, Monodepth2Options
from hybrid_encoder.two_frame.options import ManydepthOptions

COMMANDS = {
    "demo": [], "synth": ["x"], "pretrain": ["--data", "x"], "train monodepth2": [], "train manydepth": [],
    "evaluate": ["--weights", "x"], "predict": ["x", "--weights", "x", "--out", "x"],
    "export-gt": ["--data_path", "x", "--split", "x", "--out", "x"], "info": ["paper"],
    "export": ["x", "--out", "x"], "convert": ["x", "--out", "x"], "patch": ["monodepth2", "x"], "bench": ["encoder"],
    "cache": [], "completion": ["bash"], "app": [],
}  # fmt: skip
"""All commands with what each has to be given."""


def all_options(kind: type[Options] = Options) -> Iterator[type[Options]]:
    """Every options dataclass of the package."""
    for found in kind.__subclasses__():
        if found.__module__.startswith("hybrid_encoder."):
            yield found
            yield from all_options(found)


def numeric_fields() -> Iterator[tuple[type[Options], str]]:
    """Every field that takes numbers, but those that list their choices."""
    for options in set(all_options()):
        for name, hint in get_type_hints(options).items():
            kinds = {part for choice in (get_args(hint) or (hint,)) for part in (get_args(choice) or (choice,))}
            if get_origin(hint) is not Literal and kinds & {int, float}:
                yield options, name


NUMERIC = sorted(numeric_fields(), key=lambda found: (found[0].__name__, found[1]))


def test_the_walk_finds_the_numbers() -> None:
    found = {(options.__name__, name) for options, name in NUMERIC}
    wanted = {("ManydepthOptions", "clip_grad"), ("PretrainOptions", "lr"), ("DepthOptions", "scales")}
    assert wanted | {("DepthOptions", "encoder_lr"), ("PredictOptions", "batch_size")} <= found
    assert not {name for _, name in found} & {"png", "num_layers", "data", "out"}


@pytest.mark.parametrize(("options", "name"), NUMERIC)
def test_every_number_has_a_range_and_is_finite(options: type[Options], name: str) -> None:
    spec = option_fields(options)[name]
    assert spec.at_least is not None or spec.above is not None
    default: Any = next(field.default for field in dataclasses.fields(options) if field.name == name)
    several = isinstance(default, tuple) or name == "scales"
    low = spec.at_least - 1 if spec.at_least is not None else spec.above
    for bad in (math.nan, math.inf, -math.inf, low, 10**400):
        if bad == 10**400 and isinstance(default, float):
            continue
        with pytest.raises(UserError, match=f"--{name} "):
            options(**{name: (0, bad) if several else bad})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text_weight", "-5"], "--text_weight -5.0: expected at least 0"),
        (["--clip_grad", "nan"], "--clip_grad nan: expected a finite number"),
        (["--clip_grad", "0"], "--clip_grad 0.0: expected above 0"),
        (["--disparity_smoothness", "nan"], "--disparity_smoothness nan: expected a finite number"),
        (["--save_minutes", "nan"], "--save_minutes nan: expected a finite number"),
        (["--learning_rate", "inf"], "--learning_rate inf: expected a finite number"),
        (["--seed", "18446744073709551615"], "--seed 18446744073709551615: expected at most 9223372036854775807"),
        (["--batch_size", "0"], "--batch_size 0: expected at least 1"),
        (["--crop_bottom", "0.95"], "--crop_bottom 0.95: expected at most 0.9"),
        (["--scales", "0", "4"], "--scales 0 4: expected at most 3"),
        (["--scales", "0", "0"], "each once"),
        (["--frame_ids", "0", "1", "1"], "each only once"),
        (["--num_workers", "99999999"], "--num_workers 99999999: expected at most 1024"),
        (["--log_dir", "~no_such_user/runs"], "--log_dir ~no_such_user/runs: ~no_such_user is no home folder"),
    ],
)
def test_numbers_that_no_one_can_mean(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "monodepth2", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synth", "{}/new", "--height", "100000000"], "--height 100000000: expected at most 4096"),
        (["synth", "{}/new", "--sequences", "2"], "--sequences 2: expected at least 3"),
        (["predict", "x", "--weights", "x", "--out", "{}/new", "--batch_size", "0"], "--batch_size 0"),
        (["predict", "x", "--weights", "x", "--out", "{}/new", "--scale_factor", "nan"], "--scale_factor nan"),
        (["bench", "encoder", "--batch_size", "0"], "--batch_size 0"),
        (["pretrain", "--data", "x", "--margin", "nan"], "--margin nan"),
        (["evaluate", "--weights", "x", "--max_eval_depth", "nan"], "expected 0 < min < max"),
    ],
)
def test_numbers_of_the_other_commands(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([text.format(tmp_path) for text in arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["demo", "--out"], "--out"),
        (["synth"], "out"),
        (["pretrain", "--data", "x", "--out"], "--out"),
        (["predict", "x", "--weights", "x", "--out"], "--out"),
        (["convert", "x", "--out"], "--out"),
        (["train", "monodepth2", "--log_dir"], "--log_dir"),
    ],
)
def test_a_file_in_the_place_of_a_folder(
    arguments: list[str], option: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert main([*arguments, str(file)]) == 2
    assert f"{option} {file} is a file: name a folder" in capsys.readouterr().err
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ["export-gt", "--data_path", "x", "--split", "x", "--out"],
        ["evaluate", "--weights", "x", "--csv"],
        ["bench", "encoder", "--json"],
    ],
)
def test_a_folder_in_the_place_of_a_file(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*arguments, str(tmp_path)]) == 2
    assert f"{tmp_path} is a folder: name a file" in capsys.readouterr().err


def test_home_folders_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert Monodepth2Options(log_dir=Path("~/runs"), model_name="a").folder == Path("/somewhere/runs/a")
    assert EvaluateOptions(data_path=Path("~")).data_path == Path("/somewhere")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_options_and_a_module(command: str) -> None:
    words = command.split()
    parsed = build_parser().parse_args([*words, *COMMANDS[command]])
    module, options = parsed.command
    assert module == words[0].replace("-", "_")
    if module != "completion":  # which cli answers, since it knows the command line
        assert callable(importlib.import_module(f"hybrid_encoder.commands.{module}").run)
    read = read_options(options, parsed)
    assert read == options(**{name: getattr(read, name) for name in option_fields(options)})


def test_options_are_read_as_their_fields_say() -> None:
    def read(*arguments: str) -> Options:
        parsed = build_parser().parse_args(arguments)
        return read_options(parsed.command[1], parsed)

    weights = ["--weights", "w", "--out", "o"]
    assert read("predict", "a", "b", *weights) == PredictOptions(inputs=("a", "b"), weights="w", out=Path("o"))
    assert read("synth", "o", "--frames", "3") == SynthOptions(out=Path("o"), frames=3)
    assert read("bench", "train", "--num_layers", "50") == BenchOptions(part="train", num_layers=50)
    assert read("pretrain", "--data", "a", "--data", "b") == PretrainOptions(data=("a", "b"))
    assert read("train", "manydepth", "--scales", "0", "2") == ManydepthOptions(scales=(0, 2))
    assert read("demo") == DemoOptions()


def test_help_imports_no_torch() -> None:
    script = f"""
import sys, hybrid_encoder
from hybrid_encoder.cli import main
for command in ["", "train", *{list(COMMANDS)}]:
    try:
        main([*command.split(), "--help"])
    except SystemExit as ended:
        assert not ended.code
print(sorted({{"torch", "numpy", "cv2", "timm", "open_clip"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.count("usage: ") == 2 + len(COMMANDS)


def test_the_package_imports_names_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(hybrid_encoder, "DepthModel", raising=False)  # as before the first use
    for name in hybrid_encoder._MODULES:
        assert name in dir(hybrid_encoder)
        assert getattr(hybrid_encoder, name).__module__.startswith("hybrid_encoder.")
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        hybrid_encoder.no_such_name  # noqa: B018
    with pytest.raises(ImportError):
        from hybrid_encoder import no_such_name  # noqa: F401


def test_help_begins_with_an_example_and_tells_of_every_public_name() -> None:
    text = pydoc.render_doc(hybrid_encoder, renderer=pydoc.plaintext)
    assert text.index("create_encoder(") < text.index("CONTENTS")
    assert len(text.splitlines()) < 100
    public = [name for name in dir(hybrid_encoder) if not name.startswith("_")]
    rooms = [name for name in public if isinstance(getattr(hybrid_encoder, name), types.ModuleType)]
    assert len(public) > len(rooms) + 10
    for name in set(public) - set(rooms):
        assert name in (hybrid_encoder.__doc__ or ""), name


def test_editors_know_the_fields_of_a_config() -> None:
    """The keywords of `create_encoder` and its preset names are those of the config, in its order."""
    assert list(get_type_hints(ConfigChanges).items()) == list(get_type_hints(HybridEncoderConfig).items())
    assert set(get_args(PresetName)) == set(PRESETS)


def test_a_default_out_of_range_is_found_too() -> None:
    @dataclasses.dataclass(frozen=True)
    class Wrong(Options):
        count: int = option(0, "count", at_least=1)

    with pytest.raises(UserError, match="--count 0: expected at least 1"):
        Wrong()
