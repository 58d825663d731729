"""Turns rigs into samples: images with their geometry, and the maps to predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from ..data.augment import color_jitter
from ..data.dataset import JITTER_PROBABILITY, draw_jitter
from ..data.loader import SampleDataset
from ..data.rig import RigSample, RigSource
from ..errors import UserError
from ..images import read_image
from .maps import MapSettings
from .model import BevBatch
from .views import ViewAugmentation, draw_view, plain_view


class BevSample(TypedDict):
    """One rig; torch's default collation makes a batch with the same keys."""

    images: Tensor
    """uint8 (N, 3, H, W), RGB."""
    intrinsics: Tensor
    """float32 (N, 3, 3), pixels of these images."""
    camera_to_ego: Tensor
    """float32 (N, 4, 4), metres."""
    maps: Tensor
    """uint8 (K, X, Y), 1 where the class is."""
    jitter: Tensor
    """float32 (N, 4), as in `data.sample.Sample`."""
    name: str


@dataclass(frozen=True)
class RigAugmentation:
    """Random changes of rigs in training.

    Attributes:
        view: of each image, drawn independently.
        jitter: probability of colour jitter, for each image.
        mirror_scene: probability that left and right of the vehicle are exchanged, in camera poses and maps. The images
            stay: a mirrored pose is a reflection, so that rays and scene are mirrored together.
    """

    view: ViewAugmentation = field(default_factory=ViewAugmentation)
    jitter: float = JITTER_PROBABILITY
    mirror_scene: float = 0.5


class RigDataset(SampleDataset[BevSample]):
    """Rigs as model inputs, augmented in training.

    A key is an index, or (epoch, index). Every random number is a function of (seed, epoch, index).

    Args:
        source: the rigs.
        indices: the rigs that are used, in this order.
        size: rows and columns of the images.
        maps: the maps to make.
        augmentation: None: none.
    """

    def __init__(
        self,
        source: RigSource,
        indices: Sequence[int],
        size: tuple[int, int],
        maps: MapSettings,
        augmentation: RigAugmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.source, self.indices, self.size, self.maps = source, indices, size, maps
        self.augmentation, self.seed = augmentation, seed
        self.cameras = [camera.name for camera in source[indices[0]].cameras]

    def __len__(self) -> int:
        return len(self.indices)

    def rig(self, index: int) -> RigSample:
        """The rig of a sample.

        Raises:
            UserError: as the source, or other cameras than in the first rig.
        """
        found = self.source[self.indices[index]]
        names = [camera.name for camera in found.cameras]
        if names != self.cameras:
            raise UserError(
                f"sample {found.token} of {found.scene} has the cameras {', '.join(names)}; the first one has "
                f"{', '.join(self.cameras)}: all rigs of a run must have the same cameras"
            )
        return found

    def __getitem__(self, key: int | tuple[int, int]) -> BevSample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        rng = np.random.default_rng([self.seed, epoch, index])
        sample, augmentation = self.rig(index), self.augmentation
        images, intrinsics, count = [], [], len(sample.cameras)
        for camera in sample.cameras:
            view = (
                plain_view(*camera.size, self.size)
                if augmentation is None
                else draw_view(*camera.size, self.size, augmentation.view, rng)
            )
            images.append(view.apply(read_image(camera.image)).transpose(2, 0, 1))
            intrinsics.append(view.matrix(*camera.size) @ camera.intrinsics)
        to_ego, maps = np.stack([camera.camera_to_ego for camera in sample.cameras]), self.maps.draw(sample)
        if augmentation is not None and rng.random() < augmentation.mirror_scene:
            to_ego, maps = mirrored(to_ego, maps)
        jitter = draw_jitter(rng, 0.0 if augmentation is None else augmentation.jitter, count)
        return BevSample(
            images=torch.from_numpy(np.stack(images)),
            intrinsics=torch.from_numpy(np.stack(intrinsics).astype(np.float32)),
            camera_to_ego=torch.from_numpy(to_ego.astype(np.float32)),
            maps=torch.from_numpy(np.ascontiguousarray(maps)),
            jitter=torch.from_numpy(jitter),
            name=f"{sample.scene} {sample.token}",
        )


def mirrored(camera_to_ego: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exchanges left and right of the vehicle: what lies at y comes to lie at -y.

    Args:
        camera_to_ego: (N, 4, 4).
        maps: (K, X, Y) of a grid that reaches as far to the left as to the right.
    """
    return np.diag([1.0, -1.0, 1.0, 1.0]) @ camera_to_ego, maps[:, :, ::-1]


def to_batch(collated: dict[str, Any], device: torch.device) -> BevBatch:
    """Moves a collated batch to the device, scales its images to [0, 1], and applies the colour jitter there."""
    images = collated["images"].to(device, non_blocking=True).float() / 255
    geometry = (collated[name].to(device, non_blocking=True) for name in ("intrinsics", "camera_to_ego", "maps"))
    intrinsics, camera_to_ego, maps = geometry
    return BevBatch(color_jitter(images, collated["jitter"]), intrinsics, camera_to_ego, maps.float(), collated["name"])
