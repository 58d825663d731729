"""Evaluates predicted inverse depth against depth maps, as on KITTI's Eigen split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import NamedTuple

import numpy as np

from ..errors import UserError, naming
from ..images import cut_bottom
from ..model.disparity import is_flat
from ..model.predictor import DepthPredictor, predict_disparities, resize_map
from .edges import EdgeCounts, EdgeScores, compare_edges, edge_scores
from .metrics import DepthErrors, compute_depth_errors
from .protocol import EvaluationProtocol, crop_mask


@dataclass(frozen=True)
class EvaluationResult:
    """The result of an evaluation: one row per image, their mean, and the scales that median scaling applied."""

    sample_names: tuple[str, ...]
    rows: tuple[DepthErrors, ...]
    ratios: tuple[float, ...]
    """median(gt) / median(pred) of each image; empty without median scaling."""
    skipped: tuple[str, ...]
    """Images whose ground truth has no pixel between the depth limits inside the crop."""
    flat: int = 0
    """How many of the evaluated predictions show the same depth everywhere (`model.disparity.is_flat`)."""
    edge_counts: tuple[EdgeCounts, ...] = ()
    """Edge pixels of each image, where the protocol compares edges."""

    @property
    def mean(self) -> DepthErrors:
        """Mean of the rows: every image counts the same, however many pixels it has."""
        return DepthErrors(*np.mean(np.array(self.rows, dtype=np.float64), axis=0).tolist())

    @property
    def edges(self) -> EdgeScores | None:
        """Scores of the depth edges of all images together; None where edges were not compared or there are none."""
        return edge_scores(self.edge_counts)

    @property
    def ratio_median(self) -> float | None:
        return float(np.median(self.ratios)) if self.ratios else None

    @property
    def ratio_std(self) -> float | None:
        """Standard deviation of the ratios divided by their median: small where the model's scale is consistent."""
        return float(np.std(np.array(self.ratios) / np.median(self.ratios))) if self.ratios else None


def flip_post_process(disp: np.ndarray, disp_of_flipped: np.ndarray) -> np.ndarray:
    """Blends the disparity of an image with that of its mirror image (Godard et al. 2017, section 3: post-processing).

    Args:
        disp: (..., H, W), predicted for the image.
        disp_of_flipped: (..., H, W), predicted for the mirrored image, and still mirrored.

    Returns:
        (..., H, W): their mean, except in the outer 5% of columns: on the left the mirrored prediction, on the right
        the plain one, since each is unreliable on the other side. Both change to the mean over the next 5%.
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
    observe: Callable[[int, np.ndarray, np.ndarray], None] | None = None,
) -> EvaluationResult:
    """Evaluates predicted inverse depths against depth maps, as on KITTI's Eigen split.

    Args:
        predictions: inverse depth (1 / depth), (h, w) each; it is resized to the truth's size before it is inverted.
        ground_truths: depth in metres, (H, W) each, 0 where unknown.
        protocol: which pixels count, and how; None: `EvaluationProtocol()`.
        sample_names: one per image, for the rows and for messages.
        observe: called for each image that counts, with its index, its inverse depth and its truth.

    Raises:
        UserError: the numbers of predictions and truths differ, a prediction is not finite or is negative, or no image
            has a pixel to count.
    """
    protocol = protocol or EvaluationProtocol()
    compared: list[_Compared] = []
    kept: list[str] = []
    skipped: list[str] = []
    for index, (disparity, truth) in enumerate(zip_longest(predictions, ground_truths)):
        if disparity is None or truth is None:
            more = "predictions" if truth is None else "ground truths"
            raise UserError(
                f"there are more {more} than their counterparts ({index}): evaluate the same split for both"
            )
        name = sample_names[index] if sample_names is not None else f"image {index}"
        with naming(name):
            image = _compare(disparity, truth, protocol)
        if image is None:
            skipped.append(name)
            continue
        compared.append(image)
        kept.append(name)
        if observe is not None:
            observe(index, disparity, truth)
    if not compared:
        raise UserError(
            f"no image to evaluate: none of {len(skipped)} ground truths has a depth between {protocol.min_depth:g} "
            f"and {protocol.max_depth:g} m inside the crop ({protocol.crop or 'none'})"
        )
    return EvaluationResult(
        tuple(kept),
        rows=tuple(image.errors for image in compared),
        ratios=tuple(image.ratio for image in compared) if protocol.median_scaling else (),
        skipped=tuple(skipped),
        flat=sum(image.is_flat for image in compared),
        edge_counts=tuple(image.edges for image in compared if image.edges is not None),
    )


class _Compared(NamedTuple):
    """The result for one image."""

    errors: DepthErrors
    ratio: float
    """The factor that median scaling applied; 1 without it."""
    is_flat: bool
    edges: EdgeCounts | None


def _compare(disparity: np.ndarray, truth: np.ndarray, protocol: EvaluationProtocol) -> _Compared | None:
    """Compares one image; None where no pixel counts."""
    inside = cut_bottom(crop_mask(truth.shape[0], truth.shape[1], protocol.crop), protocol.crop_bottom)
    truth = cut_bottom(truth, protocol.crop_bottom)
    farthest = np.inf if protocol.far_truth_counts else protocol.max_depth
    mask = (truth > protocol.min_depth) & (truth < farthest) & inside
    if not mask.any():
        return None
    if not np.isfinite(disparity).all() or (disparity < 0).any():
        raise UserError("the predicted inverse depth has negative or non-finite values")
    inverse = resize_map(disparity, *truth.shape)
    # An inverse depth of 0 is a point at infinity; the floor keeps its depth finite until the cap below.
    depth = protocol.scale_factor / np.maximum(inverse[mask].astype(np.float64), 1e-9)
    measured = truth[mask].astype(np.float64)
    ratio = float(np.median(measured) / np.median(depth)) if protocol.median_scaling else 1.0
    errors = compute_depth_errors(measured, np.clip(depth * ratio, protocol.min_depth, protocol.max_depth))
    edges = None
    if protocol.edges:
        near, far = protocol.min_depth, protocol.max_depth
        whole = np.clip(protocol.scale_factor * ratio / np.maximum(inverse, 1e-9), near, far)
        edges = compare_edges(np.where(truth > 0, np.clip(truth, near, far), 0), whole, inside)
    return _Compared(errors, ratio, is_flat(disparity), edges)


def evaluate_model(
    model: DepthPredictor,
    images: Iterable[np.ndarray],
    ground_truths: Iterable[np.ndarray],
    protocol: EvaluationProtocol | None = None,
    sample_names: Sequence[str] | None = None,
    batch_size: int = 8,
) -> EvaluationResult:
    """Predicts images (uint8 RGB, (h, w, 3), any size) and evaluates them. Images and truths may be lazy iterables: few
    are held in memory at once.

    Args:
        batch_size: number of images that are predicted at a time.

    The other arguments and the errors are those of `evaluate_depths`.
    """
    protocol = protocol or EvaluationProtocol()
    cut = (cut_bottom(image, protocol.crop_bottom) for image in images)
    predictions = predict_in_batches(model, cut, protocol.post_process, batch_size)
    return evaluate_depths(predictions, ground_truths, protocol, sample_names)


def predict_in_batches(
    model: DepthPredictor, images: Iterable[np.ndarray], post_process: bool, batch_size: int
) -> Iterator[np.ndarray]:
    """1 / depth, (model.height, model.width), of images (h, w, 3), uint8 RGB, of any sizes."""
    stream = iter(images)
    while batch := list(islice(stream, batch_size)):
        disparities = predict_disparities(model, batch)
        if post_process:
            flipped = predict_disparities(model, [image[:, ::-1] for image in batch])
            disparities = flip_post_process(disparities, flipped)
        yield from disparities
