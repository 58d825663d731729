"""Makes samples from frames: the protocol of a source of frames, and the data set that reads it.

Every random draw is a function of (seed, epoch, index) alone, so that a run that resumes sees the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from ..config import Resize
from ..errors import UserError
from ..images import check_crop_bottom, cut_bottom, kept_rows, resize_image
from .loader import SampleDataset
from .sample import FrameId, Sample

STEREO_BASELINE = 0.1
"""Length of the stereo baseline in `stereo_T`; with it, KITTI's unit of depth is 5.4 m (Monodepth2)."""
JITTER_PROBABILITY = 0.5
JITTER_FACTORS = (0.8, 1.2)
JITTER_HUE = 0.1
Key = int | tuple[int, int]


class FrameSource(Protocol):
    """Frames with neighbours: KITTI, a video, rendered scenes."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Names the frame in messages."""
        ...

    def read(self, index: int, frame_id: FrameId) -> np.ndarray:
        """uint8 RGB (h, w, 3); UserError with the file's name if it is missing, unreadable or truncated."""
        ...

    def intrinsics(self, index: int) -> np.ndarray:
        """(3, 3) float32, in pixels of the image that `read` returns."""
        ...

    def stereo_sign(self, index: int) -> int:
        """-1 for a left camera (the other one lies at +x, so points move to -x), +1 for a right one."""
        ...


def draw_jitter(
    rng: np.random.Generator, probability: float = JITTER_PROBABILITY, frames: int | None = None
) -> np.ndarray:
    """Draws brightness, contrast, saturation and hue for `color_jitter`, or (1, 1, 1, 0): no change.

    Args:
        probability: that colours change.
        frames: number of frames that get numbers of their own; None: the same numbers are for all frames.

    Returns:
        float32 (4,), or (frames, 4).
    """
    if rng.random() >= probability:
        drawn = np.tile(np.array([1, 1, 1, 0]), (frames or 1, 1))
    else:
        shape = (frames or 1, 3)
        factors, hue = rng.uniform(*JITTER_FACTORS, shape), rng.uniform(-JITTER_HUE, JITTER_HUE, (frames or 1, 1))
        drawn = np.concatenate([factors, hue], axis=1)
    return (drawn if frames else drawn[0]).astype(np.float32)


@dataclass(frozen=True)
class SampleSettings:
    """How frames become a sample; the defaults are those of the trainers.

    Attributes:
        resize: how frames are resized to the samples' size.
        jitter: "sample": one change of colours for all frames; "frame": one for each frame.
        K: (3, 3), the first row as a share of the frames' width, the second of their height; also used for mirrored
            frames. None: the source's intrinsics.
    """

    resize: Resize = "area"
    jitter: Literal["sample", "frame"] = "sample"
    K: np.ndarray | None = None


class SelfSupervisedDataset(SampleDataset[Sample]):
    """Samples of a target frame and its neighbours, resized; in training also mirrored, with colour jitter to apply.

    A key is an index, or (epoch, index) as `EpochSampler` yields them.
    """

    def __init__(
        self,
        source: FrameSource,
        height: int,
        width: int,
        frame_ids: Sequence[FrameId],
        train: bool,
        seed: int = 0,
        crop_bottom: float = 0.0,
        settings: SampleSettings | None = None,
    ) -> None:
        """
        Args:
            height, width: of the samples' frames.
            frame_ids: 0 first, then the others in the order of `Sample.frames`.
            train: whether to mirror frames and to draw jitter.
            crop_bottom: share of the source image's height that is cut off at the bottom before resizing, for instance
                a bonnet.
            settings: None: the defaults.

        Raises:
            UserError: values out of range.
        """
        if not frame_ids or frame_ids[0] != 0 or len(set(frame_ids)) != len(frame_ids):
            raise UserError(f"frame_ids {list(frame_ids)}: expected 0 first, then other frames, each once: 0 -1 1")
        check_crop_bottom(crop_bottom)
        if min(height, width) < 1 or seed < 0:
            raise UserError(
                f"height {height}, width {width}, seed {seed}: expected a positive size and a seed of 0 or more"
            )
        self.source, self.height, self.width, self.frame_ids = source, height, width, tuple(frame_ids)
        self.train, self.seed, self.crop_bottom = train, seed, crop_bottom
        self.settings = settings or SampleSettings()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        rng = np.random.default_rng([self.seed, epoch, index])
        flip = self.train and rng.random() < 0.5
        own = len(self.frame_ids) if self.settings.jitter == "frame" else None
        jitter = draw_jitter(rng, JITTER_PROBABILITY if self.train else 0.0, own)
        frames = np.empty((len(self.frame_ids), 3, self.height, self.width), dtype=np.uint8)
        size: tuple[int, ...] | None = None
        for i, frame_id in enumerate(self.frame_ids):
            image = self.source.read(index, frame_id)
            size = size or image.shape[:2]
            if image.shape[:2] != size:
                raise UserError(
                    f"{self.source.name(index)}: frame {frame_id} is "
                    f"{image.shape[1]}x{image.shape[0]}, the frame itself "
                    f"{size[1]}x{size[0]}: all frames of a sequence must have one size"
                )
            image = cut_bottom(image, self.crop_bottom)
            image = resize_image(image, self.height, self.width, self.settings.resize)
            frames[i] = (image[:, ::-1] if flip else image).transpose(2, 0, 1)
        assert size is not None
        return Sample(
            frames=torch.from_numpy(frames),
            K=torch.from_numpy(self._intrinsics(index, size, flip).astype(np.float32)),
            jitter=torch.from_numpy(jitter),
            stereo_T=self._stereo_transform(index, flip),
            name=self.source.name(index),
        )

    def _intrinsics(self, index: int, size: tuple[int, ...], flip: bool) -> np.ndarray:
        """(3, 3) in pixels of a sample's frames; `size` is that of the image that was read."""
        if self.settings.K is not None:
            return self.settings.K * np.array([[self.width], [self.height], [1]])
        kept = kept_rows(size[0], self.crop_bottom)
        K = self.source.intrinsics(index) * np.array([[self.width / size[1]], [self.height / kept], [1]])
        if flip:
            K[0, 2] = self.width - 1 - K[0, 2]
        return K

    def _stereo_transform(self, index: int, flip: bool) -> torch.Tensor:
        transform = torch.eye(4)
        if "s" in self.frame_ids:
            transform[0, 3] = self.source.stereo_sign(index) * (-1 if flip else 1) * STEREO_BASELINE
        return transform
