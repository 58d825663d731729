"""Writes the camera's path through videos and sequences of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..colormap import write_picture
from ..data.poses import write_kitti_poses, write_tum_poses
from .cameras import Cameras
from .inputs import find_inputs, output_stems
from .map_picture import Path2D, draw_map


def write_trajectories(cameras: Cameras, inputs: Sequence[str | Path], out: Path) -> list[Path]:
    """Writes the camera's path of every video, and of all images together, which are frames of one sequence.

    `<stem>_trajectory_tum.txt` and `<stem>_trajectory_kitti.txt` hold the poses in the world of the first camera,
    `<stem>_trajectory.png` shows them from above. Of images, the stem is left out, and TUM's times are their numbers.
    Lengths are in the unit of the depth that is written.

    Args:
        cameras: with pose nets.

    Returns:
        The files written.

    Raises:
        UserError: an input cannot be read, has fewer than two frames, or an output cannot be written.
    """
    found = find_inputs(inputs)
    images = [file.path for file in found if not file.is_video]
    written: list[Path] = []
    for file, stem in zip(found, output_stems([file.path for file in found]), strict=True):
        if file.is_video:
            written += _write(cameras, out / f"{stem}_trajectory", (), file.path)
    if images:
        written += _write(cameras, out / "trajectory", images)
    return written


def _write(cameras: Cameras, target: Path, images: Sequence[Path], video: Path | None = None) -> list[Path]:
    """The three files of one path; `target` is their name without its ending."""
    path, poses = cameras.predicted_path(images, video), cameras.predicted_poses(images, video)
    tum, kitti, picture = (target.with_name(target.name + ending) for ending in ("_tum.txt", "_kitti.txt", ".png"))
    write_tum_poses(tum, poses, path.seconds.tolist())
    write_kitti_poses(kitti, poses)
    write_picture(picture, draw_map([Path2D.of("predicted", poses)]))
    return [tum, kitti, picture]
