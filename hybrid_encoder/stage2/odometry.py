"""Evaluates pose nets on drives whose poses are known: KITTI odometry, and rendered scenes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..colormap import write_picture
from ..data.calibration import read_intrinsics
from ..data.kitti import KittiOdometrySource
from ..data.poses import read_kitti_poses
from ..data.splits import SplitEntry
from ..errors import UserError, naming
from ..evaluation.trajectory import TrajectoryResult, motions_of, poses_of, snippet_errors
from ..images import cut_bottom
from ..prediction.map_picture import Path2D, draw_map
from ..prediction.trajectory import PosePredictor, predict_motions
from ..synthetic.sequence import SyntheticSource
from ..writing import write_npy
from .frames import open_source
from .options import EvaluateOptions

POSES_FILE = "poses.npy"
"""Predicted motions, as the original's `evaluate_pose.py` saves them."""
_SPLIT = re.compile("odom_([0-9]{1,2})")
_REACH = 4
"""Rendered drives get so many frames at either end, besides the three between."""


@dataclass(frozen=True)
class Drive:
    """Frames of one camera, with its poses."""

    name: str
    poses: np.ndarray
    """(N, 4, 4), world from camera."""
    read: Callable[[int], np.ndarray]
    """uint8 RGB (h, w, 3) of a frame."""

    def frames(self, crop_bottom: float) -> Iterator[np.ndarray]:
        """All frames in order, without a share of their rows below."""
        return (cut_bottom(self.read(frame), crop_bottom) for frame in range(len(self.poses)))


def evaluate_poses(options: EvaluateOptions, model: PosePredictor) -> TrajectoryResult:
    """Predicts the motions of all drives and compares them with the known ones; writes what the options ask for.

    Raises:
        UserError: no such data.
    """
    errors: list[float] = []
    predicted: list[np.ndarray] = []
    drives = open_drives(options)
    for drive in drives:
        with naming(drive.name):
            motions = predict_motions(model, drive.frames(options.crop_bottom), options.batch_size)
        errors += snippet_errors(motions_of(drive.poses), motions).tolist()
        predicted.append(motions)
        if options.vis_dir is not None:
            write_picture(options.vis_dir / f"{drive.name}.png", draw_map(_both_paths(drive.poses, motions)))
    if options.eval_out_dir is not None:
        write_npy(options.eval_out_dir / POSES_FILE, np.concatenate(predicted))
    return TrajectoryResult(tuple(errors), sum(len(drive.poses) for drive in drives))


def open_drives(options: EvaluateOptions) -> list[Drive]:
    """The drives of `--split odom_N`, or of rendered scenes.

    Raises:
        UserError: another data set or split, or missing files.
    """
    if options.dataset == "synthetic":
        return _rendered_drives(options)
    sequence = _SPLIT.fullmatch(options.split)
    if options.dataset != "kitti_odom" or options.data_path is None or sequence is None:
        raise UserError(
            "--pose needs drives whose poses are known: --dataset kitti_odom --data_path ODOMETRY --split odom_9 "
            "(sequences/09/image_2 and poses/09.txt in it), or --dataset synthetic"
        )
    number = int(sequence[1])
    poses = read_kitti_poses(options.data_path / "poses" / f"{number:02d}.txt")
    entries = [SplitEntry(str(number), frame, "l") for frame in range(len(poses))]
    camera = None if options.intrinsics is None else read_intrinsics(options.intrinsics)
    source = KittiOdometrySource(options.data_path, entries, (0,), options.png, camera)
    return [Drive(options.split, poses, lambda frame: source.read(frame, 0))]


def _rendered_drives(options: EvaluateOptions) -> list[Drive]:
    source = open_source(options, options.part, (0, -_REACH, _REACH), options.seed)
    assert isinstance(source, SyntheticSource)

    def drive(number: int) -> Drive:
        rendered = source.sequence(number)
        poses = rendered.T_world_camera.numpy().astype(np.float64)
        return Drive(f"drive_{number}", poses, lambda frame: rendered.images[frame].permute(1, 2, 0).numpy())

    return [drive(number) for number in range(source.sequences)]


def _both_paths(truth: np.ndarray, motions: np.ndarray) -> list[Path2D]:
    """The known path from its first camera on, and the predicted one, scaled to its length."""
    known, predicted = np.linalg.inv(truth[0]) @ truth, poses_of(motions)
    lengths = [np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum() for poses in (known, predicted)]
    predicted[:, :3, 3] *= lengths[0] / max(lengths[1], 1e-9)
    return [Path2D.of("truth", known), Path2D.of("predicted, scaled", predicted)]
