"""What `evaluate` reads besides weights and data sets, and what it writes besides its table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..options import SCALE_FROM, Options, option

BENCHMARK = "benchmark"
"""The original's name of KITTI's depth test images, whose truth only KITTI's server knows."""

_OF_NETS = (
    "weights",
    "save_pred_disps",
    "post_process",
    "eval_teacher",
    "static_camera",
    "zero_cost_volume",
    "compile",
)
_OF_DEPTH = ("images", "ext_disp_to_eval", "no_eval", "save_pred_disps", "post_process", "eval_teacher", "compile")
_OF_TRUTH = ("csv", "prior", "edges", "scale_from")
"""Options that mean nothing without nets, in odometry, and without a truth."""


@dataclass(frozen=True)
class EvaluationFileOptions(Options):
    """The names are the original's where it has one."""

    pose: bool = option(
        False,
        "odometry in place of depth, error of 5-frame snippets: --dataset kitti_odom --split odom_9, or synthetic",
    )
    images: Path | None = option(
        None, "folder of images in place of a data set; --truth is then the folder of their depth, under the same names"
    )
    depth_scale: float = option(
        256.0, "--images: values of a depth PNG for a metre, 1000 for millimetres; .npy files hold metres", above=0
    )
    ext_disp_to_eval: Path | None = option(
        None, "in place of --weights: inverse depths of all images in their order, .npy of (N, H, W)"
    )
    save_pred_disps: bool = option(False, "write the predicted inverse depths to disps_SPLIT_split.npy")
    no_eval: bool = option(False, "predict and write only, without truth")
    eval_out_dir: Path | None = option(
        None,
        "folder for --save_pred_disps and the 16-bit PNGs of --split benchmark (default: that of the weights), and for "
        "the poses.npy of --pose",
        writes="folder",
    )
    vis_dir: Path | None = option(
        None,
        "write a picture of each image, its depth and the truth, or a map of --pose, to this folder",
        writes="folder",
    )

    scale_from: str | None = option(
        None, f"a second table without median scaling, {SCALE_FROM}; poses without a file: of synthetic"
    )

    def check_files(self, weights: str, split: str) -> None:
        """Raises `UserError` for options that contradict each other.

        Args:
            weights, split: as given.
        """
        if not weights and self.ext_disp_to_eval is None:
            raise UserError("--weights is missing: give a folder of weights, a hub id, or --ext_disp_to_eval FILE.npy")
        if self.ext_disp_to_eval is not None:
            self._refuse(_OF_NETS, "--ext_disp_to_eval evaluates stored predictions")
        if self.pose:
            self._refuse(_OF_DEPTH + _OF_TRUTH, "--pose is about odometry")
        if self.scale_from is not None:
            self._refuse(("eval_stereo", "disable_median_scaling"), "--scale_from finds the scale")
        if self.no_eval or split == BENCHMARK:
            self._refuse(_OF_TRUTH, "nothing is compared with a truth")
        if self.no_eval and split != BENCHMARK and not self.save_pred_disps and self.vis_dir is None:
            raise UserError("--no_eval alone would write nothing: add --save_pred_disps or --vis_dir")

    def _refuse(self, names: tuple[str, ...], reason: str) -> None:
        for name in names:
            if getattr(self, name, None):
                raise UserError(f"{reason}: leave out --{name}")

    def out_dir(self, weights: str) -> Path:
        """Where files go that name no folder of their own.

        Raises:
            UserError: no folder is known.
        """
        if self.eval_out_dir is not None:
            return self.eval_out_dir
        if not weights or not Path(weights).is_dir():
            raise UserError("--eval_out_dir is missing: name the folder to write to")
        return Path(weights)
