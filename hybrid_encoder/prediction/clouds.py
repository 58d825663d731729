"""Coloured point clouds of images, and of a whole video."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ..errors import UserError
from ..images import resize_image
from ..metric.points import Cloud, VoxelGrid, cloud_of, on_surface
from ..model.predictor import resize_map
from .cameras import Size

VOXELS_OF_MEDIAN = 100
"""The median depth of a video's first frame, divided by the default side of a cell."""
_FRAMES_THAT_AGREE = 2
"""Number of frames that must see a cell of a video's cloud; what only one frame sees may be an error."""


def image_cloud(image: np.ndarray, depth: np.ndarray, K: np.ndarray) -> Cloud:
    """The points of an image, one per pixel on a surface, in camera axes and in the unit of depth.

    Args:
        image: uint8 RGB (H, W, 3).
        depth: (h, w) at the model's size, at which depth edges are sharp.
        K: (3, 3), pixels of the image.
    """
    height, width = image.shape[:2]
    kept = cv2.resize(on_surface(depth).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    return cloud_of(image, 1 / resize_map(1 / depth, height, width), kept, K)


class VideoCloud:
    """Fuses the points of a video's frames in world coordinates.

    Args:
        poses: (N, 4, 4) of all frames, world from camera, in the unit of the depth.
        intrinsics: (3, 3) for depth maps of some width and height.
        voxel: side of the cells; None: by `VOXELS_OF_MEDIAN`.
    """

    def __init__(self, poses: np.ndarray, intrinsics: Callable[[Size], np.ndarray], voxel: float | None) -> None:
        self._poses, self._intrinsics, self._voxel = poses, intrinsics, voxel
        self._grid: VoxelGrid | None = None
        self._count = 0

    def add(self, image: np.ndarray, depth: np.ndarray) -> None:
        """Adds the next frame, uint8 RGB (H, W, 3), and its depth, (h, w), at the model's size."""
        self._count += 1
        if self._count > len(self._poses):
            return
        height, width = depth.shape
        if self._grid is None:
            self._grid = VoxelGrid(self._voxel or float(np.median(depth)) / VOXELS_OF_MEDIAN)
        cloud = cloud_of(
            resize_image(image, height, width), depth, on_surface(depth), self._intrinsics((width, height))
        )
        self._grid.add(cloud, self._poses[self._count - 1])

    def cloud(self) -> Cloud:
        """All points.

        Raises:
            UserError: the number of poses differs from the number of frames.
        """
        if self._count != len(self._poses) or self._grid is None:
            raise UserError(
                f"the path has {len(self._poses)} poses for {self._count} frames of the video: expected one per frame"
            )
        return self._grid.cloud(min(_FRAMES_THAT_AGREE, self._count))
