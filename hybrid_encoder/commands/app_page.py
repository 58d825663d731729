"""The page of `hybrid-encoder app`, built with Gradio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr

from ..config import DEPTH_WORDS
from ..data.video import VIDEO_SUFFIXES
from ..errors import UserError
from ..images import IMAGE_SUFFIXES
from .app_answers import Answers
from .options import AppOptions

T = TypeVar("T")
_FONTS = ("system-ui", "sans-serif")
"""Fonts of this machine: Gradio's own fonts would be fetched from the network."""
_SWEEP_SECONDS, _KEPT_SECONDS = 60, 600
"""Seconds between clean-ups, and age at which uploads and results are deleted; the rest goes when the program ends."""


def build_page(answers: Answers, options: AppOptions) -> gr.Blocks:
    """The page; `answers` computes what it shows."""
    kept = (_SWEEP_SECONDS, _KEPT_SECONDS)
    with gr.Blocks(title="hybrid-encoder", delete_cache=kept, analytics_enabled=False) as page:
        gr.Markdown(
            f"# Depth of a picture or a video\nWeights: `{options.weights}`. Near is bright, far is dark. Files of up "
            f"to {options.max_mb} MB stay on this machine, and are deleted after some minutes."
        )
        with gr.Row():
            with gr.Column(scale=1):
                file = gr.File(
                    label="Drop an image or a video", file_types=sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES), elem_id="file"
                )
                fov = gr.Slider(
                    30, 120, value=80, step=1, label="Horizontal field of view in degrees, for surface and points"
                )
                again = gr.Button("Show depth", variant="primary")
                files = gr.Files(label="Downloads", elem_id="downloads")
            with gr.Column(scale=2):
                pair = gr.ImageSlider(label="picture | depth", format="png", elem_id="pair")
                video = gr.Video(label="frames and their depth", visible=False, elem_id="video")
                surface = gr.Model3D(label="Turn it with the mouse", elem_id="surface")
                kind = gr.Radio(["surface", "points"], value="surface", show_label=False, elem_id="kind")
        shown = [pair, video, surface, files]
        gr.on([file.upload, again.click], _depth(answers), [file, fov], shown, api_name="depth")
        kind.change(_as_points, kind, surface, api_name="turn")
        if answers.encoder is not None:
            _add_closeness(answers, file)
    return page


def theme() -> gr.themes.Base:
    """The page's style, which needs no network."""
    return gr.themes.Base(font=_FONTS, font_mono=("monospace",))


def _add_closeness(answers: Answers, file: gr.File) -> None:
    """The part about closeness in words."""
    gr.Markdown(
        "## Closeness in words, as stage 1 learnt it\nBright: closer, or a phrase that fits better. By default, stage "
        "1 ranks in one direction only: every phrase then fits distant cells better, and closeness comes from all. "
        + ("Any words will do." if answers.words else "Phrases are made of the words of the seven below.")
    )
    words = gr.Textbox(
        label="Phrases, near to far, between commas", value=", ".join(DEPTH_WORDS), elem_id="words", max_lines=2
    )
    ask = gr.Button("Show closeness", elem_id="ask")
    gallery = gr.Gallery(label="closeness, then each phrase", columns=4, format="jpeg", elem_id="gallery")
    gr.on([ask.click, words.submit], _closeness(answers), [file, words], gallery, api_name="closeness")


def _depth(answers: Answers) -> Callable[..., tuple[Any, ...]]:
    def show(file: str | None, fov: float) -> tuple[Any, ...]:
        found = _told(lambda: answers.depth(_dropped(file), fov))
        is_video = found.video is not None
        return (
            gr.update(value=found.pair, visible=not is_video),
            gr.update(value=found.video, visible=is_video),
            gr.update(value=found.surface, visible=not is_video),
            found.files,
        )

    return show


def _as_points(kind: str) -> Any:
    """Shows the same file as a surface, or its corners alone."""
    return gr.update(display_mode="point_cloud" if kind == "points" else "solid")


def _closeness(answers: Answers) -> Callable[..., Any]:
    return lambda file, words: _told(lambda: answers.closeness(_dropped(file), words))


def _dropped(file: str | None) -> str:
    if file is None:
        raise UserError("there is no file yet: drop an image or a video")
    return file


def _told(answer: Callable[[], T]) -> T:
    """The answer; a `UserError` is shown on the page."""
    try:
        return answer()
    except UserError as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from error
