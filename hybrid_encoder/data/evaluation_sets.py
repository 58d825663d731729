"""Names and limits of the sets for evaluation. Imports nothing, because the options of commands need them."""

from __future__ import annotations

IMPROVED_SPLITS = ("eigen_improved", "eigen_benchmark")
"""The Eigen split's test frames that have KITTI's improved ground truth: evaluated with Garg's crop, and as in the
original, without a crop."""
NYU_METRES, MAKE3D_METRES = 10.0, 70.0
"""Largest depth that counts, in metres."""
