"""Depth against measured depth: the seven KITTI metrics with their crops, cap and median scaling, as the field
computes them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from .config import MAX_EVAL_DEPTH, MIN_EVAL_DEPTH
from .errors import UserError, naming
from .images import check_crop_bottom, cut_bottom
from .model.disparity import is_flat
from .model.predictor import DepthPredictor, predict_disparities, resize_map
from .writing import atomic_path

Crop = Literal["garg", "eigen"]

STEREO_SCALE_FACTOR = 5.4
"""Metres per unit of a stereo-trained model: KITTI's baseline is 0.54 m, the training baseline 0.1 units."""

CROP_FRACTIONS: dict[str, tuple[float, float, float, float]] = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}
"""Top, bottom, left and right of the published crops (Garg et al. 2016, Eigen et al. 2014), as fractions of height
and width."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """What counts in an evaluation, and how; the defaults are those of KITTI's Eigen split.

    Raises:
        UserError: limits that are none, an unknown crop, or a share that cannot be cut off.
    """

    min_depth: float = MIN_EVAL_DEPTH
    """Truth outside (min_depth, max_depth) does not count; predictions are clipped to these limits. Metres."""
    max_depth: float = MAX_EVAL_DEPTH
    median_scaling: bool = True
    """Multiply each prediction by median(gt) / median(pred) over the counted pixels."""
    crop: Crop | None = "garg"
    """"garg" (raw LiDAR), "eigen", or None (improved ground truth; synthetic scenes)."""
    scale_factor: float = 1.0
    """Predictions are multiplied by it first; `STEREO_SCALE_FACTOR` for stereo-trained models."""
    crop_bottom: float = 0.0
    """Share of the images' height that is cut off below before a model sees them. `crop` is of the whole truth all the
    same."""
    post_process: bool = False
    """Predict the mirrored image as well and blend (`flip_post_process`): twice the work."""

    def __post_init__(self) -> None:
        if not 0 < self.min_depth < self.max_depth:
            raise UserError(f"depth limits must satisfy 0 < min < max, got {self.min_depth} and {self.max_depth}")
        check_crop_bottom(self.crop_bottom)
        if self.crop is not None and self.crop not in CROP_FRACTIONS:
            raise UserError(f"unknown crop {self.crop!r}: use one of {', '.join(CROP_FRACTIONS)}, or none")


class DepthErrors(NamedTuple):
    """The seven metrics of Eigen et al. (2014), in the field's order; the last three are fractions of pixels, more is
    better."""

    abs_rel: float
    """mean |gt - pred| / gt"""
    sq_rel: float
    """mean (gt - pred)^2 / gt, metres. KITTI's field divides by gt, not by gt squared as the formula was first
    published."""
    rmse: float
    """metres"""
    rmse_log: float
    """of natural logarithms"""
    a1: float
    """max(gt / pred, pred / gt) < 1.25"""
    a2: float
    """... < 1.25^2"""
    a3: float
    """... < 1.25^3"""


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found: one row per image, their mean, and the scales that median scaling applied."""

    sample_names: tuple[str, ...]
    rows: tuple[DepthErrors, ...]
    ratios: tuple[float, ...]
    """median(gt) / median(pred) of each image; empty without median scaling."""
    skipped: tuple[str, ...]
    """Images whose ground truth has no pixel between the depth limits inside the crop."""
    flat: int = 0
    """How many of the evaluated predictions show one depth everywhere (`model.disparity.is_flat`)."""

    @property
    def mean(self) -> DepthErrors:
        """Mean of the rows: every image counts the same, however many pixels it has."""
        return DepthErrors(*np.mean(np.array(self.rows, dtype=np.float64), axis=0).tolist())

    @property
    def ratio_median(self) -> float | None:
        return float(np.median(self.ratios)) if self.ratios else None

    @property
    def ratio_std(self) -> float | None:
        """Standard deviation of the ratios divided by their median: how consistent the model's scale is."""
        return float(np.std(np.array(self.ratios) / np.median(self.ratios))) if self.ratios else None


def compute_depth_errors(gt: np.ndarray, pred: np.ndarray) -> DepthErrors:
    """The seven metrics over all elements of two arrays of one shape, positive depths in metres.

    Raises:
        ValueError: shapes differ, no element, or a depth that is not positive and finite.
    """
    if gt.shape != pred.shape or gt.size == 0:
        raise ValueError(f"gt and pred must have one shape and at least one element, got {gt.shape} and {pred.shape}")
    truth, guess = np.asarray(gt, dtype=np.float64), np.asarray(pred, dtype=np.float64)
    for label, depth in (("gt", truth), ("pred", guess)):
        if not (np.isfinite(depth).all() and (depth > 0).all()):
            raise ValueError(f"{label} must hold positive finite depths")
    ratio = np.maximum(truth / guess, guess / truth)
    difference = truth - guess
    return DepthErrors(
        abs_rel=float(np.mean(np.abs(difference) / truth)),
        sq_rel=float(np.mean(difference**2 / truth)),
        rmse=float(np.sqrt(np.mean(difference**2))),
        rmse_log=float(np.sqrt(np.mean((np.log(truth) - np.log(guess)) ** 2))),
        a1=float(np.mean(ratio < 1.25)),
        a2=float(np.mean(ratio < 1.25**2)),
        a3=float(np.mean(ratio < 1.25**3)),
    )


def crop_mask(height: int, width: int, crop: Crop | None) -> np.ndarray:
    """Boolean (height, width): True inside the crop; everywhere for None. Borders are truncated to whole pixels."""
    mask = np.zeros((height, width), dtype=bool)
    if crop is None:
        mask[:] = True
        return mask
    if crop not in CROP_FRACTIONS:
        raise UserError(f"unknown crop {crop!r}: use one of {', '.join(CROP_FRACTIONS)}, or none")
    top, bottom, left, right = CROP_FRACTIONS[crop]
    mask[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return mask


def flip_post_process(disp: np.ndarray, disp_of_flipped: np.ndarray) -> np.ndarray:
    """Blend the disparity of an image with that of its mirror image (Godard et al. 2017, section 3: post-processing).

    Args:
        disp: (..., H, W), predicted for the image.
        disp_of_flipped: (..., H, W), predicted for the mirrored image, as it came out, that is still mirrored.

    Returns:
        (..., H, W): their mean, but in the outer 5% of columns at the left the mirrored prediction and at the right the
        plain one, each of which is blind on the other side; both ramp to the mean over the next 5%.
    """
    mirrored = disp_of_flipped[..., ::-1]
    left = 1.0 - np.clip(20.0 * (np.linspace(0.0, 1.0, disp.shape[-1]) - 0.05), 0.0, 1.0)
    right = left[::-1]
    blend = right * disp + left * mirrored + (1.0 - left - right) * 0.5 * (disp + mirrored)
    return blend.astype(disp.dtype)


def evaluate_depths(
    predictions: Iterable[np.ndarray],
    ground_truths: Iterable[np.ndarray],
    protocol: EvaluationProtocol | None = None,
    sample_names: Sequence[str] | None = None,
) -> EvaluationResult:
    """Evaluate predicted inverse depths against depth maps, as the KITTI Eigen split is evaluated.

    Args:
        predictions: inverse depth (1 / depth), (h, w) each; resized to the truth's size before it is inverted.
        ground_truths: depth in metres, (H, W) each, 0 where unknown.
        protocol: what counts and how; None: `EvaluationProtocol()`.
        sample_names: one per image, for the rows and for messages.

    Raises:
        UserError: the numbers of predictions and truths differ, a prediction is not finite or is negative, or no image
            has a pixel to count.
    """
    protocol = protocol or EvaluationProtocol()
    rows: list[DepthErrors] = []
    ratios: list[float] = []
    kept: list[str] = []
    skipped: list[str] = []
    flat = 0
    for index, (disparity, truth) in enumerate(zip_longest(predictions, ground_truths)):
        if disparity is None or truth is None:
            more = "predictions" if truth is None else "ground truths"
            raise UserError(
                f"there are more {more} than their counterparts ({index}): evaluate the same split for both"
            )
        name = sample_names[index] if sample_names is not None else f"image {index}"
        with naming(name):
            compared = _compare(disparity, truth, protocol)
        if compared is None:
            skipped.append(name)
            continue
        errors, ratio = compared
        rows.append(errors)
        kept.append(name)
        flat += is_flat(disparity)
        if protocol.median_scaling:
            ratios.append(ratio)
    if not rows:
        raise UserError(
            f"no image to evaluate: none of {len(skipped)} ground truths has a depth between {protocol.min_depth:g} "
            f"and {protocol.max_depth:g} m inside the crop ({protocol.crop or 'none'})"
        )
    return EvaluationResult(tuple(kept), tuple(rows), tuple(ratios), tuple(skipped), flat)


def _compare(
    disparity: np.ndarray, truth: np.ndarray, protocol: EvaluationProtocol
) -> tuple[DepthErrors, float] | None:
    """Errors of one image and the ratio that median scaling applied (1 without); None where no pixel counts."""
    inside = cut_bottom(crop_mask(truth.shape[0], truth.shape[1], protocol.crop), protocol.crop_bottom)
    truth = cut_bottom(truth, protocol.crop_bottom)
    mask = (truth > protocol.min_depth) & (truth < protocol.max_depth) & inside
    if not mask.any():
        return None
    if not np.isfinite(disparity).all() or (disparity < 0).any():
        raise UserError("the predicted inverse depth has negative or non-finite values")
    # An inverse depth of 0 is a point at infinity; the floor keeps its depth finite until the cap below.
    depth = protocol.scale_factor / np.maximum(resize_map(disparity, *truth.shape)[mask].astype(np.float64), 1e-9)
    measured = truth[mask].astype(np.float64)
    ratio = float(np.median(measured) / np.median(depth)) if protocol.median_scaling else 1.0
    return compute_depth_errors(measured, np.clip(depth * ratio, protocol.min_depth, protocol.max_depth)), ratio


def evaluate_model(
    model: DepthPredictor,
    images: Iterable[np.ndarray],
    ground_truths: Iterable[np.ndarray],
    protocol: EvaluationProtocol | None = None,
    sample_names: Sequence[str] | None = None,
    batch_size: int = 8,
) -> EvaluationResult:
    """Predict images (uint8 RGB, (h, w, 3), any size) and evaluate them; images and truths may be lazy, few are held
    at once.

    Args:
        batch_size: images that are predicted at a time.

    The other arguments and the errors are those of `evaluate_depths`.
    """
    protocol = protocol or EvaluationProtocol()
    cut = (cut_bottom(image, protocol.crop_bottom) for image in images)
    predictions = _predict_in_batches(model, cut, protocol.post_process, batch_size)
    return evaluate_depths(predictions, ground_truths, protocol, sample_names)


def _predict_in_batches(
    model: DepthPredictor, images: Iterable[np.ndarray], post_process: bool, batch_size: int
) -> Iterator[np.ndarray]:
    stream = iter(images)
    while batch := list(islice(stream, batch_size)):
        disparities = predict_disparities(model, batch)
        if post_process:
            flipped = predict_disparities(model, [image[:, ::-1] for image in batch])
            disparities = flip_post_process(disparities, flipped)
        yield from disparities


def mean_depth_prior(depths: Iterable[np.ndarray]) -> np.ndarray:
    """The best guess that never looks at an image: the mean depth at every pixel over the given maps.

    Args:
        depths: (H, W) each, metres, 0 where unknown. Maps of another size than the first are brought to its size
            (nearest).

    Returns:
        (H, W) float32; a pixel known in no map takes the value of the nearest known one. Evaluate `1 / prior` as a
        prediction: a model that does no better has learnt the shape of a road scene and nothing of the image.
    """
    total: np.ndarray | None = None
    count: np.ndarray | None = None
    for depth in depths:
        if total is None or count is None:
            total = np.zeros(depth.shape, dtype=np.float64)
            count = np.zeros(depth.shape, dtype=np.int64)
        elif depth.shape != total.shape:
            depth = cv2.resize(depth, total.shape[::-1], interpolation=cv2.INTER_NEAREST)
        total += depth
        count += depth > 0
    if total is None or count is None or not count.any():
        raise UserError("the mean depth of a training set needs at least one depth map with a known pixel")
    mean = (total / np.maximum(count, 1)).astype(np.float32)
    unknown = (count == 0).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    by_label = np.zeros(int(labels.max()) + 1, dtype=np.float32)
    by_label[labels[unknown == 0]] = mean[unknown == 0]
    return by_label[labels]


def save_csv(result: EvaluationResult, path: str | Path) -> None:
    """One line per evaluated image: name, the seven metrics, and the scale ratio where median scaling was on."""
    with atomic_path(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *DepthErrors._fields, *(["ratio"] if result.ratios else [])])
        for index, (name, row) in enumerate(zip(result.sample_names, result.rows, strict=True)):
            ratio = [f"{result.ratios[index]:.6f}"] if result.ratios else []
            writer.writerow([name, *(f"{value:.6f}" for value in row), *ratio])


def format_table(result: EvaluationResult) -> str:
    """The mean of the seven metrics in the field's order, below it the number of images and the scale ratios; then what
    is unusual: images left out, and flat predictions."""
    header = " | ".join(f"{field:>8}" for field in DepthErrors._fields)
    metrics = " | ".join(f"{value:8.3f}" for value in result.mean)
    lines = [header, metrics, f"{len(result.rows)} images"]
    if result.ratios:
        lines[-1] += f"; scale ratios: median {result.ratio_median:.3f}, std {result.ratio_std:.3f}"
    if result.skipped:
        lines.append(
            f"{len(result.skipped)} images without a pixel to count were left out: {', '.join(result.skipped[:3])}"
        )
    if result.flat:
        lines.append(
            f"flat predictions, with one depth everywhere: {result.flat} of {len(result.rows)}; see the warnings of "
            "the run that trained these weights"
        )
    return "\n".join(lines)
