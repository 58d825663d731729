"""The plan of a fit: frames, camera, initial weights, options of training, and how long training takes."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import SIZE_MULTIPLE
from ..data.calibration import Intrinsics, intrinsics_text, read_intrinsics
from ..data.video import video_info
from ..data.video_source import VideoSource
from ..engine.processes import Processes
from ..errors import UserError
from ..images import read_image
from ..metric.camera import intrinsics_of_view
from ..model.depth_model import DepthModel
from ..model.nets import DepthNets
from ..prediction.inputs import InputFile, find_inputs
from ..stage2.camera import CAMERA_FILE
from ..stage2.checkpoint import load_depth_model, weights_folder
from ..stage2.frames import open_source
from ..stage2.options import Monodepth2Options
from ..stage2.training import build_model, build_optimizer
from ..weights.in_package import shipped_folder
from ..writing import write_text, write_torch
from .convert import open_depth_model, trainer_files
from .measuring import frames_in_memory, median_seconds, training_step
from .options import FitOptions
from .whole_run import untrained

NO_WEIGHTS = "none"
GUESSED_FOV = 60.0
"""Initial horizontal field of view in degrees when the focal length is learnt."""
_PIXELS = 96 * 320
"""Pixels of the nets' images if they start from random weights."""
_STEPS = 600
_MOST_EPOCHS = 60
_ONLY_THE_LAST = 1_000_000
"""Epochs between saved ones: so many that only the best and the last are saved."""


@dataclass(frozen=True)
class Start:
    """The initial depth net.

    Attributes:
        nets: the options that build it.
        pixels: number of pixels of its training images.
        described: what it is, for messages.
    """

    nets: dict[str, Any]
    pixels: int
    described: str


@dataclass(frozen=True)
class Plan:
    """A fit before it begins.

    Attributes:
        options: of the command.
        stage2: of its training.
        start: what the initial depth net is, for messages.
        size: (width, height) of the clips' frames.
        train, val: frames to train on, and held-out frames.
    """

    options: FitOptions
    stage2: Monodepth2Options
    start: str
    size: tuple[int, int]
    train: VideoSource
    val: VideoSource

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return len(self.train) // self.stage2.batch_size

    def learnt_camera(self) -> Intrinsics:
        """The camera that the best epoch has learnt, in pixels of the clips' whole frames."""
        return read_intrinsics(weights_folder(self.stage2.folder, "best") / CAMERA_FILE).for_image(*self.size)

    def before(self, group: Processes) -> DepthModel:
        """The depth model before training."""
        folder = self.stage2.load_weights_folder
        return untrained(self.stage2, group) if folder is None else load_depth_model(folder).to(group.device)

    def seconds(self, group: Processes) -> float:
        """The longest time that training takes, from steps that are measured on this machine."""
        stage2 = dataclasses.replace(self.stage2, load_weights_folder=None)  # the time does not depend on the weights
        torch.manual_seed(stage2.seed)
        model = build_model(stage2)
        group.place(model)
        batch = frames_in_memory(stage2.batch_size, stage2.height, stage2.width, group.device)
        step = training_step(model.train(), build_optimizer(model, stage2), [batch], group)
        one = median_seconds(step, 2, group.device)
        validation = one / 3 * -(-len(self.val) // stage2.batch_size)  # a validation has no backward pass
        return stage2.num_epochs * (self.steps_per_epoch * one + validation)


def make_plan(options: FitOptions) -> Plan:
    """Reads the clips and the weights, and writes the initial weights and camera to the folder `start`.

    Raises:
        UserError: clips, weights or a camera that cannot be used.
    """
    files = find_inputs(options.inputs)
    size, folder = _frame_size(files[0]), options.out / "start"
    folder.mkdir(parents=True, exist_ok=True)
    start = _write_start(options, folder)
    stage2 = dataclasses.replace(
        _training_options(options, start, _net_size(options, size, start.pixels)),
        data_path=_data_path(options, files, folder),
        intrinsics=options.intrinsics or str(_write_camera(options, size, folder)),
        load_weights_folder=None if options.weights == NO_WEIGHTS else folder,
    )
    stage2.check()
    train, val = (open_source(stage2, part, stage2.frame_ids) for part in ("train", "val"))
    assert isinstance(train, VideoSource)
    assert isinstance(val, VideoSource)
    epochs = options.num_epochs or min(max(round(_STEPS * stage2.batch_size / len(train)), 3), _MOST_EPOCHS)
    patience = options.early_stop or max(epochs // 4, 3)
    stage2 = dataclasses.replace(stage2, num_epochs=epochs, early_stop=patience)
    return Plan(options, stage2, start.described, size, train, val)


def _training_options(options: FitOptions, start: Start, size: tuple[int, int]) -> Monodepth2Options:
    """The options of training, without its files and number of epochs.

    Args:
        size: (height, width) of the nets' images.
    """
    return Monodepth2Options(
        dataset="video",
        learn_intrinsics=options.intrinsics is None and options.fov is None,
        crop_bottom=options.crop_bottom,
        min_motion=options.min_motion,
        height=size[0],
        width=size[1],
        **start.nets,
        weights_init="scratch",
        # This pose net is small enough to learn from the clip alone, and needs no pretrained ResNet from the network.
        pose_model_type="posecnn",
        prevent_collapse=start.nets.get("head") != "relu",
        stop_on_collapse=True,
        log_dir=options.out,
        model_name="run",
        lr_schedule="one_cycle",
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        num_workers=0,
        log_frequency=10,
        save_frequency=_ONLY_THE_LAST,
        device=options.device,
        seed=options.seed,
    )


def unknowable(options: FitOptions) -> list[str]:
    """What one camera cannot determine, in sentences."""
    found = [
        "metres. Depth is correct up to one unknown factor, which a single camera cannot measure",
        "depth of objects that move, and of everything that is filmed only while the camera stands still",
    ]
    if options.intrinsics is None:
        found.append("lens distortion. The fit assumes none; give it by --intrinsics FILE")
    if options.intrinsics is None and options.fov is None:
        found.append("the focal length, unless the camera turns. Depth hardly depends on it, points and widths do")
    return found


def _frame_size(file: InputFile) -> tuple[int, int]:
    """(width, height)."""
    if file.is_video:
        info = video_info(file.path)
        return info.width, info.height
    image = read_image(file.path)
    return image.shape[1], image.shape[0]


def _data_path(options: FitOptions, files: list[InputFile], start: Path) -> Path:
    """The given video or folder; for several videos, a folder of links to them."""
    alone = Path(options.inputs[0])
    if len(options.inputs) == 1 and alone.exists():
        return alone
    if images := [file.path for file in files if not file.is_video]:
        raise UserError(f"{images[0]} is an image: give only videos, or one folder of frames")
    clips = start / "clips"
    clips.mkdir(exist_ok=True)
    for number, file in enumerate(files):
        link = clips / f"{number}_{file.path.name}"
        if not link.exists():
            link.symlink_to(file.path.resolve())
    return clips


def _write_camera(options: FitOptions, size: tuple[int, int], start: Path) -> Path:
    """Writes the intrinsics of a field of view: square pixels, the principal point in the middle."""
    path = start / "intrinsics.json"
    write_text(path, intrinsics_text(intrinsics_of_view(options.fov or GUESSED_FOV, *size), size))
    return path


def _net_size(options: FitOptions, size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """(height, width) of the nets' images: about `pixels` pixels, in the aspect ratio of the cropped frames."""
    aspect = size[0] / (size[1] * (1 - options.crop_bottom))
    height = options.height or _multiple((options.width or math.sqrt(pixels * aspect)) / aspect)
    return height, options.width or _multiple(height * aspect)


def _multiple(side: float) -> int:
    return max(round(side / SIZE_MULTIPLE), 1) * SIZE_MULTIPLE


def _write_start(options: FitOptions, folder: Path) -> Start:
    """Writes the initial depth net in the trainer's layout."""
    if options.weights == NO_WEIGHTS:
        nets = {"preset": "tiny", "min_depth": 0.02, "max_depth": 20.0, "scales": (0, 1, 2, 3)}
        return Start(nets, _PIXELS, "random weights")
    model = open_depth_model(shipped_folder(options.weights) or options.weights)
    for name, content in trainer_files(model).items():
        if not (folder / f"{name}.pth").exists():
            write_torch(folder / f"{name}.pth", content)
    return Start(net_options(model.nets), model.height * model.width, options.weights)


def net_options(nets: DepthNets) -> dict[str, Any]:
    """The options of a trainer that build these nets."""
    found = {name: getattr(nets, name) for name in ("scales", "decoder", "head", "min_depth", "max_depth", "resize")}
    if nets.config is None:
        return {**found, "encoder": "resnet", "num_layers": nets.num_layers}
    fields = nets.config.without_downloads().to_dict()
    return {**found, "encoder_option": tuple(f"{name}={json.dumps(value)}" for name, value in fields.items())}
