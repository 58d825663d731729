"""Evaluates two-frame models: every frame is predicted with its lookup frames from the data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.cityscapes import CityscapesSequenceSource, read_published_depth
from ..data.dataset import FrameSource
from ..errors import UserError
from ..evaluation import EvaluationResult, flip_post_process
from ..images import cut_bottom
from ..model.predictor import DepthPredictor, resize_for
from ..stage2.evaluate import judge
from ..stage2.evaluation_data import EvaluationData, has_frames, of_frames
from .frames import LookupSource, cityscapes_files, open_lookup_source
from .options import TwoFrameEvaluateOptions
from .predictor import TwoFrameModel


def evaluate_two_frame(options: TwoFrameEvaluateOptions, model: TwoFrameModel | DepthPredictor) -> EvaluationResult:
    """Predicts the part's frames and compares them with the truth.

    Args:
        model: a two-frame model; or its teacher or another single-frame model, which is evaluated on the same frames.

    Raises:
        UserError: no such data, or no ground truth for it.
    """
    data, predictions = open_and_predict(options, model)
    return judge(options, data, predictions)


def open_and_predict(
    options: TwoFrameEvaluateOptions, model: TwoFrameModel | DepthPredictor
) -> tuple[EvaluationData, Iterator[np.ndarray]]:
    """The frames to evaluate, and 1 / depth of each, predicted with its lookup frames (black where there are none).

    Raises:
        UserError: no such data, or single images, which have no neighbours.
    """
    if not has_frames(options):
        raise UserError("two-frame weights need frames of a drive: evaluate single images with --eval_teacher")
    if options.dataset == "cityscapes":
        city = CityscapesSequenceSource(*cityscapes_files(options, options.part), options.part)
        names = [city.name(index) for index in range(len(city))]
        data = EvaluationData(names, lambda index: city.read(index, 0), partial(_cityscapes_depths, options, city))
        return data, _predictions(options, model, city)
    matching_ids = model.matching_ids if isinstance(model, TwoFrameModel) else (-1,)
    source = open_lookup_source(options, options.part, (0,), matching_ids, options.seed)
    inner = source.source if isinstance(source, LookupSource) else source
    return of_frames(options, inner), _predictions(options, model, source)


def _cityscapes_depths(options: TwoFrameEvaluateOptions, source: CityscapesSequenceSource) -> Iterator[np.ndarray]:
    for index in range(len(source)):
        if options.truth_kind == "velodyne":  # the default: measured depth, here from a stereo pair's disparity
            yield source.depth(index)
            continue
        yield read_published_depth(Path(options.truth) / f"{index:03d}_depth.npy")


@torch.no_grad()
def _predictions(
    options: TwoFrameEvaluateOptions, model: TwoFrameModel | DepthPredictor, source: FrameSource
) -> Iterator[np.ndarray]:
    """1 / depth, (height, width), of every frame."""
    for start in range(0, len(source), options.batch_size):
        indices = range(start, min(start + options.batch_size, len(source)))
        frames, K = _read(options, model, source, indices)
        predicted = _predict(model, frames, K)
        if options.post_process:
            mirrored = K.clone()
            mirrored[:, 0, 2] = model.width - 1 - K[:, 0, 2]
            flipped = _predict(model, {i: image.flip(3) for i, image in frames.items()}, mirrored)
            predicted = flip_post_process(predicted, flipped)
        yield from predicted


def _predict(model: TwoFrameModel | DepthPredictor, frames: dict[int, Tensor], K: Tensor) -> np.ndarray:
    inverse = model(frames, K) if isinstance(model, TwoFrameModel) else model.disparity(frames[0])
    return inverse[:, 0].float().cpu().numpy()


def _read(
    options: TwoFrameEvaluateOptions,
    model: TwoFrameModel | DepthPredictor,
    source: FrameSource,
    indices: Sequence[int],
) -> tuple[dict[int, Tensor], Tensor]:
    """Frames (B, 3, height, width) in [0, 1] by frame id, and K (B, 3, 3) in their pixels."""
    lookup = model.matching_ids if isinstance(model, TwoFrameModel) and not options.zero_cost_volume else ()
    frames: dict[int, Tensor] = {}
    scales = np.ones((len(indices), 3, 1))
    for frame_id in (0, *lookup):
        read = []
        for n, index in enumerate(indices):
            image = source.read(index, 0 if options.static_camera else frame_id)
            image = cut_bottom(image, options.crop_bottom)
            scales[n, :2, 0] = model.width / image.shape[1], model.height / image.shape[0]
            read.append(resize_for(model, image))
        frames[frame_id] = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).float() / 255
    K = np.stack([source.intrinsics(index) for index in indices]) * scales
    return frames, torch.from_numpy(K.astype(np.float32))
