"""The options of stage 1. `commands/recipes.py` has the values of the released code; docs/METHOD.md, section 7, says
why some defaults differ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import MAX_SIDE, SIZE_MULTIPLE
from ..engine.options import RESUMABLE, RecipeOptions, TrainingOptions
from ..options import EncoderOptions, option

PointScale = Literal["axes", "height"]
FREE_OPTIONS = RESUMABLE | {"out"}
"""Options that may differ when a run resumes."""


@dataclass(frozen=True)
class PretrainOptions(RecipeOptions, TrainingOptions, EncoderOptions):
    """All options of `hybrid-encoder pretrain`."""

    data: tuple[str, ...] = option(
        (), "tusimple:FOLDER[:LABEL], kitti:FOLDER[:SPLIT], depth:IMAGES:DEPTHS:KIND (metric, relative or inverse), "
        "synthetic:[SEED or FOLDER]; may be repeated to mix",
        repeat=True, required=True,
    )  # fmt: skip
    mix_ratio: float | None = option(
        None, "share of images that are ordered by depth, the rest by lanes; without it, each image comes once",
        at_least=0.01, at_most=0.99,
    )  # fmt: skip
    out: Path = option(Path("runs/stage1"), "folder of the run", writes="folder")
    epochs: int = option(20, "epochs", at_least=1)
    batch_size: int = option(6, "images of a step and process", at_least=1)
    lr: float = option(3.57e-4, "peak learning rate of the one-cycle schedule", at_least=0)
    weight_decay: float = option(0.1, "weight decay", at_least=0)
    clip_grad: float = option(0.1, "largest norm of the gradient", above=0)
    height: int = option(
        224, "image height, a multiple of 32 or of the side of DINO's patches", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE
    )
    width: int = option(
        224, "image width, likewise: 392 keeps TuSimple's proportions", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE
    )
    train_on: Literal["train", "all"] = option(
        "train", "all: images of the validation part train, too, so that its metrics are of images that were seen"
    )
    sampling: Literal["each_once", "released"] = option(
        "each_once",
        "an epoch: every image once; released: (N + 23158) / 6 images drawn at random from the N that there are",
    )
    mirror_probability: float = option(0.5, "how likely an image is mirrored", at_least=0, at_most=1)
    jitter_probability: float = option(0.5, "how likely an image's colours are changed", at_least=0, at_most=1)
    point_scale: PointScale = option(
        "axes", "points are resized as the image is; height: x by the factor of y, as in the released code"
    )
    bidirectional: bool = option(False, "rank both ways: a patch also fits its prompt better than the patches after it")
    ranking_mean: Literal["sequences", "images"] = option(
        "sequences", "divide the ranking loss by the number of sequences, or of images as in the released code"
    )
    word_norm: Literal["prompt", "matrix"] = option(
        "prompt",
        "text features have length 1; matrix: are divided by the norm of all seven, too, as in the released code",
    )
    margin: float = option(
        0.0, "by how many logits a patch fits its prompt better; above 0 when towers start random", at_least=0
    )
    region: bool = option(False, "patch features are 32x32-pixel averages in place of single cells")
    contrastive_weight: float = option(1.0, "weight of the ordinal contrastive loss", at_least=0)

    def check(self) -> None:
        """Raises `UserError` for options that contradict each other, before any data is read."""
        self.check_training()
