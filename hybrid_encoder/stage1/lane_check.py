"""Checks how well stage 1 orders points on the lanes of rendered streets that were not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import SEED_OFFSETS
from ..model.closeness import distance_score
from ..model.encoder import HybridEncoder
from ..synthetic.sequence import SEED_STRIDE, iterate_frames
from ..synthetic.tusimple import FIRST_CLIP, clip_camera, label_lanes, label_rows
from .checkpoint import open_stage1
from .dataset import Stage1Batch, Stage1Dataset, collate, to_batch
from .metrics import pairwise_accuracy
from .model import Stage1Model, stage1_config
from .options import PretrainOptions
from .picture import closeness_picture
from .sequences import lane_points

IMAGES = 12
"""Streets that are checked."""
PICTURES = 2


@dataclass(frozen=True)
class LaneCheck:
    """The result of `check_lanes`.

    Attributes:
        before, after: share of a lane's pairs of points in the right order, by an encoder of random numbers and by that
            of stage 1.
        pictures: uint8 RGB, as `closeness_picture` draws them.
    """

    before: float
    after: float
    pictures: list[np.ndarray]


class RenderedLanes:
    """Views of rendered streets with their painted lanes, seven points each, as TuSimple labels them."""

    def __init__(self, seed: int, count: int, height: int, width: int) -> None:
        self.views: list[tuple[np.ndarray, np.ndarray]] = []
        camera, rows = clip_camera(height, width), label_rows(height)
        street = seed * SEED_STRIDE + FIRST_CLIP
        while len(self.views) < count:
            view = next(iterate_frames(street, 1, camera, dead_end=False))
            labels = np.array(label_lanes(view.lanes, rows), dtype=float).tolist()
            lanes = [points for lane in labels if (points := lane_points(lane, list(map(float, rows)))) is not None]
            if lanes:  # a street whose lines are hidden is left out
                self.views.append((view.image.permute(1, 2, 0).numpy(), np.stack(lanes)))
            street += 1

    def __len__(self) -> int:
        return len(self.views)

    def name(self, index: int) -> str:
        """Names the image in messages."""
        return f"rendered lanes {index}"

    def read(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The image, and points (S, 7, 2); nothing is drawn."""
        return self.views[index]


def check_lanes(stage1: Path, size: tuple[int, int], seed: int) -> LaneCheck:
    """Compares an encoder of stage 1 with one of random numbers, on streets of the test part.

    Args:
        stage1: `stage1.pth` of this package.
        size: height and width of the images that encoders see; they are rendered twice as large.
        seed: of the scenes, and of the encoder of random numbers.

    Raises:
        UserError: as `open_stage1`.
    """
    source = RenderedLanes(seed + SEED_OFFSETS["test"], IMAGES, 2 * size[0], 2 * size[1])
    dataset = Stage1Dataset(source, *size, train=False)
    batches = [to_batch(collate([dataset[index]]), torch.device("cpu")) for index in range(len(dataset))]
    trained = open_stage1(stage1)
    torch.manual_seed(seed)
    untrained = HybridEncoder(stage1_config(trained.config)).eval()
    after, before = (Stage1Model(encoder, PretrainOptions(data=("-",))).eval() for encoder in (trained, untrained))
    pictures = [_picture(after, batch) for batch in batches[:PICTURES]]
    return LaneCheck(_accuracy(before, batches), _accuracy(after, batches), pictures)


@torch.no_grad()
def _accuracy(model: Stage1Model, batches: list[Stage1Batch]) -> float:
    return float(torch.cat([pairwise_accuracy(_scores(model, batch)) for batch in batches]).mean())


def _scores(model: Stage1Model, batch: Stage1Batch) -> Tensor:
    """(N, 7), how distant each point appears."""
    return distance_score(model.logits(batch)[1], model.options.bidirectional)


@torch.no_grad()
def _picture(model: Stage1Model, batch: Stage1Batch) -> np.ndarray:
    image = (batch.images[0].permute(1, 2, 0) * 255).round().byte().numpy()
    scores, cells = _scores(model, batch).numpy(), model.encoder.closeness(batch.images, ranking="one_way")[0].numpy()
    return closeness_picture(image, cells, batch.points.numpy(), scores)
