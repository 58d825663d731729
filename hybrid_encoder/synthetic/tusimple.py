"""Writes rendered images in the layout of TuSimple: one labelled image a clip, each of a street of its own."""

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
"""Streets of the clips come after this many of the drives', which never are so many."""
MAX_LANES = 5
MIN_LANE_POINTS = 7


class Clip(NamedTuple):
    """A labelled image."""

    jpeg: bytes
    lanes: list[list[int]]
    """x at each labelled row, by lane; empty where the street's lines are hidden."""


def write_tusimple(root: Path, settings: SynthSettings, bar: tqdm) -> None:
    """All images, and the label files for training and validation; the bar counts images."""
    rows = label_rows(settings.clip_size[0])
    labels: dict[str, list[str]] = {"train": [], "val": []}
    number, street = 0, settings.seed * SEED_STRIDE + FIRST_CLIP
    while missing := settings.clip_count - number:
        streets = range(street, street + missing)
        street += missing
        with in_order(partial(render_clip, settings), streets, settings.num_workers) as clips:
            for clip in clips:
                if not clip.lanes:  # a street whose lines are hidden is passed over
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
    """The camera of TuSimple's kind for images of this size."""
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
    """TuSimple's labels of lanes (n, 2) near to far: x at each of the ascending rows, -2 where the lane is not seen.

    Only lanes seen at `MIN_LANE_POINTS` rows or more, and of these the `MAX_LANES` seen at most rows, from left to
    right.
    """
    at = np.array(rows, dtype=np.float64)
    labels = []
    for lane in lanes:
        x, y = lane[::-1].astype(np.float64).T
        after = np.searchsorted(y, at).clip(1, len(y) - 1)
        seen = (at >= y[0]) & (at <= y[-1]) & (y[after] - y[after - 1] < 3)  # wider steps: something stands between
        if seen.sum() >= MIN_LANE_POINTS:
            labels.append(np.where(seen, np.interp(at, y, x).round().clip(0), -2).astype(int))
    labels = sorted(labels, key=lambda label: -int((label >= 0).sum()))[:MAX_LANES]
    return [label.tolist() for label in sorted(labels, key=lambda label: int(label[label >= 0][-1]))]
