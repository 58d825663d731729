"""`hybrid-encoder app`: a page in the browser that shows the depth of images and videos that are dropped on it.

The page is served to this machine only. It needs no network, and keeps no file after it ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..engine.inference import prepare
from ..engine.processes import choose_device
from ..errors import UserError
from ..model.encoder import HybridEncoder
from ..model.onnx_depth import SUFFIX, OnnxDepthModel
from ..model.phrases import Words
from ..stage1.checkpoint import open_stage1
from ..two_frame.checkpoint import is_two_frame
from ..weights.in_package import shipped_folder
from ..weights.run_files import STAGE1_FILE
from .app_answers import Answers
from .convert import open_depth_model
from .named_weights import local_weights
from .options import AppOptions

ADDRESS = "127.0.0.1"
"""Only this machine can reach it."""
_WAITING = 8
"""Largest number of requests in the queue."""


def run(options: AppOptions) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        UserError: Gradio is not installed, the port is taken, or weights that cannot be opened.
    """
    with served(options) as page:
        print(f"open {page.local_url} in a browser; Ctrl-C ends", flush=True)
        page.block_thread()


@contextmanager
def served(options: AppOptions) -> Iterator[Any]:
    """Runs the page until the block ends, and then deletes uploads and results."""
    _need_gradio()
    from .app_page import build_page, theme  # need Gradio

    with tempfile.TemporaryDirectory(prefix="hybrid-encoder-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build_page(_answers(options, Path(folder)), options)
        page.queue(max_size=_WAITING, default_concurrency_limit=1)
        try:
            page.launch(
                server_name=ADDRESS,
                server_port=options.port,
                max_file_size=f"{options.max_mb}mb",
                share=False,
                run_history=False,
                ssr_mode=False,
                footer_links=[],
                theme=theme(),
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise UserError(f"--port {options.port} cannot be opened ({error}): choose another one") from error
        try:
            yield page
        finally:
            page.close()


def _need_gradio() -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it would report to its makers
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UserError(f"gradio is not installed ({error}): pip install 'hybrid-encoder[app]'") from error


def _answers(options: AppOptions, folder: Path) -> Answers:
    """The models behind the page."""
    weights, device = local_weights(options.weights, options.yes), choose_device(options.device)
    encoder = _encoder(options)
    if options.clip_weights is not None and (encoder is None or encoder.config.clip == "tiny"):
        raise UserError("--clip_weights is for --stage1 of an encoder with CLIP's text tower, which knows those words")
    words = Words.of(encoder.config.clip, options.clip_weights) if encoder and options.clip_weights else None
    if weights.lower().endswith(SUFFIX):
        return Answers(OnnxDepthModel(weights), encoder, device, folder, options.max_frames, words)
    if is_two_frame(weights):
        raise UserError(f"{weights} holds two-frame weights: the page shows those of a single frame")
    return Answers(prepare(open_depth_model(weights), device), encoder, device, folder, options.max_frames, words)


def _encoder(options: AppOptions) -> HybridEncoder | None:
    """The stage-1 encoder for closeness in words: that of --stage1, else the one of the shipped weights, if those are
    used; None if there is neither."""
    path = options.stage1
    if path is None and (folder := shipped_folder(options.weights)) is not None:
        path = folder / STAGE1_FILE
    if path is None or not (options.stage1 or path.is_file()):
        return None
    return prepare(open_stage1(path), choose_device(options.device))
