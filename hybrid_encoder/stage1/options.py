"""The options of stage 1; the defaults are the released run's, images are mirrored besides (METHOD, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config import check_image_size
from ..engine.options import RESUMABLE, TrainingOptions
from ..errors import UserError
from ..options import EncoderOptions, check_at_least, option

FREE_OPTIONS = RESUMABLE | {"out"}
"""Options that may differ when a run resumes."""


@dataclass(frozen=True)
class PretrainOptions(TrainingOptions, EncoderOptions):
    """All options of `hybrid-encoder pretrain`."""

    data: tuple[str, ...] = option(
        (), "tusimple:FOLDER[:LABEL], kitti:FOLDER[:SPLIT], synthetic:[SEED or FOLDER]; may be repeated to mix",
        repeat=True, required=True,
    )  # fmt: skip
    out: Path = option(Path("runs/stage1"), "folder of the run")
    epochs: int = option(20, "epochs")
    batch_size: int = option(6, "images of a step and process")
    lr: float = option(3.57e-4, "peak learning rate of the one-cycle schedule")
    weight_decay: float = option(0.1, "weight decay")
    clip_grad: float = option(0.1, "largest norm of the gradient")
    height: int = option(224, "image height, a multiple of 32")
    width: int = option(224, "image width, a multiple of 32")
    bidirectional: bool = option(
        False, "rank both ways: a patch also fits its prompt better than the patches behind it"
    )
    margin: float = option(0.0, "by how many logits a patch fits its prompt better; above 0 when towers start random")
    region: bool = option(False, "patch features are 32x32-pixel averages in place of single cells")
    contrastive_weight: float = option(1.0, "weight of the ordinal contrastive loss")

    def check(self) -> None:
        """Raises `UserError` for numbers out of range, before any data is read."""
        check_image_size(self.height, self.width)
        self.check_training()
        check_at_least(self, {"lr": 0, "weight_decay": 0, "epochs": 1, "batch_size": 1})
        if not self.clip_grad > 0:
            raise UserError(f"--clip_grad {self.clip_grad}: expected a norm above 0")
