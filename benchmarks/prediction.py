"""`predict` with reading, net and writing at the same time, against one after the other, on the same files.

    python benchmarks/prediction.py [--images 72] [--frames 72] [--rounds 3] [--threads 1]

Rendered frames at KITTI's size, as JPEGs in a folder and as a video; the weights that `predict` takes by default, and
a preset's net with random weights. Without threads, each stage is timed on its own: reading, the net, and colours,
encoding and writing. Both sides take turns; seconds are the least of all rounds. The share is that of the slowest
stage's time in the time of all three at once; it can reach 1 where the machine has a core for each stage. Fails where a
file differs in a byte. Prints a table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch

from hybrid_encoder.commands.measuring import machine
from hybrid_encoder.config import preset
from hybrid_encoder.engine.inference import inference, prepare
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.depth_model import DepthModel
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.model.predictor import DepthPredictor, predict_disparities
from hybrid_encoder.prediction import batches, run, video
from hybrid_encoder.prediction.paths import predict_paths
from hybrid_encoder.prediction.settings import PredictionSettings
from hybrid_encoder.synthetic.camera import kitti_camera
from hybrid_encoder.synthetic.sequence import iterate_frames
from hybrid_encoder.weights.in_package import DEFAULT

CPU = torch.device("cpu")
STAGES = ("reading", "net", "writing")


class OneAfterTheOther:
    """The plain loop in place of `overlap`, with the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def timed(self, stage: str, call: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            self.seconds[stage] += time.perf_counter() - started  # type: ignore[assignment]

    def ahead(self, items: Iterable[Any], _: int) -> Iterator[Any]:
        source = iter(items)
        while (item := self.timed("reading", next, source, None)) is not None:
            yield item

    def later(self, _: int) -> OneAfterTheOther:
        return self

    def __enter__(self) -> Callable[..., Any]:
        return lambda function, *arguments: self.timed("writing", function, *arguments)

    def __exit__(self, *_: object) -> None:
        pass

    def net(self, model: DepthPredictor, images: Sequence[np.ndarray]) -> Any:
        return self.timed("net", predict_disparities, model, images)

    def run(self, call: Callable[[], None]) -> None:
        """Calls it with these in the place of threads."""
        with (
            patch.object(run, "ahead", self.ahead),
            patch.object(run, "Later", self.later),
            patch.object(video, "Later", self.later),
            patch.object(batches, "predict_disparities", self.net),
        ):
            call()


def write_inputs(folder: Path, images: int, frames: int, size: tuple[int, int]) -> dict[str, Path]:
    """A folder of JPEGs and a video of one rendered drive; height and width."""
    height, width = size
    inputs = {f"{images} images": folder / "images", f"video, {frames} frames": folder / "drive.mp4"}
    folder_of_images, movie = inputs.values()
    folder_of_images.mkdir()
    pictures = drive_pictures(max(images, frames), height, width)
    for number, picture in enumerate(pictures[:images]):
        cv2.imwrite(str(folder_of_images / f"{number}.jpg"), picture)
    write_movie(movie, pictures[:frames])
    return inputs


def drive_pictures(frames: int, height: int, width: int) -> list[np.ndarray]:
    """The frames of a rendered drive, uint8 BGR (H, W, 3)."""
    views = iterate_frames(0, frames, kitti_camera(height, width))
    return [np.ascontiguousarray(view.image.permute(1, 2, 0).numpy()[..., ::-1]) for view in views]


def write_movie(path: Path, frames: list[np.ndarray]) -> None:
    """Writes uint8 BGR frames (H, W, 3) by OpenCV."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()


def build_net(name: str, size: tuple[int, int]) -> DepthModel:
    """The shipped model, which has a size of its own, or a preset's with random weights."""
    if name == DEFAULT:
        return DepthModel.from_pretrained(DEFAULT)
    torch.manual_seed(0)
    encoder = HybridEncoder(preset(name).without_downloads().replace(pyramid=False))
    return DepthModel(encoder, DPTDecoder(encoder), *size)


def compare(title: str, model: DepthModel, source: Path, folder: Path, given: argparse.Namespace) -> None:
    """Prints the row of one net and input."""
    settings = PredictionSettings(progress=False, video_codec=given.codec)
    out = {side: folder / "out" / title / side for side in ("plain", "threads")}

    def predict(side: str) -> None:
        with inference(CPU), redirect_stderr(StringIO()):  # of flat depth, which random weights give
            predict_paths(model, [source], out[side], settings)

    best: dict[str, float] = {}
    for _ in range(given.rounds):
        plain = OneAfterTheOther()
        started = time.perf_counter()
        plain.run(lambda: predict("plain"))
        between = time.perf_counter()
        predict("threads")
        found = {**plain.seconds, "plain": between - started, "threads": time.perf_counter() - between}
        best = {key: min(value, best.get(key, value)) for key, value in found.items()}
    for path in sorted(out["plain"].iterdir()):
        if path.read_bytes() != (out["threads"] / path.name).read_bytes():
            sys.exit(f"{title}: {path.name} differs")
    stages = " | ".join(f"{best[stage]:.2f}" for stage in STAGES)
    share = max(best[stage] for stage in STAGES) / best["threads"]
    print(f"| {title} | {stages} | {best['plain']:.2f} | {best['threads']:.2f} ", end="")
    print(f"| {best['plain'] / best['threads']:.2f} | {share:.2f} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=[DEFAULT, "tiny"], help="the shipped one, and presets")
    parser.add_argument("--images", type=int, default=72)
    parser.add_argument("--frames", type=int, default=72)
    parser.add_argument("--size", type=int, nargs=2, default=(375, 1242), help="height and width of the inputs")
    parser.add_argument("--net_size", type=int, nargs=2, default=(192, 640), help="height and width for presets")
    parser.add_argument("--codec", default="mpeg4", choices=["mpeg4", "browser"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and of OpenCV, in each stage")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    print(f"{machine(CPU)}; inputs {given.size[0]}x{given.size[1]}, least of {given.rounds}, seconds\n")
    print("| net, input | reading | net | writing | one after the other | at the same time | ratio | share |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_inputs(Path(folder), given.images, given.frames, given.size)
        for name in given.nets:
            model = prepare(build_net(name, given.net_size), CPU)
            for kind, source in inputs.items():
                compare(f"{name} {model.height}x{model.width}, {kind}", model, source, Path(folder), given)


if __name__ == "__main__":
    main()
