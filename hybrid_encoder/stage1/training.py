"""Stage 1: trains the encoder to rank image patches from close to distant against text prompts.

hybrid-encoder pretrain --data tusimple:DATA --preset paper --out runs/stage1

docs/METHOD.md, section 3.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

from ..colormap import write_picture
from ..config import SIZE_MULTIPLE
from ..data.loader import make_loader
from ..engine.loading import loader_options
from ..engine.loop import LoopOptions, fit
from ..engine.processes import Processes
from ..engine.same_run import fixed_options, options_text
from ..engine.step import optimizer_steps
from ..engine.task import PlainTask
from ..errors import UserError
from ..model.closeness import distance_score
from ..model.encoder import HybridEncoder
from ..weights.run_files import STAGE1_FILE
from ..writing import write_text
from .checkpoint import save_stage1
from .dataset import Augmentation, Stage1Batch, Stage1Dataset, collate, to_batch
from .inputs import stage1_inputs
from .losses import ranking_loss
from .metrics import confusion, kendall_tau, pairwise_accuracy
from .mixing import MixedSource
from .model import Stage1Model, stage1_config
from .options import FREE_OPTIONS, PretrainOptions
from .ordered_points import open_sources
from .picture import closeness_picture
from .sequences import NUM_POINTS, OrderedPatchSource

NUM_PICTURES = 4
RELEASED_KITTI_IMAGES = 23_158
"""The released code adds it to the number of images (whether it reads KITTI's or not) for the length of an epoch."""
RELEASED_SHARE = 6
"""The released code divides the sum by it, whatever the batch size."""


class Stage1Task(PlainTask):
    """Stage 1 for the training loop."""

    schedule_per_step = True

    def __init__(
        self, options: PretrainOptions, steps_per_epoch: int, val_loader: DataLoader[Any], processes: Processes
    ) -> None:
        self.options = options
        encoder = HybridEncoder(stage1_config(options.config(), options.bidirectional))
        encoder.check_size(options.height, options.width)
        self.model = Stage1Model(encoder, options)
        processes.place(self.model)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay, fused=True)
        total = max(optimizer_steps(options.epochs, steps_per_epoch, options.accumulate), 2)
        self.scheduler = OneCycleLR(self.optimizer, options.lr, total_steps=total, div_factor=25, final_div_factor=100)
        self.val_loader = val_loader
        self.confusion = torch.zeros(NUM_POINTS, NUM_POINTS, dtype=torch.int64)

    def to_device(self, batch: Any, device: torch.device) -> Stage1Batch:
        return to_batch(batch, device)

    def validate(self, processes: Processes) -> dict[str, float]:
        """Ranking accuracy and Kendall's tau over all held-out sequences; keeps the confusion of prompts."""
        all_logits = []
        for collated in self.val_loader:
            _, logits = self.model.logits(to_batch(collated, processes.device))
            all_logits.append(logits.float().cpu())
        logits = torch.cat(all_logits) if all_logits else torch.zeros(0, NUM_POINTS, NUM_POINTS)
        scores = distance_score(logits, self.options.bidirectional)
        loss = len(logits) * ranking_loss(logits, self.options.bidirectional, self.options.margin)
        sums = [torch.tensor(len(logits)), pairwise_accuracy(scores).sum(), kendall_tau(scores).sum(), loss]
        count, *totals = processes.total(torch.stack([value.double() for value in sums])).tolist()
        self.confusion = processes.total(confusion(logits))
        if not count:
            return {}
        names = ("ranking_accuracy", "kendall_tau", "ranking_loss")
        return {name: total / count for name, total in zip(names, totals, strict=True)}

    def save(self, epoch: int, metrics: dict[str, float], best: bool) -> None:
        """`stage1.pth` is the best epoch's encoder by ranking accuracy, `stage1_last.pth` the last one's."""
        for name in ("stage1_last.pth", *([STAGE1_FILE] if best or not metrics else [])):
            save_stage1(self.options.out / name, self.model.encoder, self.options.config(), metrics)

    def extra_state(self) -> dict[str, Any]:
        return {"confusion": self.confusion}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.confusion = state["confusion"]


def pretrain(options: PretrainOptions, processes: Processes) -> dict[str, float]:
    """Runs stage 1; leaves `stage1.pth`, metrics, TensorBoard events and pictures in `options.out`.

    Raises:
        UserError: bad data or options, before anything is written.
    """
    options.check()
    torch.manual_seed(options.seed)
    train_source, val_source = open_parts(options)
    if processes.is_main:
        print(f"found {len(train_source)} images to train on, {len(val_source)} to validate on")
    loader, val_loader = open_loaders(train_source, val_source, options, processes)
    if not len(loader):
        raise UserError(f"{len(train_source)} training images are fewer than {processes.world_size} processes")
    if processes.is_main and loader.batch_size != options.batch_size:
        print(f"{len(train_source)} training images: batches of {loader.batch_size} in place of {options.batch_size}")
    task = Stage1Task(options, len(loader), val_loader, processes)
    loop = LoopOptions.of(
        options,
        folder=options.out,
        epochs=options.epochs,
        clip_grad=options.clip_grad,
        validate_first=True,
        best=("ranking_accuracy", "max"),
        pictures=lambda: dict(zip(("patches_and_closeness",), _pictures(task, processes.device), strict=False)),
        smallest_map=(loader.batch_size or 1) * (options.height // SIZE_MULTIPLE) * (options.width // SIZE_MULTIPLE),
        same_run=fixed_options(options, FREE_OPTIONS),
        inputs=stage1_inputs([("train", train_source), ("val", val_source)]),
        notes={"opt.json": options_text(options)},
    )
    metrics = fit(task, loader, loop, processes)
    if processes.is_main and not options.dry_run:
        _write_pictures(task, processes.device)
        text = json.dumps({**metrics, "confusion": task.confusion.tolist()}, indent=1)
        write_text(options.out / "metrics.json", text + "\n")
    return metrics


def open_parts(options: PretrainOptions) -> tuple[MixedSource, MixedSource]:
    """The images to train on, and those to validate on; `--train_on all` trains on both.

    Raises:
        UserError: as `open_sources`.
    """
    size = (options.height, options.width)
    train, val = (
        open_sources(list(options.data), part, size, options.seed, options.skip_bad, options.mix_ratio)
        for part in ("train", "val")
    )
    if options.train_on == "all":
        train = MixedSource([*train.sources, *val.sources], options.mix_ratio)
    return train, val


def open_loaders(
    train: OrderedPatchSource, val: OrderedPatchSource, options: PretrainOptions, processes: Processes
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Both parts in batches; a part with few images has smaller batches than asked for."""
    loading = loader_options(options, processes)
    if options.sampling == "released":
        loading = dataclasses.replace(loading, draws=(len(train) + RELEASED_KITTI_IMAGES) // RELEASED_SHARE)
    augmentation = Augmentation(options.mirror_probability, options.jitter_probability, options.point_scale)

    def batches(source: OrderedPatchSource, trains: bool) -> DataLoader[Any]:
        dataset = Stage1Dataset(source, options.height, options.width, trains, options.seed, augmentation)
        count = loading.draws or len(source) if trains else len(source)
        batch_size = min(options.batch_size, max(count // processes.world_size, 1))
        return make_loader(dataset, batch_size, trains, loading, collate)

    return batches(train, True), batches(val, False)


def _write_pictures(task: Stage1Task, device: torch.device) -> None:
    folder = task.options.out / "pictures"
    folder.mkdir(exist_ok=True)
    task.model.eval()
    for i, picture in enumerate(_pictures(task, device)):
        write_picture(folder / f"closeness_{i}.jpg", picture)
    print(f"pictures of patches and cells by predicted closeness: {folder}")


@torch.no_grad()
def _pictures(task: Stage1Task, device: torch.device) -> Iterator[np.ndarray]:
    dataset = task.val_loader.dataset
    batches = (to_batch(collate([dataset[index]]), device) for index in range(len(dataset)))  # type: ignore[arg-type]
    for batch in islice((batch for batch in batches if len(batch.points)), NUM_PICTURES):
        scores = distance_score(task.model.logits(batch)[1], task.options.bidirectional).cpu().numpy()
        closeness = task.model.encoder.closeness(batch.images)[0].cpu().numpy()
        image = (batch.images[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        yield closeness_picture(image, closeness, batch.points.cpu().numpy(), scores)
