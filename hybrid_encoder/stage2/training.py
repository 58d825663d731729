"""Stage 2: self-supervised depth from video, one frame at a time (METHOD, section 4).

hybrid-encoder train monodepth2 --data_path KITTI --stage1 runs/stage1/stage1.pth
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, StepLR
from torch.utils.data import DataLoader

from ..data.dataset import FrameSource, SelfSupervisedDataset
from ..data.loader import make_loader
from ..data.sample import FrameId
from ..engine.loading import loader_options
from ..engine.loop import LoopOptions, fit
from ..engine.processes import Processes
from ..engine.same_run import identity
from ..errors import UserError, naming
from ..evaluation import EvaluationProtocol, evaluate_depths
from ..model.disparity import disp_to_depth
from ..model.encoder import HybridEncoder
from ..stage1.checkpoint import load_stage1
from ..synthetic.sequence import SyntheticSource
from .checkpoint import check_same_depth, encoder_extras, load_weights, newest_weights, save_weights, weights_folder
from .evaluate import usual_crop
from .frames import Part, ground_truth, open_source
from .model import DepthBatch, MonoDepth, to_batch
from .options import DataOptions, Monodepth2Options, RunOptions

WARM_UP = 0.1
"""Share of a one-cycle run in which the learning rate rises."""
MAX_TRUTHS = 60
"""Validation frames whose depth is compared with the truth; evenly spaced."""


class Monodepth2Task:
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

    def sample_names(self, batch: Any) -> list[str]:
        names: list[str] = batch["name"]
        return names

    def start_step(self, epoch: int, step: int) -> None:
        """Nothing changes on the way."""

    def validate(self, processes: Processes) -> dict[str, float]:
        """The loss on the validation part, and the depth error where the truth is known."""
        metrics = mean_scalars(self.model(self.to_device(batch, processes.device)) for batch in self.val_loader)
        dataset = self.val_loader.dataset
        assert isinstance(dataset, SelfSupervisedDataset)
        metrics.update(depth_metrics(self.model, dataset, self.options, processes.device))
        return metrics

    def save(self, epoch: int, metrics: dict[str, float], best: bool) -> None:
        """Weights of the epoch, and of the best one under `weights_best`."""
        options = self.options
        extras = encoder_extras(
            self.model.encoder, self.model.depth, options.height, options.width, options.min_depth, options.max_depth
        )
        extras["use_stereo"] = options.use_stereo
        for name in (str(epoch), *(["best"] if best else [])):
            save_weights(weights_folder(options.folder, name), self.model.files(), self.optimizer, extras)

    def extra_state(self) -> dict[str, Any]:
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """There is none."""


def train(options: Monodepth2Options, processes: Processes) -> dict[str, float]:
    """Runs stage 2; leaves weights, metrics and TensorBoard events in `options.folder`.

    Returns:
        The last validation's metrics.

    Raises:
        UserError: bad options or data, before anything is written; or a run that cannot go on.
    """
    options.check()
    torch.manual_seed(options.seed)
    loader, val_loader = (open_loader(options, part, processes) for part in ("train", "val"))
    task = Monodepth2Task(options, len(loader), val_loader, processes)
    return fit(task, loader, loop_options(options), processes)


def mean_scalars(batches: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """The mean over batches of each scalar of a model in evaluation; empty for no batch."""
    losses = [{name: float(value) for name, value in scalars.items()} for scalars in batches]
    return {name: float(np.mean([loss[name] for loss in losses])) for name in (losses[0] if losses else ())}


def build_model(options: Monodepth2Options) -> MonoDepth:
    """The nets with the weights that the options name: pretrained towers, then stage 1, then a weights folder."""
    config = options.config()
    if options.load_weights_folder is not None or options.stage1 is not None:
        config = config.without_downloads()
    # What a weights folder fills need not be downloaded first.
    scratch = options.weights_init == "scratch" or options.load_weights_folder is not None
    model = MonoDepth(options, config, "random" if scratch else "pretrained")
    if options.stage1 is not None and isinstance(model.encoder, HybridEncoder):
        load_stage1(model.encoder, options.stage1)
    if options.load_weights_folder is not None:
        folder = newest_weights(options.load_weights_folder)
        check_same_depth(options, folder / "encoder.pth")
        load_weights(folder, model.files())
    return model


def build_optimizer(model: MonoDepth, options: Monodepth2Options) -> torch.optim.Optimizer:
    """AdamW with the hybrid encoder, Adam with a ResNet, as published; the encoder's rate may differ."""
    encoder_lr = options.lr_of_encoder(options.learning_rate)
    others = [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("encoder.")]
    rest = {"params": others, "lr": options.learning_rate}
    if isinstance(model.encoder, HybridEncoder):
        groups = [*model.encoder.parameter_groups(encoder_lr), rest]
        return torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)
    own = [p for p in model.encoder.parameters() if p.requires_grad]
    return torch.optim.Adam([{"params": own, "lr": encoder_lr}, rest], lr=options.learning_rate, fused=True)


def build_scheduler(
    optimizer: torch.optim.Optimizer, options: RunOptions, steps_per_epoch: int
) -> tuple[LRScheduler, bool]:
    """The schedule of `--lr_schedule`, and whether it moves per step rather than per epoch."""
    if options.lr_schedule == "step":
        return StepLR(optimizer, options.scheduler_step_size, 0.1), False
    steps = options.num_epochs * -(-steps_per_epoch // options.accumulate)
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, peaks, total_steps=max(steps, 2), pct_start=WARM_UP), True


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
        options: `DataOptions` and `RunOptions`.

    Raises:
        UserError: fewer samples than processes, or fewer training samples than a batch holds.
    """
    if options.num_workers and isinstance(source, SyntheticSource):
        source.render(progress=processes.is_main)  # else every worker would
    if processes.is_main:
        print(f"found {len(source)} samples in the {part} part")
    train = part == "train"
    size = (options.height, options.width)
    dataset = SelfSupervisedDataset(source, *size, frame_ids, train, options.seed, options.crop_bottom)
    with naming(f"the {part} part"):
        loader = make_loader(dataset, options.batch_size, train, loader_options(options, processes))
    if train and not len(loader):
        raise UserError(f"{len(dataset)} training samples are fewer than --batch_size {options.batch_size}: lower it")
    return loader


def depth_errors(disparities: list[np.ndarray], truths: list[np.ndarray], options: DataOptions) -> dict[str, float]:
    """AbsRel and a1 of 1 / depth, median-scaled, in the crop that `evaluate` takes by itself; NaN of broken nets."""
    if not all(np.isfinite(disparity).all() for disparity in disparities):
        return {"abs_rel": math.nan, "a1": math.nan}
    protocol = EvaluationProtocol(crop=usual_crop(options.dataset), crop_bottom=options.crop_bottom)
    errors = evaluate_depths(disparities, truths, protocol).mean
    return {"abs_rel": errors.abs_rel, "a1": errors.a1}


def loop_options(options: RunOptions) -> LoopOptions:
    """The training loop's part of a trainer's options."""
    return LoopOptions.of(
        options,
        folder=options.folder,
        epochs=options.num_epochs,
        clip_grad=options.clip_grad,
        save_frequency=options.save_frequency,
        validate_first=True,
        best=("abs_rel", "min"),
        identity=identity(options, options.free),
        # As the original leaves it.
        notes={"models/opt.json": json.dumps(dataclasses.asdict(options), indent=2, default=str) + "\n"},
    )


@torch.no_grad()
def depth_metrics(
    model: Any, dataset: SelfSupervisedDataset, options: Monodepth2Options, device: torch.device
) -> dict[str, float]:
    """AbsRel and a1 (median-scaled, up to 80 m) over validation frames whose depth is known; empty where none is."""
    indices = np.unique(np.linspace(0, len(dataset) - 1, MAX_TRUTHS).round().astype(int))
    disparities, truths = [], []
    for index in indices.tolist():
        try:
            truth = ground_truth(options, dataset.source, index)
            if truth is None:
                continue
            image = dataset[index]["frames"][:1].to(device).float() / 255
        except UserError:
            if not options.skip_bad:  # else the loader counts it
                raise
            continue
        scaled, _ = disp_to_depth(model.disparity(image), options.min_depth, options.max_depth)
        disparities.append(scaled[0, 0].float().cpu().numpy())
        truths.append(truth)
    if not truths:
        return {}
    return depth_errors(disparities, truths, options)
