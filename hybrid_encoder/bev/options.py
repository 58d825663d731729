"""The options of `train bev`, `evaluate bev` and `predict bev`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..config import MAX_SIDE, SIZE_MULTIPLE, HybridEncoderConfig, check_image_size
from ..engine.options import MAX_WORKERS, RESUMABLE, TrainingOptions
from ..errors import UserError
from ..options import HYBRID_ONLY, EncoderOptions, Options, option

CLASSES = ("vehicle", "road")
"""What a model can draw."""
LIFT_STRIDES = (8, 16)
RANGES = (10.0, 20.0, 30.0, 50.0)
"""Metres from the vehicle that end a range of the evaluation."""
VISIBILITY = "nuScenes' bin of visibility from which on a vehicle counts; 2 leaves out those seen to less than 40%"
FREE_OPTIONS = RESUMABLE | {"out", "data_path", "weights"}
"""Options that may differ when a run resumes; of the last two the content is compared, not the path."""


@dataclass(frozen=True)
class RigDataOptions(Options):
    """Which rigs are read."""

    data_path: Path = option(
        Path(), "folder of nuScenes, or of `hybrid-encoder synth --layout nuscenes`", required=True
    )
    version: str | None = option(
        None, "folder of the tables within it, for instance v1.0-mini (default: the only one there)"
    )


@dataclass(frozen=True)
class GridOptions(Options):
    """What is drawn, and on which cells."""

    classes: tuple[str, ...] = option(CLASSES, "maps to draw: vehicle, road, or both; road needs a map of the ground")
    extent: float = option(50.0, "metres that the map reaches in front, behind and to either side", above=0)
    cell: float = option(0.5, "metres of a cell's side", above=0)
    least_visibility: Literal[1, 2, 3, 4] = option(1, VISIBILITY)


@dataclass(frozen=True)
class ViewOptions(Options):
    """How images are augmented in training."""

    scale_range: tuple[float, ...] = option((0.9, 1.1), "least and largest factor on the images' scale", above=0)
    turn_degrees: float = option(5.4, "largest turn of an image about its middle", at_least=0, at_most=180)
    mirror_probability: float = option(0.5, "how likely an image is mirrored", at_least=0, at_most=1)
    jitter_probability: float = option(0.5, "how likely an image's colours are changed", at_least=0, at_most=1)
    mirror_scene_probability: float = option(
        0.5, "how likely the vehicle's left and right are exchanged, in cameras and maps", at_least=0, at_most=1
    )


@dataclass(frozen=True)
class BevOptions(TrainingOptions, ViewOptions, GridOptions, RigDataOptions, EncoderOptions):
    """All options of `hybrid-encoder train bev`."""

    weights: Path | None = option(
        None, "start the image encoder from the folder of a stage-1 or stage-2 run, which says what encoder it is"
    )
    freeze_encoder: bool = option(False, "the image encoder stays as it starts")
    encoder: Literal["hybrid", "resnet"] | None = option(None, "image encoder (default: hybrid, or that of --weights)")
    preset: str = option("", "paper, released, small, dinov3 or tiny (default: paper, or that of --weights)")
    num_layers: Literal[18, 34, 50, 101, 152] | None = option(
        None, "layers of a ResNet (default: 18, or those of --weights)"
    )
    out: Path = option(Path("runs/bev"), "folder of the run", writes="folder")
    epochs: int = option(20, "epochs", at_least=1)
    batch_size: int = option(4, "rigs of a step and process", at_least=1)
    lr: float = option(1e-3, "peak learning rate of the one-cycle schedule", at_least=0)
    encoder_lr: float | None = option(None, "that of the image encoder, where it differs", at_least=0)
    weight_decay: float = option(1e-2, "weight decay of all but the image encoder", at_least=0)
    clip_grad: float = option(5.0, "largest norm of the gradient", above=0)
    vehicle_weight: float = option(2.13, "how much more a vehicle's cell counts in the loss than an empty one", above=0)
    height: int = option(128, "image height, a multiple of 32", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
    width: int = option(352, "image width, a multiple of 32", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
    stride: Literal[8, 16] = option(16, "pixels of the image, a side, that are lifted as one")
    near: float = option(4.0, "nearest depth that pixels are lifted to, metres", above=0)
    far: float = option(45.0, "farthest depth", above=0)
    bins: int = option(42, "number of depths, evenly spaced", at_least=2, at_most=1024)
    channels: int = option(64, "channels of the features that are lifted", at_least=1, at_most=1024)
    bev_channels: int = option(64, "channels of the BEV decoder at half the grid", at_least=1, at_most=1024)
    train_samples: int | None = option(None, "train on so many samples, evenly spaced in the training part", at_least=1)
    val_samples: int | None = option(None, "validate on so many samples, evenly spaced", at_least=1)

    def config(self) -> HybridEncoderConfig:
        """The hybrid encoder of these options, where there are no --weights.

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
    """A trained BEV model, the rigs that it looks at, and where it runs."""

    weights: Path = option(Path(), "folder of a run of `train bev`, or a file of weights in it", required=True)
    part: Literal["val", "train"] = option("val", "which scenes")
    samples: int | None = option(None, "look at so many samples, evenly spaced", at_least=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    precision: Literal["float32", "bf16"] = option("float32", "bf16: mixed precision")


@dataclass(frozen=True)
class BevEvaluateOptions(BevModelOptions):
    """All options of `hybrid-encoder evaluate bev`."""

    ranges: tuple[float, ...] = option(
        RANGES, "metres from the vehicle where a range of distances ends and the next one begins", above=0
    )
    least_visibility: Literal[1, 2, 3, 4] = option(1, VISIBILITY)
    batch_size: int = option(4, "rigs at a time", at_least=1)
    num_workers: int = option(4, "processes that load data", at_least=0, at_most=MAX_WORKERS)

    def check(self) -> None:
        """Raises `UserError` for ranges that do not ascend."""
        if list(self.ranges) != sorted(set(self.ranges)):
            raise UserError(f"--ranges {' '.join(f'{end:g}' for end in self.ranges)}: expected ascending distances")


@dataclass(frozen=True)
class BevPredictOptions(BevModelOptions):
    """All options of `hybrid-encoder predict bev`."""

    out: Path = option(Path("bev"), "folder of the pictures", writes="folder")


def check_classes(classes: tuple[str, ...]) -> None:
    """Raises `UserError` for classes that do not exist, for one that comes twice, and for none."""
    if not classes or not set(classes) <= set(CLASSES) or len(set(classes)) < len(classes):
        raise UserError(f"classes {' '.join(map(str, classes))}: expected {' '.join(CLASSES)}, or one of them")
