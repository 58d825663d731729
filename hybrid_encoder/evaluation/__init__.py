"""Compares predicted depth with measured depth: metrics with their crops, cap and median scaling, as the field computes
them."""

from .depths import EvaluationResult, evaluate_depths, evaluate_model, flip_post_process, predict_in_batches
from .edges import EdgeScores
from .metrics import DepthErrors, compute_depth_errors
from .prior import mean_depth_prior
from .protocol import CROP_FRACTIONS, STEREO_SCALE_FACTOR, Crop, EvaluationProtocol, crop_mask
from .table import format_table, save_csv

__all__ = [
    "CROP_FRACTIONS",
    "STEREO_SCALE_FACTOR",
    "Crop",
    "DepthErrors",
    "EdgeScores",
    "EvaluationProtocol",
    "EvaluationResult",
    "compute_depth_errors",
    "crop_mask",
    "evaluate_depths",
    "evaluate_model",
    "flip_post_process",
    "format_table",
    "mean_depth_prior",
    "predict_in_batches",
    "save_csv",
]
