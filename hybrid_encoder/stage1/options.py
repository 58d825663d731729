"""The options of stage 1. The defaults are those of the released run, and images are also mirrored (docs/METHOD.md,
section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import MAX_SIDE, SIZE_MULTIPLE, check_image_size
from ..engine.options import RESUMABLE, TrainingOptions
from ..options import EncoderOptions, option

FREE_OPTIONS = RESUMABLE | {"out"}
"""Options that may differ when a run resumes."""


@dataclass(frozen=True)
class PretrainOptions(TrainingOptions, EncoderOptions):
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
    height: int = option(224, "image height, a multiple of 32", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
    width: int = option(224, "image width, a multiple of 32", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
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
        check_image_size(self.height, self.width)
        self.check_training()
