"""The options of `train bev`, `evaluate bev` and `predict bev`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..config import MAX_SIDE, SIZE_MULTIPLE, HybridEncoderConfig, check_image_size
from ..engine.options import DEFAULT_WORKERS, MAX_WORKERS, RESUMABLE, TrainingOptions
from ..errors import UserError
from ..options import HYBRID_ONLY, EncoderOptions, Options, Precision, option

CLASSES = ("vehicle", "road")
"""Classes that a model can predict."""
LIFT_STRIDES = (8, 16)
RANGES = (10.0, 20.0, 30.0, 50.0)
"""Ends of the evaluation's ranges, metres from the vehicle."""
VISIBILITY = (
    "lowest nuScenes visibility bin of a vehicle that counts; 2 leaves out vehicles of which less than 40% is visible"
)
FREE_OPTIONS = RESUMABLE | {"out", "data_path", "weights"}
"""Options that may differ when a run resumes; of data_path and weights, the content is compared, not the path."""


@dataclass(frozen=True)
class RigDataOptions(Options):
    """Which rigs are read."""

    data_path: Path = option(
        Path(), "folder of nuScenes, or what `hybrid-encoder synth --layout nuscenes` wrote", required=True
    )
    version: str | None = option(
        None, "folder of the tables in it, for instance v1.0-mini (default: the only one there)"
    )


@dataclass(frozen=True)
class GridOptions(Options):
    """The classes and cells of the maps."""

    classes: tuple[str, ...] = option(
        CLASSES, "maps to predict: vehicle, road, or both; road needs the data set's ground map"
    )
    extent: float = option(50.0, "metres that the map reaches ahead, behind, left and right", above=0)
    cell: float = option(0.5, "side of a cell, metres", above=0)
    least_visibility: Literal[1, 2, 3, 4] = option(1, VISIBILITY)


@dataclass(frozen=True)
class ViewOptions(Options):
    """How images are augmented in training."""

    scale_range: tuple[float, ...] = option((0.9, 1.1), "smallest and largest factor of an image's scale", above=0)
    turn_degrees: float = option(5.4, "largest rotation of an image about its centre, degrees", at_least=0, at_most=180)
    mirror_probability: float = option(0.5, "probability that an image is mirrored", at_least=0, at_most=1)
    jitter_probability: float = option(0.5, "probability of colour jitter of an image", at_least=0, at_most=1)
    mirror_scene_probability: float = option(
        0.5, "probability that left and right are exchanged in camera poses and maps", at_least=0, at_most=1
    )


@dataclass(frozen=True)
class BevOptions(TrainingOptions, ViewOptions, GridOptions, RigDataOptions, EncoderOptions):
    """All options of `hybrid-encoder train bev`."""

    weights: Path | None = option(
        None,
        "folder of a stage-1 or stage-2 run that the image encoder starts from, or tiny-rendered, which ships with the "
        "package; it also sets the encoder's architecture",
    )
    freeze_encoder: bool = option(False, "do not train the image encoder")
    encoder: Literal["hybrid", "resnet"] | None = option(None, "image encoder (default: hybrid, or that of --weights)")
    preset: str = option("", "paper, released, small, dinov3 or tiny (default: paper, or that of --weights)")
    num_layers: Literal[18, 34, 50, 101, 152] | None = option(
        None, "layers of a ResNet (default: 18, or those of --weights)"
    )
    out: Path = option(Path("runs/bev"), "folder of the run", writes="folder")
    epochs: int = option(20, "epochs", at_least=1)
    batch_size: int = option(4, "rigs per step and process", at_least=1)
    lr: float = option(1e-3, "peak learning rate of the one-cycle schedule", at_least=0)
    encoder_lr: float | None = option(None, "peak learning rate of the image encoder (default: as --lr)", at_least=0)
    weight_decay: float = option(1e-2, "weight decay of everything except the image encoder", at_least=0)
    clip_grad: float = option(5.0, "largest gradient norm; larger gradients are scaled down", above=0)
    vehicle_weight: float = option(2.13, "weight of a vehicle's cell in the loss, relative to an empty cell", above=0)
    height: int = option(128, "image height, a multiple of 32", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
    width: int = option(352, "image width, a multiple of 32", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
    stride: Literal[8, 16] = option(16, "stride of the map that is lifted")
    near: float = option(4.0, "nearest depth of a lifted pixel, metres", above=0)
    far: float = option(45.0, "farthest depth, metres", above=0)
    bins: int = option(42, "number of depths, evenly spaced", at_least=2, at_most=1024)
    channels: int = option(64, "channels of the features that are lifted", at_least=1, at_most=1024)
    bev_channels: int = option(
        64, "channels of the BEV decoder at half the grid's resolution", at_least=1, at_most=1024
    )
    train_samples: int | None = option(
        None, "train on only this many samples, evenly spaced in the training part (default: all)", at_least=1
    )
    val_samples: int | None = option(
        None, "validate on only this many samples, evenly spaced (default: all)", at_least=1
    )

    def config(self) -> HybridEncoderConfig:
        """The config of the hybrid encoder, for runs without --weights.

        Raises:
            UserError: unknown preset or field, or a value of the wrong type.
        """
        return super().config() if self.preset else replace(self, preset="paper").config()

    def check(self) -> None:
        """Raises `UserError` for options that contradict each other, before any data is read."""
        self.check_training()
        check_image_size(self.height, self.width)
        check_classes(self.classes)
        if not self.near < self.far:
            raise UserError(f"--near {self.near} --far {self.far}: expected 0 < near < far")
        if len(self.scale_range) != 2 or self.scale_range[0] > self.scale_range[1]:
            raise UserError(f"--scale_range {' '.join(map(str, self.scale_range))}: expected two factors, ascending")
        if self.freeze_encoder and self.encoder_lr is not None:
            raise UserError("--freeze_encoder trains no encoder: leave out --encoder_lr")
        if self.weights is not None:
            self._refuse(("encoder", "preset", "num_layers", *HYBRID_ONLY), "--weights says what the encoder is")
        elif self.encoder == "resnet":
            self._refuse(("preset", *HYBRID_ONLY), "a ResNet has no such option")
        else:
            self._refuse(("num_layers",), "only --encoder resnet has such an option")

    def _refuse(self, names: tuple[str, ...], reason: str) -> None:
        for name in names:
            if getattr(self, name):
                raise UserError(f"{reason}: leave out --{name}")


@dataclass(frozen=True)
class BevModelOptions(RigDataOptions):
    """A trained BEV model, its input rigs, and the device."""

    weights: Path = option(Path(), "folder of a run of `train bev`, or a file of weights in it", required=True)
    part: Literal["val", "train"] = option("val", "the part whose scenes are read")
    samples: int | None = option(None, "read only this many samples, evenly spaced (default: all)", at_least=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    precision: Precision = option("float32", "bf16: mixed precision")


@dataclass(frozen=True)
class BevEvaluateOptions(BevModelOptions):
    """All options of `hybrid-encoder evaluate bev`."""

    ranges: tuple[float, ...] = option(RANGES, "ends of the ranges of distances from the vehicle, metres", above=0)
    least_visibility: Literal[1, 2, 3, 4] = option(1, VISIBILITY)
    batch_size: int = option(4, "rigs per forward pass", at_least=1)
    num_workers: int = option(DEFAULT_WORKERS, "processes that load data", at_least=0, at_most=MAX_WORKERS)

    def check(self) -> None:
        """Raises `UserError` for ranges that do not ascend."""
        if list(self.ranges) != sorted(set(self.ranges)):
            raise UserError(f"--ranges {' '.join(f'{end:g}' for end in self.ranges)}: expected ascending distances")


@dataclass(frozen=True)
class BevPredictOptions(BevModelOptions):
    """All options of `hybrid-encoder predict bev`."""

    out: Path = option(Path("bev"), "folder of the pictures", writes="folder")


def check_classes(classes: tuple[str, ...]) -> None:
    """Raises `UserError` for an unknown class, for one that stands twice, and for none."""
    if not classes or not set(classes) <= set(CLASSES) or len(set(classes)) < len(classes):
        raise UserError(f"classes {' '.join(map(str, classes))}: expected {' '.join(CLASSES)}, or one of them")
