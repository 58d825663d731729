"""Stage 2: self-supervised depth from video, one frame at a time (docs/METHOD.md, section 4).

hybrid-encoder train monodepth2 --data_path KITTI --stage1 runs/stage1/stage1.pth
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, StepLR
from torch.utils.data import DataLoader

from ..config import SIZE_MULTIPLE
from ..data.calibration import KITTI_NORMALISED_K
from ..data.dataset import FrameSource, SampleSettings, SelfSupervisedDataset
from ..data.sample import FrameId, Sample
from ..engine.loading import load_part
from ..engine.loop import LoopOptions, fit
from ..engine.processes import Processes
from ..engine.same_run import fixed_options, options_text
from ..engine.step import one_cycle, optimizer_steps
from ..engine.task import PlainTask
from ..model.disparity import disp_to_depth
from ..released.single_frame import is_released
from ..synthetic.sequence import SyntheticSource
from ..writing import write_text
from .camera import CAMERA_FILE, HELD, RATE, describe_camera, learnt_camera
from .checkpoint import (
    check_same_depth,
    encoder_extras,
    files_there,
    load_weights,
    newest_weights,
    save_weights,
    weights_folder,
)
from .frames import Part, open_source
from .health import unhealthy
from .inputs import run_inputs
from .model import DepthBatch, MonoDepth, to_batch
from .networks import starting_weights
from .options import Monodepth2Options, RunOptions, could_prevent_collapse
from .pictures import middle_sample, sample_pictures
from .released_start import load_released_weights
from .validation import depth_metrics, mean_scalars


class Monodepth2Task(PlainTask):
    """The single-frame trainer for the training loop."""

    def __init__(
        self, options: Monodepth2Options, steps_per_epoch: int, val_loader: DataLoader[Any], processes: Processes
    ) -> None:
        self.options = options
        self.frame_ids = options.all_frame_ids
        self.model = build_model(options)
        processes.place(self.model)
        self.optimizer = build_optimizer(self.model, options)
        self.scheduler, self.schedule_per_step = build_scheduler(self.optimizer, options, steps_per_epoch)
        self.val_loader = val_loader

    def to_device(self, batch: Any, device: torch.device) -> DepthBatch:
        return to_batch(batch, self.frame_ids, device)

    def start_step(self, epoch: int, step: int) -> None:
        """A focal length is learnt once there is some motion to learn it from."""
        if self.model.camera is not None:
            self.model.camera.requires_grad_(epoch >= HELD * self.options.num_epochs)

    def validate(self, processes: Processes) -> dict[str, float]:
        """The loss on the validation part, and the depth error where the truth is known."""
        metrics = mean_scalars(self.model(self.to_device(batch, processes.device)) for batch in self.val_loader)
        dataset = samples_of(self.val_loader)

        @torch.no_grad()
        def predict(sample: Sample) -> dict[str, Tensor]:
            disparity = self.model.disparity(sample["frames"][:1].to(processes.device).float() / 255)
            return {"": disp_to_depth(disparity, self.options.min_depth, self.options.max_depth)[0]}

        metrics.update(depth_metrics(predict, dataset, dataset.source, self.options))
        return metrics

    def pictures(self) -> dict[str, np.ndarray]:
        """What the nets make of a validation sample."""
        device = next(self.model.parameters()).device
        batch = middle_sample(samples_of(self.val_loader), lambda collated: self.to_device(collated, device))
        return sample_pictures(self.model, batch)

    def save(self, epoch: int, metrics: dict[str, float], best: bool) -> None:
        """Weights of the epoch, and of the best one under `weights_best`."""
        options = self.options
        extras = encoder_extras(self.model.nets, options.height, options.width)
        extras["use_stereo"] = options.use_stereo
        for name in (str(epoch), *(["best"] if best else [])):
            folder = weights_folder(options.folder, name)
            save_weights(folder, self.model.files_to_save(), self.optimizer, extras)
            if self.model.camera is not None:
                write_text(folder / CAMERA_FILE, learnt_camera(self.model.camera, samples_of(self.val_loader).source))


def train(options: Monodepth2Options, processes: Processes) -> dict[str, float]:
    """Runs stage 2; leaves weights, metrics and TensorBoard events in `options.folder`.

    Returns:
        The last validation's metrics.

    Raises:
        UserError: bad options or data, before anything is written; or a run that cannot be resumed.
    """
    options.check()
    torch.manual_seed(options.seed)
    loader, val_loader = (open_loader(options, part, processes) for part in ("train", "val"))
    task = Monodepth2Task(options, len(loader), val_loader, processes)
    sources = {"train": samples_of(loader).source, "val": samples_of(val_loader).source}
    weights = {"stage1": options.stage1, "load_weights_folder": options.load_weights_folder}
    inputs = run_inputs(options, sources, options.all_frame_ids, weights)
    metrics = fit(task, loader, loop_options(options, inputs, task.pictures), processes)
    if task.model.camera is not None and processes.is_main:
        print(describe_camera(options.folder))
    return metrics


def build_model(options: Monodepth2Options) -> MonoDepth:
    """The nets with the weights that the options name: pretrained towers, then stage 1, then a weights folder."""
    model = MonoDepth(options, *starting_weights(options), options.prevent_collapse, options.learn_intrinsics)
    if options.load_weights_folder is not None:
        folder = newest_weights(options.load_weights_folder)
        if is_released(folder):
            load_released_weights(model.files(), folder)
        else:
            check_same_depth(model.nets, folder / "encoder.pth")
            load_weights(folder, files_there(model.files(), folder))
    return model


def build_optimizer(model: MonoDepth, options: Monodepth2Options) -> torch.optim.Optimizer:
    """AdamW with the hybrid encoder, Adam with a ResNet, as published; the encoder's rate may differ."""
    apart = ("encoder.", "camera.")
    others = [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith(apart)]
    groups = model.encoder.parameter_groups(options.lr_of_encoder(options.learning_rate))
    groups.append({"params": others, "lr": options.learning_rate})
    if model.camera is not None:
        groups.append({"params": [model.camera.log_factor], "lr": RATE * options.learning_rate, "weight_decay": 0.0})
    if options.decay_on == "all":
        groups = one_group_a_rate(groups)
    kind = torch.optim.AdamW if options.encoder == "hybrid" else torch.optim.Adam
    return kind(groups, lr=options.learning_rate, fused=True)


def one_group_a_rate(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same parameters in one group for each learning rate, so that weight decay acts on all of them alike."""
    by_rate: dict[float, list[nn.Parameter]] = {}
    for group in groups:
        by_rate.setdefault(group["lr"], []).extend(group["params"])
    return [{"params": parameters, "lr": rate} for rate, parameters in by_rate.items()]


def build_scheduler(
    optimizer: torch.optim.Optimizer, options: RunOptions, steps_per_epoch: int
) -> tuple[LRScheduler, bool]:
    """The schedule of `--lr_schedule`, and whether it moves per step rather than per epoch."""
    if options.lr_schedule == "step":
        return StepLR(optimizer, options.scheduler_step_size, 0.1), False
    steps = optimizer_steps(options.num_epochs, steps_per_epoch, options.accumulate)
    return one_cycle(optimizer, steps), True


def open_loader(options: Monodepth2Options, part: Part, processes: Processes) -> DataLoader[Any]:
    """The samples of one part, in batches.

    Raises:
        UserError: what the source finds wrong, or fewer training samples than a batch holds.
    """
    source = open_source(options, part, options.all_frame_ids, options.seed, options.skip_bad)
    return load_samples(source, options.all_frame_ids, options, part, processes)


def load_samples(
    source: FrameSource, frame_ids: tuple[FrameId, ...], options: Any, part: Part, processes: Processes
) -> DataLoader[Any]:
    """A source's samples in batches, this process's share of them.

    Args:
        options: `DataOptions`, `RunOptions` and `DepthOptions`.

    Raises:
        UserError: fewer samples than processes, or fewer training samples than a batch holds.
    """
    if options.num_workers and isinstance(source, SyntheticSource):
        source.render(progress=processes.is_main)  # else every worker would
    if processes.is_main:
        print(f"found {len(source)} samples in the {part} part")
    size, trains = (options.height, options.width), part == "train"
    average = options.kitti_camera == "average" and options.dataset.startswith("kitti") and options.intrinsics is None
    settings = SampleSettings(options.resize, options.jitter, KITTI_NORMALISED_K if average else None)
    dataset = SelfSupervisedDataset(source, *size, frame_ids, trains, options.seed, options.crop_bottom, settings)
    return load_part(dataset, options.batch_size, part, options, processes)


def samples_of(loader: DataLoader[Any]) -> SelfSupervisedDataset:
    """The data set of a loader that `load_samples` made."""
    dataset = loader.dataset
    assert isinstance(dataset, SelfSupervisedDataset)
    return dataset


def loop_options(
    options: Any, inputs: Mapping[str, str], pictures: Callable[[], Mapping[str, np.ndarray]] | None = None
) -> LoopOptions:
    """The training loop's part of a trainer's options.

    Args:
        options: `DataOptions`, `RunOptions` and `DepthOptions`.
        inputs: what `run_inputs` returns.
        pictures: as in `LoopOptions`.
    """
    return LoopOptions.of(
        options,
        folder=options.folder,
        epochs=options.num_epochs,
        clip_grad=options.clip_grad,
        clip_parts=options.clip_parts,
        save_frequency=options.save_frequency,
        validate_first=True,
        best=("abs_rel", "min"),
        warn=partial(unhealthy, preventable=could_prevent_collapse(options)),
        stop_on_warning=options.stop_on_collapse,
        pictures=pictures,
        smallest_map=options.batch_size * (options.height // SIZE_MULTIPLE) * (options.width // SIZE_MULTIPLE),
        same_run=fixed_options(options, options.free),
        inputs=inputs,
        # As the original leaves it.
        notes={"models/opt.json": options_text(options)},
    )
