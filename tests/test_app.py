"""The page in the browser: drop, see, download, a bad file; by Gradio's client, and in a browser where there is one."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from hybrid_encoder import UserError, open_depth_model
from hybrid_encoder.cli import main
from hybrid_encoder.colormap import write_picture
from hybrid_encoder.commands import app
from hybrid_encoder.commands.options import AppOptions
from hybrid_encoder.config import DEPTH_WORDS, preset
from hybrid_encoder.images import read_image
from hybrid_encoder.model.language import Language
from hybrid_encoder.model.phrases import Words, phrase_features
from hybrid_encoder.prediction.mesh import surface, write_mesh
from hybrid_encoder.stage1.checkpoint import open_stage1
from hybrid_encoder.weights.in_package import DEFAULT, shipped_folder
from hybrid_encoder.weights.run_files import STAGE1_FILE

IMAGE = np.linspace(0, 255, 60 * 100 * 3).reshape(60, 100, 3).astype(np.uint8)
SHORT, LONG = 4, 7
"""Frames of the videos; the page takes 5."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind((app.ADDRESS, 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def files(module_path: Path) -> Path:
    """What is dropped on the page."""
    write_picture(module_path / "street.png", IMAGE)
    (module_path / "cut.png").write_bytes((module_path / "street.png").read_bytes()[:-40])
    (module_path / "notes.txt").write_text("no picture")
    write_picture(module_path / "large.bmp", np.zeros((700, 700, 3), np.uint8))  # 1.5 MB
    for name, count in (("short.mp4", SHORT), ("long.mp4", LONG)):
        writer = cv2.VideoWriter(str(module_path / name), cv2.VideoWriter.fourcc(*"mp4v"), 10, (100, 60))
        for _ in range(count):
            writer.write(IMAGE)
        writer.release()
    return module_path


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'hybrid-encoder[app]'")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
            patch.setenv(variable, "")  # set by the page, and put back by this
        with app.served(AppOptions(port=free_port(), max_mb=1, max_frames=5, device="cpu")) as running:
            yield running


@pytest.fixture(scope="module")
def ask(page: Any) -> Any:
    """Asks the running page as a browser does."""
    from gradio_client import Client, handle_file

    client = Client(page.local_url, verbose=False)
    return lambda path, *further, name: client.predict(handle_file(str(path)), *further, api_name=name)


def test_an_image_gives_depth_a_surface_and_downloads(ask: Any, files: Path) -> None:
    pair, video, mesh, downloads = ask(files / "street.png", 80, name="/depth")
    picture, colours = (read_image(path) for path in pair["value"])
    np.testing.assert_array_equal(picture, IMAGE)
    assert colours.shape == IMAGE.shape
    assert (pair["visible"], video["visible"], mesh["visible"]) == (True, False, True)
    names = {Path(path).name: Path(path) for path in downloads}
    assert {"street_disp.png", "street_depth.png", "street.npy", "street.glb", "street.ply"} <= names.keys()
    assert names["street.ply"].read_bytes().startswith(b"ply\nformat binary_little_endian 1.0")
    np.testing.assert_allclose(np.load(names["street.npy"]), open_depth_model(DEFAULT).predict(IMAGE), rtol=1e-5)
    np.testing.assert_array_equal(read_image(names["street_disp.png"]), colours)


def test_a_video_gives_a_video(ask: Any, files: Path) -> None:
    pair, video, _, downloads = ask(files / "short.mp4", 80, name="/depth")
    assert (pair["visible"], video["visible"]) == (False, True)
    assert [Path(path).name for path in downloads] == ["short_depth.mp4"]
    capture = cv2.VideoCapture(downloads[0])
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FRAME_WIDTH)) == (SHORT, 200)


def test_closeness_in_the_words_of_the_user(ask: Any, files: Path) -> None:
    shown = ask(files / "street.png", "very close, distant", name="/closeness")
    assert [one["caption"] for one in shown] == ["closeness", "very close", "distant"]
    assert len(ask(files / "street.png", "", name="/closeness")) == 1 + len(DEPTH_WORDS)


@pytest.mark.parametrize(
    ("file", "name", "given", "message"),
    [
        ("cut.png", "/depth", 80, "is cut off after"),
        ("notes.txt", "/depth", 80, "Invalid file type"),
        ("long.mp4", "/depth", 80, f"the video has {LONG} frames, and this page takes 5"),
        ("large.bmp", "/depth", 80, "1mb|Request Entity Too Large|413|exceed"),
        ("street.png", "/closeness", "purple, close", "'purple': this encoder knows phrases of at most 4 of the words"),
        ("short.mp4", "/closeness", "close", "needs an image, not a video"),
    ],
)
def test_bad_files_and_words_are_told(ask: Any, files: Path, file: str, name: str, given: Any, message: str) -> None:
    with pytest.raises(Exception, match=message):  # of classes of Gradio's client and of its transport
        ask(files / file, given, name=name)


def test_only_this_machine_is_served(page: Any) -> None:
    assert page.local_url.startswith("http://127.0.0.1:")
    assert page.share_url is None
    assert not page.run_history
    assert page.max_file_size == 2**20


def test_nothing_is_kept(ask: Any, page: Any, files: Path) -> None:
    """Results of one request go with the next; all of it goes with the page, whose folder is a temporary one."""
    ask(files / "street.png", 80, name="/depth")
    ask(files / "street.png", 80, name="/depth")
    (folder,) = {
        Path(component.GRADIO_CACHE) for component in page.blocks.values() if hasattr(component, "GRADIO_CACHE")
    }
    assert folder.name.startswith("hybrid-encoder-app-")
    assert len(list(folder.glob("tmp*/street.npy"))) == 1
    assert page.delete_cache == (60, 600)


def test_the_page_in_a_browser(page: Any, files: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with (
        playwright.sync_playwright() as running,
        running.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader"]
        ) as browser,
    ):
        seen = browser.new_page(accept_downloads=True)
        asked: list[str] = []
        seen.on("request", lambda request: asked.append(request.url))
        seen.goto(page.local_url)
        drop = seen.locator("#file input[type=file]")
        drop.set_input_files(files / "street.png")
        seen.locator("#downloads a").first.wait_for()
        assert seen.locator("#pair img").count() == 2
        seen.locator("#surface canvas").wait_for()
        seen.locator("#kind label", has_text="points").click()
        seen.locator("#surface canvas").wait_for()
        with seen.expect_download() as download:
            seen.locator("#downloads a", has_text="").first.click()
        download.value.save_as(tmp_path / "disp.png")
        assert read_image(tmp_path / "disp.png").shape == IMAGE.shape
        seen.locator("#ask").click()
        seen.locator("#gallery img").first.wait_for()
        seen.locator("#file button[aria-label='Clear'], #file button[aria-label='Remove']").first.click()
        drop.set_input_files(files / "cut.png")
        seen.get_by_text("is cut off after").first.wait_for()
        assert all(url.startswith((page.local_url, "data:", "blob:")) for url in asked), asked


# Its parts


def test_the_seven_phrases_are_the_seven_words() -> None:
    folder = shipped_folder(DEFAULT)
    assert folder is not None
    encoder = open_stage1(folder / STAGE1_FILE)
    torch.testing.assert_close(phrase_features(encoder, DEPTH_WORDS), encoder.language.word_features())
    one, _ = phrase_features(encoder, ["Distant", "very close"])
    torch.testing.assert_close(one, encoder.language.word_features()[5])
    for phrases in ([], ["close", " "], 17 * ["close"], ["very very very very close"]):
        with pytest.raises(UserError, match="phrases"):
            phrase_features(encoder, phrases)


def test_any_words_with_the_words_of_clip() -> None:
    """As the whole text tower of open_clip reads the sentence."""
    import open_clip

    text = open_clip.CLIPTextCfg(width=32, heads=2, layers=2)
    clip = open_clip.CLIP(16, open_clip.CLIPVisionCfg(layers=1, width=64, image_size=32), text).eval()
    config = preset("tiny")
    encoder: Any = SimpleNamespace(language=Language(clip, config), config=config)
    phrases = ["a purple cow right behind the fence", "close"]
    with pytest.raises(UserError, match="knows phrases of at most 4 of the words"):
        phrase_features(encoder, phrases)
    words = Words(clip.token_embedding.weight.detach(), clip.positional_embedding.detach())
    sentences = open_clip.tokenize([config.prompt.format(depth=phrase) for phrase in phrases])
    torch.testing.assert_close(
        phrase_features(encoder, phrases, words), clip.encode_text(sentences, normalize=True).detach()
    )
    assert len(encoder.language.vocabulary) == len(encoder.language.embedding)
    with pytest.raises(UserError, match="CLIP's words have 8 numbers, those of the encoder 32"):
        phrase_features(encoder, phrases, Words(torch.zeros(49408, 8), torch.zeros(77, 8)))


def test_surfaces_are_torn_at_edges_of_depth_and_lie_where_depth_says(tmp_path: Path) -> None:
    depth = np.full((4, 6), 5.0)
    depth[:, 3:] = 10.0
    image = np.zeros((4, 6, 3), np.uint8)
    points, _, triangles = surface(image, depth, 90.0)
    assert len(triangles) == 2 * 3 * 4  # of 15 cells, the column of 3 between 5 and 10 is left out
    np.testing.assert_allclose(points[0], [-2.5 / 3 * 5, 1.5 / 3 * 5, -5])  # a focal length of 3 pixels
    write_mesh(tmp_path / "a.glb", image, depth, 90.0)
    data = (tmp_path / "a.glb").read_bytes()
    magic, version, length, header = struct.unpack("<4sIII", data[:16])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    told = json.loads(data[20 : 20 + header])
    assert [accessor["count"] for accessor in told["accessors"]] == [24, 24, 72]
    body = data[20 + header + 8 :]
    assert len(body) == told["buffers"][0]["byteLength"] == 24 * 12 + 24 * 4 + 72 * 4
    np.testing.assert_allclose(np.frombuffer(body[: 24 * 12], "<f4").reshape(-1, 3), points, rtol=1e-6)


def test_without_gradio_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    assert main(["app"]) == 2
    assert "pip install 'hybrid-encoder[app]'" in capsys.readouterr().err
