"""The camera of a run: its intrinsics, and its path through each input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..data.calibration import Undistorter
from ..data.poses import read_poses
from ..data.video import VideoFrame, read_video
from ..errors import UserError, naming
from ..evaluation.trajectory import poses_of
from ..images import cut_bottom, kept_rows, read_image
from ..metric.camera import intrinsics_of_view, resize_intrinsics
from .overlap import ahead
from .settings import PredictionSettings
from .trajectory import CameraPath, PosePredictor, predict_path

IMAGES = Path()
"""The key of all images of a run together: one camera took them."""

Size = tuple[int, int]
"""Width and height."""


class Cameras:
    """Intrinsics and camera paths as the settings ask for them; each path is predicted once.

    Args:
        settings: of the run.
        poses: the pose nets; None: there are none.

    Attributes:
        factors: metres per unit of the model's depth, by video, once its scale is known; `IMAGES` is the key of all
            images.
    """

    def __init__(self, settings: PredictionSettings, poses: PosePredictor | None = None) -> None:
        self.settings, self.poses = settings, poses
        self._check()
        self.factors: dict[Path, float] = {}
        self._paths: dict[Path, CameraPath] = {}

    def _check(self) -> None:
        """Raises UserError where the settings need intrinsics or a camera path and neither is given."""
        source = self.settings.scale_from
        of_camera = source is not None and (source.kind == "camera_height" or source.needs_motion)
        if not self.knows_camera and (self.settings.points or of_camera):
            raise UserError(
                "points, and the scale from the camera's height, speed or poses, need the camera's intrinsics: give "
                "--intrinsics fx,fy,cx,cy (pixels of the inputs), a JSON file with K and image_size, or --fov DEGREES, "
                "the horizontal field of view"
            )
        if self.poses is None and self.settings.trajectory:
            raise UserError("the camera's motion is not known: give weights of a run with pose nets")

    @property
    def knows_camera(self) -> bool:
        """Whether the intrinsics are known."""
        return self.settings.camera is not None or self.settings.fov is not None

    @property
    def knows_paths(self) -> bool:
        """Whether the camera's path is given or can be predicted."""
        return self.poses is not None or self.settings.poses is not None

    def intrinsics_of_map(self, size: Size, map_size: Size | None = None) -> np.ndarray:
        """(3, 3), in pixels of a depth map of an image without the rows that `crop_bottom` cuts off.

        Args:
            size: of the whole image.
            map_size: of the map; None: that of the cropped image.

        Raises:
            UserError: the intrinsics belong to images of another size.
        """
        if self.settings.camera is not None:
            K = self.settings.camera.for_image(*size).K
        else:
            assert self.settings.fov is not None, "checked at the start"
            K = intrinsics_of_view(self.settings.fov, *size)
        kept = (size[0], kept_rows(size[1], self.settings.crop_bottom))
        return K if map_size is None else resize_intrinsics(K, kept, map_size)

    def seen(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """Frames as models see them: undistorted, and without the rows that `crop_bottom` cuts off."""
        undistort = Undistorter(self.settings.camera)
        for frame in frames:
            yield frame._replace(image=cut_bottom(undistort(frame.image), self.settings.crop_bottom))

    def predicted_path(self, images: Sequence[Path], video: Path | None = None) -> CameraPath:
        """The predicted path through consecutive images or through a video, in the unit of the model's depth.

        Raises:
            UserError: as `predict_path`.
        """
        key = video or IMAGES
        if key not in self._paths:
            assert self.poses is not None, "checked at the start"
            frames = read_video(video) if video else image_frames(images)
            stream = ahead(self.seen(frames), self.settings.batch_size)
            with naming(video or f"{len(images)} images"):
                self._paths[key] = predict_path(self.poses, stream, self.settings.batch_size)
        return self._paths[key]

    def predicted_poses(self, images: Sequence[Path], video: Path | None = None) -> np.ndarray:
        """The predicted path, (N, 4, 4), world from camera, in the unit of the depth that is written.

        Raises:
            UserError: as `predicted_path`.
        """
        poses = poses_of(self.predicted_path(images, video).motions)
        poses[:, :3, 3] *= self.factors.get(video or IMAGES, self.settings.scale_factor)
        return poses

    def poses_of_video(self, video: Path) -> np.ndarray:
        """(N, 4, 4), world from camera, in the unit of the depth that is written: from --poses, or else predicted.

        Raises:
            UserError: no such file, or as `predicted_path`.
        """
        if self.settings.poses is not None:
            return read_poses(self.settings.poses)
        return self.predicted_poses((), video)


def image_frames(images: Sequence[Path]) -> Iterator[VideoFrame]:
    """Images as frames, whose times are their numbers."""
    for number, path in enumerate(images):
        yield VideoFrame(read_image(path), float(number))
