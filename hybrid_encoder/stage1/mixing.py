"""Joins several sources of ordered points, and says how often each image occurs in an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from .lanes import TuSimpleSource
from .sequences import OrderedPatchSource


class MixedSource:
    """Several sources as one: their images one after the other.

    Args:
        mix_ratio: share of the images that are ordered by depth; the others are ordered by lanes. None: every image
            occurs once.

    Raises:
        UserError: `mix_ratio` where all sources are lanes, or none is.
    """

    def __init__(self, sources: Sequence[OrderedPatchSource], mix_ratio: float | None = None) -> None:
        self.sources = list(sources)
        self.ends = np.cumsum([len(source) for source in sources])
        self.order = np.arange(self.ends[-1])
        if mix_ratio is not None:
            of_lanes = np.repeat([isinstance(source, TuSimpleSource) for source in sources], [*map(len, sources)])
            if of_lanes.all() or not of_lanes.any():
                missing = "depth: kitti:, synthetic: or depth:" if of_lanes.all() else "lanes: tusimple:FOLDER"
                raise UserError(f"--mix_ratio {mix_ratio}: there is nothing to mix, add --data of {missing}")
            self.order = mixed_order(self.order[of_lanes], self.order[~of_lanes], mix_ratio)

    def __len__(self) -> int:
        return len(self.order)

    def _locate(self, index: int) -> tuple[OrderedPatchSource, int]:
        index = int(self.order[index])
        which = int(np.searchsorted(self.ends, index, side="right"))
        return self.sources[which], index - int(self.ends[which - 1] if which else 0)

    def name(self, index: int) -> str:
        source, inner = self._locate(index)
        return source.name(inner)

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        source, inner = self._locate(index)
        return source.read(inner, rng)


def mixed_order(lanes: np.ndarray, others: np.ndarray, share: float) -> np.ndarray:
    """The images of an epoch: each at least once; one of the groups is repeated until `others` have their share.

    >>> mixed_order(np.arange(4), np.arange(4, 6), 0.5).tolist()
    [0, 1, 2, 3, 4, 5, 4, 5]

    Args:
        lanes, others: (n,) and (m,) numbers of images, at least one each.
        share: the share of `others` in the epoch, between 0 and 1.
    """
    total = max(len(lanes) / (1 - share), len(others) / share)
    counts = (max(round(total * (1 - share)), len(lanes)), max(round(total * share), len(others)))
    return np.concatenate([np.resize(group, count) for group, count in zip((lanes, others), counts, strict=True)])
