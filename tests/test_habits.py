"""Habits of a package among others: no waiting without network, nothing left in the user's process, files as options,
rehearsals, completion."""

from __future__ import annotations

import io
import json
import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from hybrid_encoder import DepthModel, UserError, create_encoder
from hybrid_encoder.cli import build_parser, main
from hybrid_encoder.commands.completion import script
from hybrid_encoder.commands.config_file import read_config, with_config
from hybrid_encoder.commands.recipes import with_recipe
from hybrid_encoder.data.cache_space import decoded_files, delete_unused, held_open, make_room
from hybrid_encoder.engine import bars
from hybrid_encoder.engine.bars import TimeLeft, progress_bar
from hybrid_encoder.engine.loop import LoopOptions
from hybrid_encoder.engine.options import TrainingOptions
from hybrid_encoder.engine.same_run import options_text
from hybrid_encoder.model import backbones
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.two_frame.options import ManydepthOptions
from hybrid_encoder.weights import network
from hybrid_encoder.weights.published import TowerSource

from .toy_run import run

SOURCE = TowerSource("dino_weights", "some_vit", "pretrained", (), "", ("timm/some", "model.safetensors"), "MIT")


@pytest.fixture
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network")

    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HYBRID_ENCODER_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.usefixtures("without_network")
def test_without_network_the_answer_comes_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(backbones, "_download", None)  # it would wait for half a minute
    handlers = list(logging.root.handlers)
    with pytest.raises(
        UserError, match=r"'openai' of RN50-quickgelu could not be loaded \(https://\S+ does not answer"
    ):
        create_encoder("paper")
    with pytest.raises(UserError, match=r"hub could not be reached \(https://\S+ does not answer\)"):
        DepthModel.from_pretrained("some/model")
    assert logging.root.handlers == handlers
    assert not caplog.records


@pytest.mark.usefixtures("without_network")
def test_without_network_the_cache_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = {("timm/some", "pytorch_model.bin"): str(tmp_path / "held.bin")}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *asked: held.get(asked))
    assert backbones._find(SOURCE, None) == tmp_path / "held.bin"


def test_a_proxy_answers_for_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "getproxies", lambda: {"https": "http://proxy:3128"})
    assert network.hub_is_reachable()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert not network.hub_is_reachable()


def test_warnings_that_are_kept_quiet_leave_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    with backbones.quiet():
        logging.warning("No pretrained weights loaded")
    assert logging.root.handlers == []


# Options from a file


@pytest.mark.parametrize(
    "options",
    [
        PretrainOptions(data=("synthetic:1", "tusimple:x"), lr=1e-5, mix_ratio=0.25, bidirectional=True, preset="tiny"),
        Monodepth2Options(frame_ids=(0, -2, 2), scales=(0, 1), clip_grad=None, use_stereo=True, num_layers=50),
        with_recipe(Monodepth2Options, {"recipe": "released", "encoder_option": ("num_tokens=16",)}),
        with_recipe(ManydepthOptions, {"recipe": "released", "teacher_encoder_option": ("num_tokens=16",)}),
    ],
)
def test_the_options_that_a_run_leaves_start_an_equal_run(options: TrainingOptions, tmp_path: Path) -> None:
    (tmp_path / "opt.json").write_text(options_text(options))
    kind = type(options)
    assert with_recipe(kind, with_config({}, read_config(tmp_path / "opt.json", kind), kind)) == options


def test_the_command_line_counts_beside_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps({"batch_size": 4, "num_epochs": 7, "encoder_option": ["size=pad"]}))
    file = read_config(tmp_path / "own.json", Monodepth2Options)
    given = {"num_epochs": 1, "encoder_option": ("num_tokens=16",)}
    found = with_recipe(Monodepth2Options, with_config(given, file, Monodepth2Options))
    assert found == Monodepth2Options(batch_size=4, num_epochs=1, encoder_option=("size=pad", "num_tokens=16"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"batch": 4}', "no option 'batch': known are .*batch_size"),
        ('{"batch_size": "four"}', "argument --batch_size: invalid int value: 'four'"),
        ('{"encoder": "vgg"}', "invalid choice: 'vgg'"),
        ("[4]", "expected an object of options"),
        ("{", "is not JSON"),
        (None, "cannot be read: No such file"),
    ],
)
def test_files_of_options_that_cannot_be_meant(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    if text is not None:
        (tmp_path / "opt.json").write_text(text)
    assert main(["train", "monodepth2", "--config", str(tmp_path / "opt.json")]) == 2
    with pytest.raises(UserError, match=message):
        read_config(tmp_path / "opt.json", Monodepth2Options)
    assert "opt.json" in capsys.readouterr().err


def test_a_required_option_may_stand_in_the_file(capsys: pytest.CaptureFixture) -> None:
    assert main(["pretrain"]) == 2
    assert "--data is required: tusimple:FOLDER" in capsys.readouterr().err
    assert with_config({}, {"data": ("synthetic:",)}, PretrainOptions) == {"data": ("synthetic:",)}


# Bars, times and rehearsals


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_are_lines_in_log_files(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    for _ in progress_bar(range(5000), "images"):
        pass
    assert log.getvalue() == ""  # over within a second
    monkeypatch.setattr(bars, "LOG_SECONDS", 0.0)
    bar = progress_bar(what="epoch 1/2", total=4, done=1)
    bar.delay = 0
    bar.update()
    bar.close()
    lines = log.getvalue().splitlines()
    assert 1 <= len(lines) <= 3
    assert all(line.startswith("epoch 1/2:") and "/4 [" in line for line in lines)
    assert "\r" not in log.getvalue()


def test_bars_move_on_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    for _ in progress_bar(range(3), "images", shown=True):
        pass
    assert "\rimages: 100%" in sys.stderr.getvalue()  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "stderr", Terminal())
    list(progress_bar(range(3), "images", shown=False))
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_the_time_left_is_that_of_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(bars.time, "perf_counter", lambda: now[0])
    left = TimeLeft(1000, 400)  # resumed at step 400
    now[0] += 50
    assert left.at(500) == "4 min 10 s"  # 500 steps of half a second
    assert left.at(1000) == "0 s"


def test_a_dry_run_tells_what_the_run_would_take_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    task = run(tmp_path / "run", dry_run=True)  # three epochs of 11 steps
    first, second = capsys.readouterr().out.splitlines()
    assert first == "training: 22 samples on cpu, 0.00 M parameters, of which 0.00 M train, 3 epochs of 11 steps"
    assert second.startswith("dry run: 33 steps of ")
    assert second.endswith("GiB; nothing is written")
    assert task.model.calls == 10
    assert not (tmp_path / "run").exists()
    assert LoopOptions.of(PretrainOptions(dry_run=True), folder=tmp_path, epochs=1).dry_run


# The cache of decoded videos


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three decoded videos of 1 MB, the first one used longest ago."""
    monkeypatch.setenv("HYBRID_ENCODER_CACHE", str(tmp_path))
    paths = [tmp_path / f"{name}.rgb" for name in "abc"]
    for second, path in enumerate(paths):
        path.write_bytes(bytes(1_000_000))
        os.utime(path, (second, second))
    (tmp_path / ".d.123.partial.rgb").write_bytes(bytes(10))
    return paths


def test_the_cache_is_bounded(videos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRID_ENCODER_CACHE_GB", "0.003")
    make_room(videos[0].parent, 0)
    assert [path.exists() for path in videos] == [True, True, True]
    with held_open(videos[0]):  # type: ignore[union-attr]  # now the one that was used last, too
        assert [file.path for file in decoded_files(videos[0].parent)] == [*videos[1:], videos[0]]
        make_room(videos[0].parent, 1_000_000)
        assert [path.exists() for path in videos] == [True, False, True]
        assert not delete_unused(videos[0])
        make_room(videos[0].parent, 5_000_000)
        assert [path.exists() for path in videos] == [True, False, False]
    assert delete_unused(videos[0])
    assert held_open(videos[0]) is None
    monkeypatch.setenv("HYBRID_ENCODER_CACHE_GB", "much")
    with pytest.raises(UserError, match="HYBRID_ENCODER_CACHE_GB=much: expected a number"):
        make_room(videos[0].parent, 0)


def test_a_command_lists_and_empties_the_cache(videos: list[Path], capsys: pytest.CaptureFixture) -> None:
    assert main(["cache"]) == 0
    assert "a.rgb" in (printed := capsys.readouterr().out)
    assert "of at most 50" in printed
    with held_open(videos[1]):  # type: ignore[union-attr]
        assert main(["cache", "--empty"]) == 0
    assert "b.rgb  in use, kept" in capsys.readouterr().out
    assert [path.exists() for path in videos] == [False, True, False]


# Completion

WORDS = [
    ("pre", "pretrain predict"),
    ("train ", "monodepth2 manydepth bev -h --help"),
    ("evaluate b", "bev"),
    ("evaluate bev --ver", "--version"),
    ("train manydepth --batch", "--batch_size"),
    ("train manydepth --encoder ", "resnet hybrid"),
    ("train manydepth --batch_size 4 --encoder res", "resnet"),
    ("export x --format ", "onnx torch"),
    ("predict --out ", ""),  # files
]


def test_bash_completes_commands_options_and_choices() -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash on this machine")
    trial = ""
    for words, _ in WORDS:
        line = ["hybrid-encoder", *words.split(" ")]
        trial += f"COMP_WORDS=({shlex.join(line)}); COMP_CWORD={len(line) - 1}; _hybrid_encoder; "
        trial += 'echo "${COMPREPLY[*]}"\n'
    done = subprocess.run(
        ["bash", "-c", script(build_parser(), "bash") + trial], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [expected for _, expected in WORDS]


def test_zsh_gets_the_same_script_after_its_own_beginning(capsys: pytest.CaptureFixture) -> None:
    assert main(["completion", "zsh"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("autoload -Uz compinit bashcompinit")
    assert printed.rstrip().endswith(script(build_parser(), "bash").rstrip())
