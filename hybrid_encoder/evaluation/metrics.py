"""The seven depth metrics of the field."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class DepthErrors(NamedTuple):
    """The seven metrics of Eigen et al. (2014), in the field's order; the last three are fractions of pixels, more is
    better."""

    abs_rel: float
    """mean |gt - pred| / gt"""
    sq_rel: float
    """mean (gt - pred)^2 / gt, metres. On KITTI the field divides by gt; the formula as first published divides by gt
    squared."""
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
