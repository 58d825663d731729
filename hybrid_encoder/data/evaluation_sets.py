"""Names and limits of the sets that depth is evaluated on; imports nothing, since the options of commands read them."""

from __future__ import annotations

IMPROVED_SPLITS = ("eigen_improved", "eigen_benchmark")
"""The Eigen split's test frames that have KITTI's improved ground truth: with Garg's crop, and in the original's way,
without."""
NYU_METRES, MAKE3D_METRES = 10.0, 70.0
"""Farthest depth that counts."""
