"""The options of stage 1; the defaults are the released run's (METHOD, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import check_image_size
from ..errors import UserError
from ..options import EncoderOptions, check_at_least, option

FREE_OPTIONS = frozenset(
    {"out", "device", "num_workers", "log_frequency", "save_minutes", "resume", "max_bad_steps", "skip_bad"}
)
"""Options that may differ when a run goes on: they do not change what it computes, or may be changed on the way."""


@dataclass(frozen=True)
class PretrainOptions(EncoderOptions):
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
    num_workers: int = option(4, "processes that load data")
    precision: Literal["float32", "bf16"] = option("float32", "bf16: mixed precision")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    log_frequency: int = option(20, "steps between two logged ones")
    seed: int = option(0, "seed of weights, order and augmentation")
    resume: bool = option(False, "go on with the run in --out; so does the same command without it")
    save_minutes: float = option(30.0, "minutes after which a run's state is saved within an epoch, too")
    max_bad_steps: int = option(10, "steps with a non-finite loss that are skipped before the run stops")
    skip_bad: int = option(0, "unreadable images that every process passes over before the run stops")

    def check(self) -> None:
        """Raises `UserError` for numbers out of range, before any data is read."""
        check_image_size(self.height, self.width)
        least = {"num_workers": 0, "max_bad_steps": 0, "skip_bad": 0, "seed": 0, "lr": 0, "weight_decay": 0}
        check_at_least(self, {**least, "epochs": 1, "batch_size": 1, "log_frequency": 1})
        if not self.clip_grad > 0:
            raise UserError(f"--clip_grad {self.clip_grad}: expected a norm above 0")
