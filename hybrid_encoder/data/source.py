"""From frames to batches: what a source of frames offers, the samples made of it, their order, and the loader.

Every random draw is a function of (seed, epoch, index) alone, so a run that stops and goes on sees what it would have
seen.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from threading import Thread
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import UserError
from .images import resize_image
from .sample import FrameId, Sample

STEREO_BASELINE = 0.1
"""Length of the stereo baseline in `stereo_T`; depth learnt with it is in units of 5.4 m on KITTI (Monodepth2)."""
JITTER_PROBABILITY = 0.5
JITTER_FACTORS = (0.8, 1.2)
JITTER_HUE = 0.1
WORKER_TIMEOUT = 600
"""Seconds without a batch after which a worker process counts as hung."""
Key = int | tuple[int, int]


class FrameSource(Protocol):
    """Frames with neighbours: KITTI, a video, rendered scenes."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Names the frame in messages."""
        ...

    def read(self, index: int, frame_id: FrameId) -> np.ndarray:
        """uint8 RGB (h, w, 3); UserError with the file's name if it is missing, unreadable or cut off."""
        ...

    def intrinsics(self, index: int) -> np.ndarray:
        """(3, 3) float32, in pixels of the image that `read` returns."""
        ...

    def stereo_sign(self, index: int) -> int:
        """-1 for a left camera (the other one lies at +x, so points move to -x), +1 for a right one."""
        ...


def draw_jitter(rng: np.random.Generator) -> np.ndarray:
    """float32 (4,) for `color_jitter`: brightness, contrast, saturation, hue; every other time (1, 1, 1, 0), none."""
    if rng.random() >= JITTER_PROBABILITY:
        return np.array([1, 1, 1, 0], dtype=np.float32)
    return np.append(rng.uniform(*JITTER_FACTORS, size=3), rng.uniform(-JITTER_HUE, JITTER_HUE)).astype(np.float32)


class SelfSupervisedDataset(Dataset[Sample]):
    """Samples of a target frame and its neighbours, resized, and in training flipped and given colour jitter to apply.

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
    ) -> None:
        """
        Args:
            height, width: of the samples' frames.
            frame_ids: 0 first, then the others in the order that `Sample.frames` has.
            train: whether to flip and to draw jitter.
            crop_bottom: part of the source image's height cut off below, before resizing (a bonnet, for instance).

        Raises:
            UserError: values out of range.
        """
        if not frame_ids or frame_ids[0] != 0 or len(set(frame_ids)) != len(frame_ids):
            raise UserError(f"frame_ids {list(frame_ids)}: expected 0 first, then other frames, each once: 0 -1 1")
        if not 0 <= crop_bottom <= 0.9:
            raise UserError(f"crop_bottom {crop_bottom}: expected a part of the height, from 0 to 0.9 (0.07 cuts 7%)")
        if min(height, width) < 1 or seed < 0:
            raise UserError(
                f"height {height}, width {width}, seed {seed}: expected a positive size and a seed of 0 or more"
            )
        self.source, self.height, self.width, self.frame_ids = source, height, width, tuple(frame_ids)
        self.train, self.seed, self.crop_bottom = train, seed, crop_bottom

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        rng = np.random.default_rng([self.seed, epoch, index])
        flip = self.train and rng.random() < 0.5
        jitter = draw_jitter(rng) if self.train else np.array([1, 1, 1, 0], dtype=np.float32)
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
            image = resize_image(image[: self._kept_rows(size[0])], self.height, self.width)
            frames[i] = (image[:, ::-1] if flip else image).transpose(2, 0, 1)
        assert size is not None
        K = self.source.intrinsics(index) * np.array(
            [[self.width / size[1]], [self.height / self._kept_rows(size[0])], [1]]
        )
        if flip:
            K[0, 2] = self.width - 1 - K[0, 2]
        return Sample(
            frames=torch.from_numpy(frames),
            K=torch.from_numpy(K.astype(np.float32)),
            jitter=torch.from_numpy(jitter),
            stereo_T=self._stereo_transform(index, flip),
            name=self.source.name(index),
        )

    def _kept_rows(self, height: int) -> int:
        return max(1, round(height * (1 - self.crop_bottom)))

    def _stereo_transform(self, index: int, flip: bool) -> torch.Tensor:
        transform = torch.eye(4)
        if "s" in self.frame_ids:
            transform[0, 3] = self.source.stereo_sign(index) * (-1 if flip else 1) * STEREO_BASELINE
        return transform


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) keys: this process's share of an epoch's order, which is a function of (seed, epoch).

    Processes take turns in one order, so that together they see the batches that one process with a batch as many times
    as large sees. In training (`shuffle`) each gets equally many, and a rest of less than one each is left out;
    without, every index comes exactly once.
    """

    def __init__(self, length: int, shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        """
        Raises:
            UserError: fewer samples than processes.
        """
        if length < world_size:
            raise UserError(f"{length} samples are too few for {world_size} processes: start fewer processes")
        self.length, self.shuffle, self.seed, self.rank, self.world_size = length, shuffle, seed, rank, world_size
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and how many samples of this process's share in it to pass over: those seen already."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """How many keys are left from `start` on."""
        return max(0, self._share() - self.start)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.length)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        mine = order[self.rank :: self.world_size][self.start : self._share()]
        return iter([(self.epoch, index) for index in mine.tolist()])

    def _share(self) -> int:
        left_over = 0 if self.shuffle else self.world_size - 1 - self.rank
        return (self.length + left_over) // self.world_size


class SampleLoader(DataLoader[Any]):
    """A DataLoader whose workers' errors reach the user as they were raised, without the workers' tracebacks."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except UserError as error:
                raise UserError(_own_message(str(error))) from error
            except RuntimeError as error:
                if not str(error).startswith("DataLoader"):
                    raise
                for worker in getattr(batches, "_workers", []):
                    worker.kill()  # one that hangs would keep the whole run from ending
                raise UserError(
                    f"loading data failed: {error}. A worker process was killed (memory full?) or "
                    "hangs (data disk gone?); "
                    "--num_workers 0 loads in the main process, where an error shows itself"
                ) from error
            yield batch


def make_loader(
    dataset: Dataset[Any],
    batch_size: int,
    train: bool,
    num_workers: int = 0,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> SampleLoader:
    """Batches of a dataset that takes (epoch, index) keys, this process's share of them.

    `loader.sampler` is an `EpochSampler`. In training the order changes with the epoch and an incomplete last batch is
    left out; else the order is the dataset's and every sample comes once. Takes no number from the global random state.

    Args:
        batch_size: of this process.
        num_workers: processes that load ahead; 0 loads in this one.

    Raises:
        UserError: sizes out of range.
    """
    if batch_size < 1 or num_workers < 0:
        raise UserError(f"batch_size {batch_size}, num_workers {num_workers}: expected at least 1 and at least 0")
    sampler = EpochSampler(len(dataset), train, seed, rank, world_size)  # type: ignore[arg-type]
    ahead: dict[str, Any] = {"persistent_workers": True, "timeout": WORKER_TIMEOUT} if num_workers else {}
    return SampleLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=num_workers,
        drop_last=train,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=collate_fn,
        **ahead,
    )


def _start_worker(_: int) -> None:
    """One thread a worker, and a stop only when the main process says so.

    Ctrl-C, and the SIGTERM of a scheduler, go to every process of a job. They are the main process's to answer: it
    finishes its step and saves, for which it needs its workers.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    main = multiprocessing.parent_process()
    while main is not None and signal.sigwaitinfo({signal.SIGTERM}).si_pid != main.pid:
        pass
    os._exit(0)


def _own_message(text: str) -> str:
    """The message of a UserError from within a worker's report, which is its traceback."""
    parts = re.split(rf"^{re.escape(UserError.__module__)}\.{UserError.__name__}: ", text, flags=re.MULTILINE)
    return parts[-1].rstrip("\n")
