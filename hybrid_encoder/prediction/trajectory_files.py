"""Writes the camera's path through a video or an image sequence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..colormap import write_picture
from ..data.poses import write_kitti_poses, write_tum_poses
from .cameras import Cameras
from .map_picture import Path2D, draw_map


def write_trajectory(cameras: Cameras, target: Path, images: Sequence[Path], video: Path | None = None) -> list[Path]:
    """Writes the predicted path through a video, or through images, which are frames of one sequence.

    `<target>_tum.txt` and `<target>_kitti.txt` hold the poses, in the coordinates of the first camera. `<target>.png`
    shows them from above. Lengths are in the unit of the depth that is written. The time of an image is its number.

    Args:
        cameras: with pose nets.
        target: name of the files without their ending.

    Returns:
        The files written.

    Raises:
        UserError: an input cannot be read, there are fewer than two frames, or an output cannot be written.
    """
    path, poses = cameras.predicted_path(images, video), cameras.predicted_poses(images, video)
    tum, kitti, picture = (target.with_name(target.name + ending) for ending in ("_tum.txt", "_kitti.txt", ".png"))
    write_tum_poses(tum, poses, path.seconds.tolist())
    write_kitti_poses(kitti, poses)
    write_picture(picture, draw_map([Path2D.of("predicted", poses)]))
    return [tum, kitti, picture]
