"""The options of the Monodepth2 trainer: the original's names where they mean the same, and ours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import MAX_EVAL_DEPTH, MIN_EVAL_DEPTH, check_image_size
from ..data.sample import FrameId
from ..engine.options import RESUMABLE, TrainingOptions
from ..errors import UserError
from ..images import check_crop_bottom
from ..options import HYBRID_ONLY, EncoderOptions, check_at_least, option
from .objective import ObjectiveOptions


@dataclass(frozen=True)
class DataOptions:
    """Where the frames come from; shared by all trainers and by evaluation."""

    dataset: Literal["kitti", "kitti_odom", "video", "synthetic"] = option("kitti", "what lies under --data_path")
    data_path: Path | None = option(None, "folder of the data set, a video file, or a folder of frames")
    split: str = option("eigen_zhou", "name or folder of train_files.txt, val_files.txt, test_files.txt")
    png: bool = option(False, "frames are png, not jpg")
    intrinsics: str | None = option(
        None, "fx,fy,cx,cy in pixels of the source frames, or a JSON file (video; kitti: in place of calibration files)"
    )
    crop_bottom: float = option(0.0, "share of the source image cut off below, e.g. 0.07 for a bonnet")
    height: int = option(192, "image height, a multiple of 32")
    width: int = option(640, "image width, a multiple of 32")
    scenes: int = option(40, "rendered training sequences (synthetic)")


FREE_OPTIONS = RESUMABLE | {
    "log_dir", "model_name", "data_path", "no_cuda", "num_epochs", "save_frequency", "matching_memory",
}  # fmt: skip
"""Options that may differ when a run goes on; the number of epochs only where the schedule does not hang on it."""


@dataclass(frozen=True)
class RunOptions(TrainingOptions):
    """How a trainer's run goes; shared by all trainers."""

    log_dir: Path = option(Path("runs"), "runs are written to LOG_DIR/MODEL_NAME")
    model_name: str = option("mdp", "name of the run")
    no_cuda: bool = option(False, "the original's spelling of --device cpu")
    batch_size: int = option(12, "samples of a step and process")
    learning_rate: float = option(1e-4, "learning rate")
    num_epochs: int = option(20, "epochs")
    lr_schedule: Literal["step", "one_cycle"] = option(
        "step", "one_cycle: warm up over a tenth of the run, then cool down; for nets that start from random numbers"
    )
    scheduler_step_size: int = option(15, "epochs after which the learning rate falls to a tenth (step)")
    save_frequency: int = option(1, "epochs between two saved ones")
    load_weights_folder: Path | None = option(None, "start from the weights of this folder")
    clip_grad: float | None = option(None, "largest norm of the gradient")

    @property
    def free(self) -> frozenset[str]:
        """Options that may differ when the run goes on."""
        return FREE_OPTIONS - {"num_epochs"} if self.lr_schedule == "one_cycle" else FREE_OPTIONS

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.log_dir.expanduser() / self.model_name

    def check_run(self) -> None:
        """Raises `UserError` for numbers out of range and for weights that are not there."""
        self.check_training()
        least: dict[str, float] = {"num_epochs": 0, "learning_rate": 0}
        check_at_least(self, {**least, "batch_size": 1, "save_frequency": 1, "scheduler_step_size": 1})
        if self.clip_grad is not None and self.clip_grad <= 0:
            raise UserError(f"--clip_grad {self.clip_grad}: expected a norm above 0")
        if self.load_weights_folder is not None and not self.load_weights_folder.is_dir():
            raise UserError(f"--load_weights_folder {self.load_weights_folder}: no such folder")


@dataclass(frozen=True)
class DepthOptions:
    """Networks and loss of single-frame depth; shared by all trainers."""

    encoder: Literal["resnet", "hybrid"] = option("hybrid", "depth encoder")
    encoder_lr: float | None = option(None, "learning rate of the encoder, where it differs")
    num_layers: Literal[18, 34, 50, 101, 152] = option(18, "layers of the ResNets")
    decoder: Literal["dpt", "unet"] | None = option(None, "default: dpt for hybrid, unet for resnet")
    head: Literal["sigmoid", "relu"] = option("sigmoid", "end of the DPT decoder; relu is the released runs'")
    stage1: Path | None = option(None, "stage1.pth of `hybrid-encoder pretrain`, or the authors' .ckpt")
    pose_model_type: Literal["separate_resnet", "shared", "class_token"] = option(
        "separate_resnet", "camera pose from its own ResNet, from the depth encoder's maps, or from DINO's class tokens"
    )
    frame_ids: tuple[int, ...] = option((0, -1, 1), "frames of a sample, 0 first")
    scales: tuple[int, ...] | None = option(None, "disparity scales (default: 0 for dpt, 0 1 2 3 for unet)")
    use_stereo: bool = option(False, "the other camera's frame is a source, too")
    min_depth: float = option(0.1, "nearest depth")
    max_depth: float = option(100.0, "farthest depth")
    disparity_smoothness: float = option(1e-3, "weight of smoothness")
    avg_reprojection: bool = option(False, "average over source frames in place of the minimum")
    disable_automasking: bool = option(False, "keep pixels that do not move")
    no_ssim: bool = option(False, "L1 alone")
    text_weight: float = option(
        0.0, "weight of pixel-wise text supervision: a pixel's logits should pick the bin of its predicted depth"
    )

    def lr_of_encoder(self, lr: float) -> float:
        """`--encoder_lr`, or else the learning rate of all."""
        return lr if self.encoder_lr is None else self.encoder_lr

    @property
    def decoder_kind(self) -> str:
        """The decoder, where none was asked for: the encoder's usual one."""
        return self.decoder or ("dpt" if self.encoder == "hybrid" else "unet")

    @property
    def disparity_scales(self) -> tuple[int, ...]:
        """The scales, where none were asked for: the decoder's usual ones."""
        return self.scales or ((0,) if self.decoder_kind == "dpt" else (0, 1, 2, 3))

    @property
    def all_frame_ids(self) -> tuple[FrameId, ...]:
        """Frames of a sample, the stereo partner last."""
        return (*self.frame_ids, "s") if self.use_stereo else self.frame_ids

    def objective(self) -> ObjectiveOptions:
        """The part that the loss reads."""
        return ObjectiveOptions(
            self.min_depth,
            self.max_depth,
            self.disparity_smoothness,
            self.no_ssim,
            self.avg_reprojection,
            self.disable_automasking,
        )


@dataclass(frozen=True)
class Monodepth2Options(RunOptions, DataOptions, DepthOptions, EncoderOptions):
    """All options of `hybrid-encoder train monodepth2`."""

    def check(self) -> None:
        """Raises `UserError` for options that contradict each other, before any data is read."""
        check_image_size(self.height, self.width)
        self.check_run()
        check_depth_options(self)
        check_hybrid_options(self, self, self.encoder == "hybrid")


@dataclass(frozen=True)
class EvaluateOptions(DataOptions):
    """All options of `hybrid-encoder evaluate`; the names are the original's where they mean the same."""

    weights: str = option("", "folder of weights that a trainer or save_pretrained wrote, or a hub id", required=True)
    part: Literal["test", "val", "train"] = option("test", "which file of the split")
    truth: str = option("velodyne", "velodyne, improved (16-bit PNG), or an .npz made by export-gt")
    crop: Literal["auto", "garg", "eigen", "none"] = option("auto", "auto: garg for raw LiDAR, else none")
    eval_stereo: bool = option(False, "a model trained with stereo: scale 5.4 in place of median scaling")
    disable_median_scaling: bool = option(False, "take predicted depth as metres")
    pred_depth_scale_factor: float = option(1.0, "multiply predicted depth by this")
    min_eval_depth: float = option(MIN_EVAL_DEPTH, "nearest depth that counts, in metres")
    max_eval_depth: float = option(MAX_EVAL_DEPTH, "farthest depth that counts, in metres")
    post_process: bool = option(False, "average with the prediction of the mirrored image")
    prior: bool = option(False, "also the errors of the best guess that looks at no image (synthetic)")
    csv: Path | None = option(None, "write one line per image to this file")
    batch_size: int = option(4, "images at a time")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    precision: Literal["float32", "bf16"] = option("float32", "bf16: mixed precision")
    compile: bool = option(False, "compile the nets with torch.compile")
    seed: int = option(0, "seed of rendered scenes")

    def check_numbers(self) -> None:
        """Raises `UserError` for numbers out of range."""
        check_at_least(self, {"batch_size": 1, "scenes": 1, "seed": 0})
        check_crop_bottom(self.crop_bottom)
        if not 0 < self.pred_depth_scale_factor < math.inf:
            raise UserError(f"--pred_depth_scale_factor {self.pred_depth_scale_factor}: expected a number above 0")
        if self.csv is not None and self.csv.is_dir():
            raise UserError(f"--csv {self.csv} is a folder: name a file")


def check_hybrid_options(options: EncoderOptions, depth: DepthOptions, any_hybrid: bool) -> None:
    """Raises `UserError` for options of the hybrid encoder that nothing would read, or that ask for what it lacks.

    Args:
        any_hybrid: whether any net has a hybrid encoder.
    """
    if not any_hybrid:
        for name in HYBRID_ONLY:
            if getattr(options, name):
                raise UserError(f"--{name} is for the hybrid encoder: add --encoder hybrid")
        if depth.text_weight:
            raise UserError("--text_weight needs the text logits of --encoder hybrid")
        return
    config = options.config()
    if depth.text_weight and config.alignment == "none":
        raise UserError("--text_weight needs the text logits, which alignment=none leaves out")
    if depth.pose_model_type == "class_token" and config.dino is None:
        raise UserError("--pose_model_type class_token needs DINO's class token, and dino is null")


def check_depth_options(options: DepthOptions) -> None:
    """What holds for every trainer; raises `UserError`."""
    if options.frame_ids[0] != 0 or len(set(options.frame_ids)) != len(options.frame_ids):
        raise UserError(f"--frame_ids {' '.join(map(str, options.frame_ids))}: 0 comes first, and each only once")
    if len(options.all_frame_ids) < 2:
        raise UserError("--frame_ids 0 alone gives nothing to compare with: add -1 1, or --use_stereo")
    if options.encoder_lr is not None and not 0 <= options.encoder_lr < math.inf:
        raise UserError(f"--encoder_lr {options.encoder_lr}: expected 0 or more")
    if options.stage1 is not None and not options.stage1.is_file():
        raise UserError(f"--stage1 {options.stage1}: no such file, expected what `hybrid-encoder pretrain` wrote")
    if not 0 < options.min_depth < options.max_depth < math.inf:
        raise UserError(f"--min_depth {options.min_depth} --max_depth {options.max_depth}: expected 0 < min < max")
    if options.encoder == "resnet":
        if options.decoder == "dpt":
            raise UserError("--decoder dpt reads the hybrid encoder's levels: use --encoder hybrid, or --decoder unet")
        if options.pose_model_type == "class_token":
            raise UserError("--pose_model_type class_token needs DINO's class token: use --encoder hybrid")
        if options.stage1 is not None:
            raise UserError("--stage1 holds a hybrid encoder: use --encoder hybrid")
    if options.head == "relu" and options.decoder_kind != "dpt":
        raise UserError("--head relu is an end of the DPT decoder: use --decoder dpt")
