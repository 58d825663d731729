"""Two-frame self-supervised depth: a cost volume, and a single-frame teacher for moving objects.

hybrid-encoder train manydepth --data_path KITTI --encoder hybrid --teacher_encoder hybrid --stage1 stage1.pth

docs/METHOD.md, section 4.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from ..colormap import colorize_disparity
from ..data.sample import Sample
from ..engine.loop import fit
from ..engine.processes import Processes
from ..engine.task import PlainTask
from ..released.single_frame import is_released
from ..stage2.checkpoint import check_same_depth, newest_weights, weights_folder
from ..stage2.frames import Part
from ..stage2.inputs import run_inputs
from ..stage2.model import DepthBatch, to_batch
from ..stage2.networks import starting_weights
from ..stage2.pictures import middle_sample, sample_pictures
from ..stage2.training import build_scheduler, load_samples, loop_options, one_group_a_rate, samples_of
from ..stage2.validation import depth_metrics, mean_scalars
from ..weights.run_files import single_frame_files
from .checkpoint import load_teacher, load_weights, save_weights
from .frames import LookupSource, open_lookup_source
from .model import TwoFrameDepth
from .options import ManydepthOptions
from .released_start import load_released_teacher_nets, load_released_two_frame


class ManydepthTask(PlainTask):
    """The two-frame trainer for the training loop."""

    def __init__(
        self, options: ManydepthOptions, steps_per_epoch: int, val_loader: DataLoader[Any], processes: Processes
    ) -> None:
        self.options = options
        self.model = build_model(options)
        processes.place(self.model)
        if options.freeze_teacher_and_pose:
            self.model.freeze_teacher()
        self.optimizer = build_optimizer(self.model, options)
        self.scheduler, self.schedule_per_step = build_scheduler(self.optimizer, options, steps_per_epoch)
        self.steps_per_epoch, self.val_loader = steps_per_epoch, val_loader

    def to_device(self, batch: Any, device: torch.device) -> DepthBatch:
        return to_batch(batch, self.options.loaded_ids, device)

    def start_step(self, epoch: int, step: int) -> None:
        """Freezes teacher and pose nets from their last epoch or step on."""
        self.model.range_unknown = self.options.freeze_teacher_and_pose and step == 0
        due = epoch >= self.options.freeze_teacher_epoch or 0 <= self.options.freeze_teacher_step <= step
        if due and not self.model.frozen:
            # Frozen nets stay in the optimiser, which skips parameters without gradient; fresh_adam leaves them out.
            self.model.freeze_teacher()
            if self.options.on_freeze == "fresh_adam":
                self._begin_anew()

    def _begin_anew(self) -> None:
        """Starts Adam and the schedule anew, for the nets that still train."""
        groups = one_group_a_rate(parameter_groups(self.model, self.options))
        self.optimizer = torch.optim.Adam(groups, lr=self.options.learning_rate, fused=True)
        self.scheduler, _ = build_scheduler(self.optimizer, self.options, self.steps_per_epoch)

    def validate(self, processes: Processes) -> dict[str, float]:
        """The loss on the validation part and, where the truth is known, the depth metrics of the two-frame net and the
        teacher."""
        metrics = mean_scalars(self.model(self.to_device(batch, processes.device)) for batch in self.val_loader)
        dataset = samples_of(self.val_loader)
        source = dataset.source.source if isinstance(dataset.source, LookupSource) else dataset.source

        def predict(sample: Sample) -> dict[str, Tensor]:
            batch = self.to_device(default_collate([sample]), processes.device)
            return dict(zip(("", "teacher_"), self.model.inverse_depths(batch), strict=True))

        metrics.update(depth_metrics(predict, dataset, source, self.options))
        return metrics

    def pictures(self) -> dict[str, np.ndarray]:
        """What the nets make of a validation sample: the teacher's pictures, and the two-frame depth."""
        device = next(self.model.parameters()).device
        batch = middle_sample(samples_of(self.val_loader), lambda collated: self.to_device(collated, device))
        known = replace(batch, frames={i: batch.frames[i] for i in self.options.all_frame_ids})
        found = {f"teacher_{name}": picture for name, picture in sample_pictures(self.model.teacher, known).items()}
        inverse, _ = self.model.inverse_depths(batch)
        return {"depth": colorize_disparity(inverse[0, 0].float().cpu().numpy()), **found}

    def save(self, epoch: int, metrics: dict[str, float], best: bool) -> None:
        """Weights of the epoch, and of the best one under `weights_best`."""
        for name in (str(epoch), *(["best"] if best else [])):
            save_weights(weights_folder(self.options.folder, name), self.model, self.optimizer)

    def extra_state(self) -> dict[str, Any]:
        return {"frozen": self.model.frozen}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        if state["frozen"] and not self.model.frozen:
            self.model.freeze_teacher()
            if self.options.on_freeze == "fresh_adam":
                self._begin_anew()


def train(options: ManydepthOptions, processes: Processes) -> dict[str, float]:
    """Trains teacher, pose nets and two-frame net; leaves weights, metrics and TensorBoard events in `options.folder`.

    Returns:
        The last validation's metrics.

    Raises:
        UserError: bad options or data, before anything is written; or a run that cannot be resumed.
    """
    options.check()
    torch.manual_seed(options.seed)
    loader, val_loader = (open_loader(options, part, processes) for part in ("train", "val"))
    task = ManydepthTask(options, len(loader), val_loader, processes)
    # A `LookupSource` adds black frames; its inner source knows the files.
    opened = {"train": samples_of(loader).source, "val": samples_of(val_loader).source}
    sources = {part: one.source if isinstance(one, LookupSource) else one for part, one in opened.items()}
    names = ("stage1", "mono_weights_folder", "load_weights_folder")
    inputs = run_inputs(options, sources, options.loaded_ids, {name: getattr(options, name) for name in names})
    return fit(task, loader, loop_options(options, inputs, task.pictures), processes)


def build_model(options: ManydepthOptions) -> TwoFrameDepth:
    """The nets with the weights that the options name: pretrained towers, then stage 1, then weights folders."""
    model = TwoFrameDepth(options, *starting_weights(options))
    if options.mono_weights_folder is not None:
        _fill_teacher(model, newest_weights(options.mono_weights_folder))
        if options.start_from_teacher:
            model.net.start_from(model.teacher.encoder, model.teacher.depth)
    if options.load_weights_folder is not None:
        folder = newest_weights(options.load_weights_folder)
        if is_released(folder):
            load_released_two_frame(folder, model)
        else:
            check_same_depth(model.nets, folder / "encoder.pth")
            load_weights(folder, model)
    return model


def _fill_teacher(model: TwoFrameDepth, folder: Path) -> None:
    if is_released(folder):
        load_released_teacher_nets(folder, model)
        return
    encoder_file, _ = single_frame_files(folder)
    check_same_depth(model.teacher.nets, folder / f"{encoder_file}.pth")
    load_teacher(folder, model)


def build_optimizer(model: TwoFrameDepth, options: ManydepthOptions) -> torch.optim.Optimizer:
    """AdamW where a hybrid encoder trains, else Adam; encoders may have a learning rate of their own."""
    groups = parameter_groups(model, options)
    kind = torch.optim.AdamW if any("weight_decay" in group for group in groups) else torch.optim.Adam
    if options.decay_on == "all":
        groups = one_group_a_rate(groups)
    return kind(groups, lr=options.learning_rate, fused=True)


def parameter_groups(model: TwoFrameDepth, options: ManydepthOptions) -> list[dict[str, Any]]:
    """Groups of all trainable parameters: those of hybrid encoders, the rest of the encoders, and the other nets."""
    encoder_lr = options.lr_of_encoder(options.learning_rate)
    kinds = ((model.net.encoder, options.encoder), (model.teacher.encoder, options.teacher_encoder))
    groups = [group for encoder, kind in kinds if kind == "hybrid" for group in encoder.parameter_groups(encoder_lr)]
    taken = {id(p) for group in groups for p in group["params"]}
    for nets, lr in (((model.net.encoder, model.teacher.encoder), encoder_lr), ((model,), options.learning_rate)):
        rest = [p for p in nn.ModuleList(nets).parameters() if p.requires_grad and id(p) not in taken]
        taken.update(id(p) for p in rest)
        if rest:
            groups.append({"params": rest, "lr": lr})
    return groups


def open_loader(options: ManydepthOptions, part: Part, processes: Processes) -> DataLoader[Any]:
    """The samples of one part, in batches.

    Raises:
        UserError: what the source finds wrong, or fewer training samples than a batch holds.
    """
    required = options.all_frame_ids
    optional = tuple(i for i in options.loaded_ids if i not in required)
    source = open_lookup_source(options, part, required, optional, options.seed, options.skip_bad)
    return load_samples(source, options.loaded_ids, options, part, processes)
