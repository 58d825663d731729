"""Writes rendered images in the layout of TuSimple: one labelled image per clip, each of a different street."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .camera import Camera
from .sequence import SEED_STRIDE, iterate_frames
from .settings import SynthSettings
from .writers import write_jpeg, write_lines

PITCH = math.radians(-4)
FIRST_CLIP = 500_000
"""Number of the first clip's street; the drives have fewer streets."""
MAX_LANES = 5
MIN_LANE_POINTS = 7


def write_tusimple(root: Path, settings: SynthSettings, bar: tqdm) -> None:
    """Writes all images, and the label files for training and validation; the bar counts images."""
    height, width = settings.clip_size
    camera, rows = clip_camera(height, width), label_rows(height)
    labels: dict[str, list[str]] = {"train": [], "val": []}
    street = settings.seed * SEED_STRIDE + FIRST_CLIP
    for number in range(settings.clip_count):
        lanes: list[list[int]] = []
        while not lanes:  # a street without visible lines is skipped
            view = next(iterate_frames(street, 1, camera, settings.device, dead_end=False))
            lanes = label_lanes(view.lanes, rows)
            street += 1
        name = f"clips/synthetic/{number:06d}/20.jpg"
        write_jpeg(root / name, view.image)
        last = number == settings.clip_count - 1
        part = "val" if number % 5 == 4 or (last and not labels["val"]) else "train"
        labels[part].append(json.dumps({"lanes": lanes, "h_samples": rows, "raw_file": name}))
        bar.update()
    for part, listed in labels.items():
        write_lines(root / f"label_data_{part}.json", listed)


def clip_camera(height: int, width: int) -> Camera:
    """A camera like that of TuSimple, for images of this size."""
    K = torch.tensor([[0.75 * width, 0, 0.5 * width], [0, 0.75 * width, 0.5 * height], [0, 0, 1]], dtype=torch.float64)
    return Camera(height, width, K, PITCH)


def label_rows(height: int) -> list[int]:
    """The rows of an image at which TuSimple labels lanes.

    >>> label_rows(720)[:3], label_rows(720)[-1]
    ([160, 170, 180], 710)
    """
    scale = height / 720
    return list(range(round(160 * scale), height, max(1, round(10 * scale))))


def label_lanes(lanes: list[np.ndarray], rows: list[int]) -> list[list[int]]:
    """TuSimple's labels of lanes: for each lane, x at each row, -2 where the lane is hidden.

    Lanes that are visible at fewer than `MIN_LANE_POINTS` rows are left out. Of the others, the `MAX_LANES` with the
    most visible rows are kept, from left to right.

    Args:
        lanes: (n, 2) each, x and y from near to far.
        rows: ascending.
    """
    at = np.array(rows, dtype=np.float64)
    labels = []
    for lane in lanes:
        x, y = lane[::-1].astype(np.float64).T
        after = np.searchsorted(y, at).clip(1, len(y) - 1)
        seen = (
            (at >= y[0]) & (at <= y[-1]) & (y[after] - y[after - 1] < 3)
        )  # a larger step: something hides the lane there
        if seen.sum() >= MIN_LANE_POINTS:
            labels.append(np.where(seen, np.interp(at, y, x).round().clip(0), -2).astype(int))
    labels = sorted(labels, key=lambda label: -int((label >= 0).sum()))[:MAX_LANES]
    return [label.tolist() for label in sorted(labels, key=lambda label: int(label[label >= 0][-1]))]
