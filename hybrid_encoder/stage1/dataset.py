"""Stage 1's dataset: resized, mirrored and jittered images with their points, and the batch they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from ..data.augment import color_jitter
from ..data.dataset import JITTER_PROBABILITY, draw_jitter
from ..data.loader import SampleDataset
from ..images import resize_image
from .options import PointScale
from .sequences import OrderedPatchSource


class Stage1Sample(TypedDict):
    """One image with its sequences."""

    image: Tensor
    """uint8 (3, H, W)."""
    points: Tensor
    """float32 (S, 7, 2), x and y in pixels of the H x W image, near to far."""
    jitter: Tensor
    """float32 (4,), as in `data.sample.Sample`."""
    name: str


@dataclass
class Stage1Batch:
    """Images and the sequences of all of them.

    Attributes:
        images: (B, 3, H, W) in [0, 1], augmented.
        points: (N, 7, 2), x and y in pixels, near to far.
        image_index: (N,), the image that each sequence lies in.
        sample_names: one name per image.
    """

    images: Tensor
    points: Tensor
    image_index: Tensor
    sample_names: list[str]


@dataclass(frozen=True)
class Augmentation:
    """How an image becomes a sample; the defaults are those of `hybrid-encoder pretrain`.

    Attributes:
        mirror, jitter: probabilities that a training image is mirrored, and that its colours are changed.
        point_scale: "axes": x and y of points are scaled as the image is; "height": both by the factor of the image's
            height, as in the released code, which moves points where the image's proportions change.
    """

    mirror: float = 0.5
    jitter: float = JITTER_PROBABILITY
    point_scale: PointScale = "axes"


class Stage1Dataset(SampleDataset[Stage1Sample]):
    """Images resized to height x width with their points; in training mirrored and colour-jittered.

    Keys are an index or (epoch, index); every random draw is a function of (seed, epoch, index).
    """

    def __init__(
        self,
        source: OrderedPatchSource,
        height: int,
        width: int,
        train: bool,
        seed: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.source, self.height, self.width, self.train, self.seed = source, height, width, train, seed
        self.augmentation = augmentation or Augmentation()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: int | tuple[int, int]) -> Stage1Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        rng = np.random.default_rng([self.seed, epoch, index])
        image, points = self.source.read(index, rng)
        points = points * self._point_scale(image)
        image = resize_image(image, self.height, self.width)
        if self.train and rng.random() < self.augmentation.mirror:
            image = image[:, ::-1]
            points = np.stack([self.width - 1 - points[..., 0], points[..., 1]], axis=-1)
        jitter = draw_jitter(rng, self.augmentation.jitter if self.train else 0.0)
        return Stage1Sample(
            image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            points=torch.from_numpy(points.astype(np.float32)),
            jitter=torch.from_numpy(jitter),
            name=self.source.name(index),
        )

    def _point_scale(self, image: np.ndarray) -> np.ndarray:
        """Factors of x and y from the image (h, w, 3) to the sample."""
        x, y = self.width / image.shape[1], self.height / image.shape[0]
        return np.array([x if self.augmentation.point_scale == "axes" else y, y], dtype=np.float32)


def collate(samples: list[Stage1Sample]) -> dict[str, Any]:
    """Stacks images and joins the sequences of all of them."""
    counts = torch.tensor([len(sample["points"]) for sample in samples])
    return {
        "image": torch.stack([sample["image"] for sample in samples]),
        "jitter": torch.stack([sample["jitter"] for sample in samples]),
        "points": torch.cat([sample["points"] for sample in samples]),
        "image_index": torch.repeat_interleave(torch.arange(len(samples)), counts),
        "name": [sample["name"] for sample in samples],
    }


def to_batch(collated: dict[str, Any], device: torch.device) -> Stage1Batch:
    """Moves a collated batch to the device, scales its pixels to [0, 1] and jitters its colours there."""
    images = collated["image"].to(device, non_blocking=True).float() / 255
    images = color_jitter(images[:, None], collated["jitter"])[:, 0]
    points = collated["points"].to(device, non_blocking=True)
    return Stage1Batch(images, points, collated["image_index"].to(device), collated["name"])
