"""Writes rendered images in the layout of TuSimple: one labelled image per clip, each of a different street."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from .camera import Camera
from .parallel import in_order
from .sequence import SEED_STRIDE, iterate_frames
from .settings import SynthSettings
from .writers import encode_jpeg, write_bytes, write_lines

PITCH = math.radians(-4)
FIRST_CLIP = 500_000
"""Number of the first clip's street; the drives have fewer streets."""
MAX_LANES = 5
MIN_LANE_POINTS = 7


class Clip(NamedTuple):
    """A labelled image."""

    jpeg: bytes
    lanes: list[list[int]]
    """x at each labelled row, by lane; empty if no line is visible."""


def write_tusimple(root: Path, settings: SynthSettings, bar: tqdm) -> None:
    """Writes all images, and the label files for training and validation; the bar counts images."""
    rows = label_rows(settings.clip_size[0])
    labels: dict[str, list[str]] = {"train": [], "val": []}
    number, street = 0, settings.seed * SEED_STRIDE + FIRST_CLIP
    while missing := settings.clip_count - number:
        streets = range(street, street + missing)
        street += missing
        with in_order(partial(render_clip, settings), streets, settings.num_workers) as clips:
            for clip in clips:
                if not clip.lanes:  # a street without visible lines is skipped
                    continue
                name = f"clips/synthetic/{number:06d}/20.jpg"
                write_bytes(root / name, clip.jpeg)
                last = number == settings.clip_count - 1
                part = "val" if number % 5 == 4 or (last and not labels["val"]) else "train"
                labels[part].append(json.dumps({"lanes": clip.lanes, "h_samples": rows, "raw_file": name}))
                number += 1
                bar.update()
    for part, listed in labels.items():
        write_lines(root / f"label_data_{part}.json", listed)


def render_clip(settings: SynthSettings, street: int) -> Clip:
    """The first image of a street, without a dead end."""
    height, width = settings.clip_size
    view = next(iterate_frames(street, 1, clip_camera(height, width), settings.device, dead_end=False))
    lanes = label_lanes(view.lanes, label_rows(height))
    return Clip(encode_jpeg(view.image) if lanes else b"", lanes)


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
