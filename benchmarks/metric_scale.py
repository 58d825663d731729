"""Depth in metres by `predict --scale_from`, on rendered drives: AbsRel with the scale found, and median-scaled.

    python benchmarks/metric_scale.py [--weights tiny-rendered] [--drives 12] [--frames 16]

A drive is a folder of images, its speeds are those between its frames, 10 a second, and its camera is 1.65 m above
the road, within 5 cm. Prints a table of docs/VIDEO.md: a row for each way to know the scale; a drive that is refused is
counted, and left out of both columns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from hybrid_encoder.commands.convert import open_depth_model
from hybrid_encoder.commands.measuring import machine
from hybrid_encoder.data.calibration import Intrinsics
from hybrid_encoder.data.poses import write_kitti_poses
from hybrid_encoder.engine.inference import inference, prepare
from hybrid_encoder.errors import UserError
from hybrid_encoder.evaluation.depths import evaluate_depths
from hybrid_encoder.evaluation.protocol import EvaluationProtocol
from hybrid_encoder.images import read_image
from hybrid_encoder.metric.motion import steps_of
from hybrid_encoder.metric.source import ScaleSource
from hybrid_encoder.model.depth_model import DepthModel
from hybrid_encoder.prediction.batches import predict_batch
from hybrid_encoder.prediction.cameras import Cameras
from hybrid_encoder.prediction.scaling import scale_of_images
from hybrid_encoder.prediction.settings import PredictionSettings
from hybrid_encoder.synthetic.sequence import SyntheticSource

HEIGHT, WIDTH = 192, 640
"""Of the images."""
FRAMES_PER_SECOND = 10
FIRST_SEED = 500
"""Of the drives, on which no weights of the package were trained."""
KNOWN: dict[str, Callable[[Path], ScaleSource]] = {
    "camera_height=1.65": lambda folder: ScaleSource("camera_height", metres=1.65),
    "speed=FILE": lambda folder: ScaleSource("speed", file=folder / "speeds.txt"),
    "poses=FILE": lambda folder: ScaleSource("poses", file=folder / "poses.txt"),
}
"""The source of the scale, of a drive's folder, by how `--scale_from` says it."""


class Drive(NamedTuple):
    """A rendered drive on the disk: a folder with its images and with files of speeds and poses.

    Attributes:
        images: in order.
        depths: (H, W) in metres of each, 0 where unknown.
        camera: of all images.
    """

    folder: Path
    images: list[Path]
    depths: list[np.ndarray]
    camera: Intrinsics


def write_drive(folder: Path, seed: int, frames: int) -> Drive:
    """Renders a drive into an empty folder."""
    source = SyntheticSource(seed, 1, frames, HEIGHT, WIDTH)
    sequence = source.sequence(0)
    images = [folder / f"{number:04d}.png" for number in range(frames)]
    for path, image in zip(images, sequence.images.permute(0, 2, 3, 1).numpy(), strict=True):
        cv2.imwrite(str(path), image[..., ::-1])
    poses = sequence.T_world_camera.numpy()
    write_kitti_poses(folder / "poses.txt", poses)
    speeds = FRAMES_PER_SECOND * np.interp(np.arange(frames), np.arange(frames - 1) + 0.5, steps_of(poses))
    lines = [f"{number / FRAMES_PER_SECOND:.2f} {speed:.2f}\n" for number, speed in enumerate(speeds)]
    (folder / "speeds.txt").write_text("".join(lines))
    depths = list(sequence.depth[:, 0].numpy())
    return Drive(folder, images, depths, Intrinsics(source.intrinsics(0), (WIDTH, HEIGHT)))


class Found(NamedTuple):
    """AbsRel on a drive."""

    metric: float
    median_scaled: float


def measure(model: DepthModel, drive: Drive, source: ScaleSource) -> Found | None:
    """AbsRel of a drive's depth in metres, and median-scaled; None: the scale was refused."""
    settings = PredictionSettings(scale_from=source, camera=drive.camera)
    try:
        factor = scale_of_images(Cameras(settings), model, drive.images).factor
    except UserError as refusal:
        print(f"{drive.folder.name}: {refusal}")
        return None
    disparities = predict_batch(model, [read_image(path) for path in drive.images], settings)
    in_metres = EvaluationProtocol(crop=None, median_scaling=False, scale_factor=factor)
    median_scaled = EvaluationProtocol(crop=None)
    return Found(*(evaluate_depths(disparities, drive.depths, way).mean.abs_rel for way in (in_metres, median_scaled)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tiny-rendered")
    parser.add_argument("--drives", type=int, default=12)
    parser.add_argument("--frames", type=int, default=16, help="of each drive")
    given = parser.parse_args()
    device = torch.device("cpu")
    model = prepare(open_depth_model(given.weights), device)
    print(f"{machine(device)}; {given.weights}, {given.drives} drives of {given.frames} frames, {HEIGHT}x{WIDTH}\n")
    found: dict[str, list[Found | None]] = {way: [] for way in KNOWN}
    with tempfile.TemporaryDirectory() as folder, inference(device):
        for number in range(given.drives):
            (Path(folder) / f"drive_{number}").mkdir()
            drive = write_drive(Path(folder) / f"drive_{number}", FIRST_SEED + number, given.frames)
            for way, source in KNOWN.items():
                found[way].append(measure(model, drive, source(drive.folder)))
    print("\n| `--scale_from` | drives | refused | AbsRel in metres | median-scaled |\n|---|---|---|---|---|")
    for way, drives in found.items():
        told = [one for one in drives if one is not None]
        means = [f"{statistics.mean(column):.3f}" for column in zip(*told, strict=True)] if told else ["", ""]
        print(f"| `{way}` | {len(told)} | {len(drives) - len(told)} | {' | '.join(means)} |")


if __name__ == "__main__":
    main()
