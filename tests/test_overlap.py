"""Prediction's threads: in order, bounded, with errors where they belong, and nothing written that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Timer, current_thread, main_thread
from typing import Any

import numpy as np
import pytest
import torch

from hybrid_encoder.colormap import write_picture
from hybrid_encoder.errors import UserError
from hybrid_encoder.prediction import run, video
from hybrid_encoder.prediction.overlap import Later, ahead
from hybrid_encoder.prediction.paths import predict_paths
from hybrid_encoder.prediction.settings import PredictionSettings

from .videos import write_video

SOON = 20
"""Seconds after which a thread that should have come does not."""


def test_items_are_made_while_earlier_ones_are_worked_on_and_few_wait() -> None:
    made: list[int] = []
    third, sixth = Event(), Event()

    def items() -> Iterator[int]:
        for number in range(9):
            assert current_thread() is not main_thread()
            made.append(number)
            (third if number == 2 else sixth if number == 5 else Event()).set()
            yield number

    stream = ahead(items(), 2)
    assert made == []
    assert next(stream) == 0
    assert third.wait(SOON), "two wait beside the one that was taken"
    assert made == [0, 1, 2]
    assert list(stream) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert sixth.is_set()


def test_an_error_of_the_items_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise UserError("the second is damaged")

    stream = ahead(items(), 5)
    assert next(stream) == 1
    with pytest.raises(UserError, match="second"):
        next(stream)


def test_a_stream_that_is_given_up_makes_no_more() -> None:
    made: list[int] = []
    stream = ahead((made.append(number) or number for number in range(100)), 3)  # type: ignore[func-returns-value]
    assert next(stream) == 0
    stream.close()  # type: ignore[attr-defined]
    assert len(made) <= 4


def test_later_calls_in_order_while_the_caller_goes_on() -> None:
    may_begin, called = Event(), list[int]()

    def call(number: int) -> None:
        assert may_begin.wait(SOON)
        called.append(number)

    with Later(3) as later:
        for number in range(3):
            later(call, number)
        assert called == []
        may_begin.set()
        for number in range(3, 6):
            later(call, number)
    assert called == [0, 1, 2, 3, 4, 5]


def test_nothing_is_called_after_an_error_which_comes_before_later_ones() -> None:
    called: list[int] = []

    def call(number: int) -> None:
        called.append(number)
        if number == 1:
            raise UserError("the disk is full")

    def run(most: int, numbers: range) -> None:
        with Later(most) as later:
            for number in numbers:
                later(call, number)
            raise UserError("of later work")

    with pytest.raises(UserError, match="disk"):
        run(9, range(4))
    assert called == [0, 1]
    with pytest.raises(UserError, match="disk"):
        run(1, range(1, 9))
    assert called == [0, 1, 1]


def test_an_interrupted_block_waits_for_the_call_under_way_alone() -> None:
    begun, may_end, called = Event(), Event(), list[int]()

    def call(number: int) -> None:
        called.append(number)
        begun.set()
        assert may_end.wait(SOON)

    def run() -> None:
        with Later(9) as later:
            later(call, 0)
            later(call, 1)
            assert begun.wait(SOON)
            Timer(0.3, may_end.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert called == [0]


@dataclass
class Follower:
    """A model of green that sees batch n only when the images of batch n + 1 are being read, and says what it saw."""

    read: list[Event]
    seen: int = 0
    height, width, min_depth, max_depth = 32, 64, 0.1, 100.0

    def disparity(self, image: torch.Tensor) -> torch.Tensor:
        self.seen += len(image)
        if self.seen < len(self.read):
            assert self.read[self.seen].wait(SOON), "the next batch is not read while the net works"
        return 0.1 + 0.4 * image[:, 1:2]


def test_images_are_read_while_the_net_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = [Event() for _ in range(6)]
    for number in range(6):
        write_picture(tmp_path / f"{number}.png", np.full((40, 90, 3), 40 * number, np.uint8))
    read_image = run.read_image

    def reading(path: Path) -> np.ndarray:
        read[int(path.stem)].set()
        return read_image(path)

    monkeypatch.setattr(run, "read_image", reading)
    settings = PredictionSettings(batch_size=2, progress=False)
    assert len(predict_paths(Follower(read), [tmp_path], tmp_path / "out", settings)) == 18


class AtOnce:
    """`Later` without a thread."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __enter__(self) -> Callable[..., Any]:
        return lambda function, *arguments: function(*arguments)

    def __exit__(self, *_: object) -> None:
        pass


def one_after_the_other(items: Iterable[Any], _: int) -> Iterable[Any]:
    """`ahead` without a thread."""
    return items


def test_files_are_the_same_byte_for_byte_as_without_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    for number in range(5):
        write_picture(tmp_path / "in" / f"{number}.png", random.integers(0, 255, (40, 90, 3), np.uint8))
    write_video(tmp_path / "in" / "drive.mp4")
    settings = PredictionSettings(batch_size=2, progress=False, save_npy=True, video_codec="mpeg4")
    threaded = predict_paths(Follower([]), [tmp_path / "in"], tmp_path / "threads", settings)
    for module in (run, video):
        monkeypatch.setattr(module, "Later", AtOnce)
    monkeypatch.setattr(run, "ahead", one_after_the_other)
    plain = predict_paths(Follower([]), [tmp_path / "in"], tmp_path / "plain", settings)
    assert [path.name for path in threaded] == [path.name for path in plain]
    assert len(plain) == 21
    for ours, theirs in zip(threaded, plain, strict=True):
        assert ours.read_bytes() == theirs.read_bytes(), ours.name
