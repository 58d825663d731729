"""Weights by name: those in the package, and the authors', fetched from a stand-in of the hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest
import torch

from hybrid_encoder import DepthModel, UserError, create_encoder
from hybrid_encoder.cli import main
from hybrid_encoder.commands import named_weights, predict
from hybrid_encoder.commands.named_weights import refuse_released
from hybrid_encoder.config import PRESETS, preset
from hybrid_encoder.model.disparity import is_flat
from hybrid_encoder.options import EncoderOptions
from hybrid_encoder.released.fetch import REPOSITORY, STAGE1, Hub, fetch_released
from hybrid_encoder.stage1.checkpoint import open_stage1
from hybrid_encoder.weights.in_package import DEFAULT, shipped_folder, shipped_names
from hybrid_encoder.weights.run_files import STAGE1_FILE

from .released_files import TINY_RELEASED, write_folder
from .videos import write_video

ROOT = Path(__file__).resolve().parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (120, 200, 3), dtype=np.uint8))
    return path


def folder_of(name: str) -> Path:
    folder = shipped_folder(name)
    assert folder is not None
    return folder


# --- in the package


def test_predict_without_weights_says_what_they_are(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(photo), "--device", "cpu", "--npy"]) == 0
    err = capsys.readouterr().err
    said = [line for line in err.splitlines() if line.startswith("tiny-rendered: ")]
    assert len(said) == 1
    for part in ("for trying out", "rendered", "no metric scale", "--weights"):
        assert part in said[0]
    assert cv2.imread(str(tmp_path / "depth" / "photo_disp.png")).shape == (120, 200, 3)
    assert not is_flat(1 / np.load(tmp_path / "depth" / "photo.npy"))


def test_predict_without_weights_takes_little_time_and_imports_little(photo: Path, tmp_path: Path) -> None:
    """At most 5 s of CPU, counted in the process itself; the libraries of the large towers alone took 3 of them."""
    script = (
        "import sys; from hybrid_encoder.cli import main\n"
        f"assert main(['predict', {str(photo)!r}, '--out', {str(tmp_path / 'out')!r}, '--device', 'cpu']) == 0\n"
        "print(sorted({'timm', 'open_clip', 'torchvision', 'torch._dynamo', 'huggingface_hub'} & set(sys.modules)))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "[]"
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"predict took {seconds:.1f} s of CPU")


@pytest.mark.parametrize(
    ("options", "able", "taken"),
    [([], True, "bf16"), ([], False, "float32"), (["--precision", "float32"], True, "float32")],
)
def test_a_video_is_predicted_in_bf16_where_the_cpu_is_faster_in_it(
    options: list[str],
    able: bool,
    taken: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": able}, raising=False)
    monkeypatch.setattr(predict, "faster_precision", lambda see: see() and "bf16")
    seen, compute = [], DepthModel.disparity

    def disparity(model: DepthModel, image: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return compute(model, image)

    monkeypatch.setattr(DepthModel, "disparity", disparity)
    video = write_video(tmp_path / "drive.mp4", frames=2)
    assert main(["predict", str(video), "--device", "cpu", "--out", str(tmp_path / "depth"), *options]) == 0
    assert seen[-1] == (taken == "bf16")
    assert ("computing in bf16" in capsys.readouterr().err) == (taken == "bf16")


def test_from_pretrained_by_name(photo: Path, capsys: pytest.CaptureFixture) -> None:
    model = DepthModel.from_pretrained(DEFAULT)
    assert "tiny-rendered: " in capsys.readouterr().err
    assert next(model.parameters()).dtype == torch.float32
    assert model.predict(photo).shape == (120, 200)
    encoder = create_encoder(DEFAULT)
    assert torch.equal(encoder.language.tokens, model.encoder.language.tokens)


def test_a_folder_of_the_same_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT).mkdir()
    with pytest.raises(UserError, match=r"holds no config\.json"):
        DepthModel.from_pretrained(DEFAULT)


def test_an_unknown_name_lists_what_ships() -> None:
    with pytest.raises(UserError, match="tiny-rendered"):
        DepthModel.from_pretrained("tiny-renderd")


def test_shipped_files_are_small_whole_and_in_the_wheel() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    patterns = json.loads(re.search(r"^hybrid_encoder = (\[.*\])$", text, re.MULTILINE)[1])  # type: ignore[index]
    packed = {path for pattern in patterns for path in (ROOT / "hybrid_encoder").glob(pattern)}
    for name in shipped_names():
        files = {path.name: path for path in folder_of(name).iterdir()}
        assert {"config.json", "model.safetensors", "README.md"} <= set(files) <= packed_names(packed, name)
        assert files["model.safetensors"].stat().st_size <= 4_000_000
    assert sum(path.stat().st_size for path in packed) < 5_000_000


def packed_names(packed: set[Path], name: str) -> set[str]:
    return {path.name for path in packed if path.parent.name == name}


def test_the_card_states_licence_data_and_command() -> None:
    card = (folder_of(DEFAULT) / "README.md").read_text()
    for part in ("license: apache-2.0", "Training data: ", "hybrid-encoder ", "ship.py", "no metric scale", "AbsRel"):
        assert part in card


def test_shipped_stage1_is_a_hybrid_encoder_s() -> None:
    path = folder_of(DEFAULT) / STAGE1_FILE
    if path.exists():
        assert open_stage1(path).config.clip == "tiny"


def test_ship_refuses_what_is_too_large(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        ship = __import__("ship")
    finally:
        sys.path.pop(0)
    config = EncoderOptions(preset="tiny").config().replace(pyramid=False, decoder_channels=96)
    encoder = create_encoder(config)
    from hybrid_encoder import DPTDecoder

    DepthModel(encoder, DPTDecoder(encoder, scales=(0, 1)), 32, 32).save_pretrained(tmp_path / "large")
    common = ["--training_data", "nothing", "--command", "none", "--scenes", "2", "--out", str(tmp_path / "out")]
    assert ship.main([str(tmp_path / "large"), *common]) == 2
    assert "expected at most 4000000" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    encoder = create_encoder(preset("tiny").replace(pyramid=False, decoder_channels=16))
    DepthModel(encoder, DPTDecoder(encoder, scales=(0, 1)), 32, 32).save_pretrained(tmp_path / "small")
    assert ship.main([str(tmp_path / "small"), *common]) == 0
    stored = DepthModel.from_pretrained(tmp_path / "out")
    assert tuple(stored.decoder.scales) == (0,)
    assert "`none`" in (tmp_path / "out" / "README.md").read_text()


# --- the authors'


class StandIn:
    """The part of the hub that serves one repository.

    Attributes:
        files: content by name.
        hub: to fetch from it, into an own cache.
        asked: paths of requests for files.
    """

    def __init__(self, files: dict[str, bytes], cache: Path) -> None:
        self.files = files
        self.asked: list[str] = []
        asked = self.asked
        siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
        tree = [{"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40} for name in files]
        described = {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings, "private": False}
        names = {f"/{REPOSITORY}/resolve/{COMMIT}/{name}": content for name, content in files.items()}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(body=True)

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def _answer(self, body: bool) -> None:
                path = self.path.partition("?")[0]
                if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
                    content, headers = json.dumps(tree).encode(), {"Content-Type": "application/json"}
                elif path.startswith(f"/api/models/{REPOSITORY}"):
                    content, headers = json.dumps(described).encode(), {"Content-Type": "application/json"}
                elif path in names:
                    asked.append(path)
                    content = names[path]
                    headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
                else:
                    self.send_error(404)
                    return
                self.send_response(200)
                for key, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.hub = Hub(self.endpoint, cache)


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    folder = write_folder(tmp_path / "authors")
    files = {f"checkpoints/mdp/{path.name}": path.read_bytes() for path in folder.iterdir()}
    files |= {"checkpoints/mdp/adam.pth": b"0" * 100, STAGE1: b"stage 1", "README.md": b"#"}
    served = StandIn(files, tmp_path / "cache")
    yield served
    served.server.shutdown()
    served.server.server_close()


def test_released_weights_are_fetched_once(stand_in: StandIn, capsys: pytest.CaptureFixture) -> None:
    folder = fetch_released("stage2", yes=True, hub=stand_in.hub)
    assert {path.name for path in folder.iterdir()} == {"encoder.pth", "depth.pth"}
    assert (folder / "depth.pth").read_bytes() == stand_in.files["checkpoints/mdp/depth.pth"]
    told = capsys.readouterr().err
    size = sum(len(stand_in.files[f"checkpoints/mdp/{name}.pth"]) for name in ("encoder", "depth")) / 1e6
    for part in ("checkpoints/mdp/encoder.pth", f"{size:.0f} MB", "no licence is stated"):
        assert part in told
    stand_in.asked.clear()
    assert fetch_released("stage2", hub=stand_in.hub) == folder  # without a question
    assert not stand_in.asked
    assert not capsys.readouterr().err


def test_stage1_is_fetched_as_a_file(stand_in: StandIn) -> None:
    assert fetch_released("stage1", yes=True, hub=stand_in.hub).read_bytes() == b"stage 1"


@pytest.mark.parametrize(("answer", "fetched"), [("y\n", True), ("\n", False)])
def test_one_question_is_asked(
    answer: str, fetched: bool, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    if fetched:
        assert fetch_released("stage1", hub=stand_in.hub).exists()
    else:
        with pytest.raises(UserError, match="nothing was fetched"):
            fetch_released("stage1", hub=stand_in.hub)
        assert not stand_in.asked
    assert capsys.readouterr().err.count("[y/N]") == 1


def test_nobody_to_ask(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
    with pytest.raises(UserError, match="--yes"):
        fetch_released("stage2", hub=stand_in.hub)
    assert not stand_in.asked


def test_several_folders_are_told_apart(tmp_path: Path) -> None:
    names = [
        f"{folder}/{net}.pth" for folder in ("checkpoints", "stage2_checkpoints/a") for net in ("encoder", "depth")
    ]
    served = StandIn(dict.fromkeys(names, b"x"), tmp_path / "cache")
    with pytest.raises(UserError, match="released:checkpoints, released:stage2_checkpoints/a"):
        fetch_released("stage2", yes=True, hub=served.hub)
    folder = fetch_released("stage2", "stage2_checkpoints/a", yes=True, hub=served.hub)
    assert (folder.name, folder.parent.name) == ("a", "stage2_checkpoints")
    served.server.shutdown()


@pytest.mark.parametrize("part", ["stage1", "stage2"])
def test_without_network_the_files_are_named(part: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(UserError) as refused:
        fetch_released(part, yes=True, hub=Hub("http://127.0.0.1:9", tmp_path))  # type: ignore[arg-type]
    assert time.monotonic() - started < 30
    named = (
        ("stage1_checkpoint/stage1.ckpt",) if part == "stage1" else ("checkpoints", "stage2_checkpoints", "depth.pth")
    )
    for name in (f"https://huggingface.co/{REPOSITORY}", *named):
        assert name in str(refused.value)


def test_the_command_line_fetches(
    stand_in: StandIn, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(PRESETS, "released", TINY_RELEASED)
    monkeypatch.setattr(named_weights, "fetch_released", partial(fetch_released, hub=stand_in.hub))
    out = tmp_path / "out"
    command = ["predict", str(photo), "--weights", "released", "--out", str(out), "--yes", "--device", "cpu"]
    assert main(command) == 0
    assert (out / "photo_disp.png").exists()
    assert "no licence is stated" in capsys.readouterr().err


def test_trainers_say_how_to_start_from_the_authors_stage_2() -> None:
    with pytest.raises(UserError, match="convert released --layout monodepth2"):
        refuse_released(Path("released"), "--load_weights_folder")
    refuse_released(None, "--load_weights_folder")
