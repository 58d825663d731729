"""The options of the Monodepth2 trainer: the original's names where they mean the same, and ours."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..config import (
    MAX_CROP_BOTTOM,
    MAX_DEPTH,
    MAX_EVAL_DEPTH,
    MAX_SIDE,
    MIN_DEPTH,
    MIN_EVAL_DEPTH,
    SIZE_MULTIPLE,
    Resize,
    ResnetNormalization,
    check_image_size,
    check_scales,
)
from ..data.evaluation_sets import IMPROVED_SPLITS, MAKE3D_METRES, NYU_METRES
from ..data.sample import FrameId
from ..engine.options import RESUMABLE, RecipeOptions, TrainingOptions
from ..errors import UserError
from ..options import HYBRID_ONLY, MAX_SCENE_SEED, MAX_SCENES, YES, EncoderOptions, Options, Precision, option
from .evaluate_options import EvaluationFileOptions

MAX_REACH = 100
"""How many frames away from the target a frame of a sample is at most."""


@dataclass(frozen=True)
class ObjectiveOptions:
    """What goes into the loss; the names are the original trainers' options.

    `mean_over_mask` is ManyDepth's photometric loss: the mean over the pixels that auto-masking leaves in.
    """

    min_depth: float = MIN_DEPTH
    max_depth: float = MAX_DEPTH
    disparity_smoothness: float = 1e-3
    no_ssim: bool = False
    avg_reprojection: bool = False
    disable_automasking: bool = False
    mean_over_mask: bool = False


@dataclass(frozen=True)
class DataOptions(Options):
    """Where the frames come from; shared by all trainers and by evaluation."""

    dataset: Literal["kitti", "kitti_odom", "video", "synthetic"] = option("kitti", "what lies under --data_path")
    data_path: Path | None = option(None, "folder of the data set, a video file, or a folder of frames")
    split: str = option("eigen_zhou", "name or folder of train_files.txt, val_files.txt, test_files.txt")
    png: bool = option(False, "frames are png, not jpg")
    intrinsics: str | None = option(
        None, "fx,fy,cx,cy in pixels of the source frames, or a JSON file (video; kitti: in place of calibration files)"
    )
    crop_bottom: float = option(
        0.0, "share of the source image cut off below, e.g. 0.07 for a bonnet", at_least=0, at_most=MAX_CROP_BOTTOM
    )
    min_motion: float = option(
        0.0,
        "video: leave out frames in which the picture has moved less than this share of its width since the last one "
        "kept, e.g. 0.005: where the car stands or crawls",
        at_least=0,
        at_most=0.2,
    )
    height: int = option(192, "image height, a multiple of 32", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
    width: int = option(640, "image width, a multiple of 32", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
    scenes: int = option(40, "rendered training sequences (synthetic)", at_least=1, at_most=MAX_SCENES)


FREE_OPTIONS = RESUMABLE | {
    "log_dir", "model_name", "no_cuda", "num_epochs", "save_frequency", "matching_memory", "stop_on_collapse", "yes",
    "data_path", "split", "intrinsics", "stage1", "load_weights_folder", "mono_weights_folder",
}  # fmt: skip
"""Options that may differ when a run resumes; the number of epochs only where the schedule does not depend on it. Of
those in the last line the content is compared, not the path."""


@dataclass(frozen=True)
class RunOptions(RecipeOptions, TrainingOptions):
    """How a trainer's run goes; shared by all trainers."""

    log_dir: Path = option(Path("runs"), "runs are written to LOG_DIR/MODEL_NAME", writes="folder")
    model_name: str = option("mdp", "name of the run")
    no_cuda: bool = option(False, "the original's spelling of --device cpu")
    batch_size: int = option(12, "samples of a step and process", at_least=1)
    learning_rate: float = option(1e-4, "learning rate", at_least=0)
    num_epochs: int = option(20, "epochs", at_least=0)
    lr_schedule: Literal["step", "one_cycle"] = option(
        "step", "one_cycle: warm up over a tenth of the run, then cool down; for nets that start from random numbers"
    )
    jitter: Literal["sample", "frame"] = option(
        "sample", "frames of a sample change their colours alike; frame: each has its own, as in the released runs"
    )
    kitti_camera: Literal["calibration", "average"] = option(
        "calibration",
        "kitti, kitti_odom: intrinsics from calibration files; average: 0.58 and 1.92 widths and heights, centre 0.5, "
        "for every drive without --intrinsics, as in the originals and the released runs",
    )
    scheduler_step_size: int = option(15, "epochs after which the learning rate falls to a tenth (step)", at_least=1)
    save_frequency: int = option(1, "epochs between two saved ones", at_least=1)
    load_weights_folder: Path | None = option(None, "start from the weights of this folder")
    clip_grad: float | None = option(None, "largest norm of the gradient", above=0)
    stop_on_collapse: bool = option(
        False, "stop when two validations in a row find depth flat, at a limit or upside down, or no usable motion"
    )
    yes: bool = option(False, YES)

    @property
    def free(self) -> frozenset[str]:
        """Options that may differ when the run resumes."""
        return FREE_OPTIONS - {"num_epochs"} if self.lr_schedule == "one_cycle" else FREE_OPTIONS

    @property
    def clip_parts(self) -> tuple[str, ...]:
        """Parts of the model whose gradients `--clip_grad` cuts apart; none: all gradients together."""
        return ()

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.log_dir / self.model_name

    def check_run(self) -> None:
        """Raises `UserError` for options that exclude each other and for weights that are not there."""
        self.check_training()
        if self.load_weights_folder is not None and not self.load_weights_folder.is_dir():
            raise UserError(f"--load_weights_folder {self.load_weights_folder}: no such folder")


@dataclass(frozen=True)
class DepthOptions(Options):
    """Networks and loss of single-frame depth; shared by all trainers."""

    encoder: Literal["resnet", "hybrid"] = option("hybrid", "depth encoder")
    encoder_lr: float | None = option(None, "learning rate of the encoder, where it differs", at_least=0)
    decay_on: Literal["matrices", "all"] = option(
        "matrices",
        "what weight decay (0.01) acts on in the hybrid encoder: not on norms, biases and tokens; all: on everything, "
        "as in the released runs",
    )
    resize: Resize = option(
        "area", "how images are resized; lanczos as in the originals and the released runs, though not within videos"
    )
    num_layers: Literal[18, 34, 50, 101, 152] = option(18, "layers of the ResNets")
    decoder: Literal["dpt", "unet"] | None = option(None, "default: dpt for hybrid, unet for resnet")
    head: Literal["sigmoid", "relu"] = option("sigmoid", "end of the DPT decoder; relu is the released runs'")
    stage1: Path | None = option(None, "stage1.pth of `hybrid-encoder pretrain`, the authors' .ckpt, or released")
    stage1_pixels: Literal["same", "any"] = option(
        "same",
        "refuse a stage 1 that saw pixels with another mean and deviation; any: take it, as the released runs did",
    )
    pose_model_type: Literal["separate_resnet", "posecnn", "shared", "class_token"] = option(
        "separate_resnet",
        "camera pose from its own ResNet, from seven convolutions of its own, from the depth encoder's maps, or from "
        "DINO's class tokens",
    )
    pose_normalization: ResnetNormalization = option(
        "monodepth2",
        "what the pose ResNet does to pixels: monodepth2, (x - 0.45) / 0.225; none, as in the released Monodepth2 run",
    )
    frames_in_one_batch: bool = option(
        False,
        "shared, class_token: all frames pass the whole encoder as one batch, whose statistics batch norm takes, as in "
        "the released run; else frame 0 passes alone, and the others' class tokens need DINO only",
    )
    frame_ids: tuple[int, ...] = option(
        (0, -1, 1), "frames of a sample, 0 first", at_least=-MAX_REACH, at_most=MAX_REACH
    )
    scales: tuple[int, ...] | None = option(
        None, "disparity scales (default: 0 for dpt, 0 1 2 3 for unet)", at_least=0, at_most=3
    )
    use_stereo: bool = option(False, "the other camera's frame is a source, too")
    min_depth: float = option(MIN_DEPTH, "nearest depth", above=0)
    max_depth: float = option(MAX_DEPTH, "farthest depth", above=0)
    disparity_smoothness: float = option(1e-3, "weight of smoothness", at_least=0)
    avg_reprojection: bool = option(False, "average over source frames in place of the minimum")
    disable_automasking: bool = option(False, "keep pixels that do not move")
    no_ssim: bool = option(False, "L1 alone")
    text_weight: float = option(
        0.0,
        "weight of pixel-wise text supervision: a pixel's logits should pick the bin of its predicted depth",
        at_least=0,
    )

    def __post_init__(self) -> None:
        check_depth_limits("min_depth", self.min_depth, "max_depth", self.max_depth)
        super().__post_init__()
        if self.scales is not None:
            check_scales(self.scales)

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
class CollapseOptions(Options):
    """What keeps nets from collapsing; shared by all trainers."""

    prevent_collapse: bool = option(
        False,
        "for nets that start from random numbers: translations in mean depths, disparity held inside its range, and a "
        "camera that first moves forward",
    )


@dataclass(frozen=True)
class Monodepth2Options(CollapseOptions, RunOptions, DataOptions, DepthOptions, EncoderOptions):
    """All options of `hybrid-encoder train monodepth2`."""

    learn_intrinsics: bool = option(
        False,
        "video: learn the focal length, from that of --intrinsics on; one camera for all clips, the principal point "
        "stays. Clips without curves do not tell it: the run says so at its end",
    )

    def check(self) -> None:
        """Raises `UserError` for options that contradict each other, before any data is read."""
        check_image_size(self.height, self.width)
        self.check_run()
        check_depth_options(self)
        check_hybrid_options(self, self, self.encoder == "hybrid")
        if self.prevent_collapse:
            check_prevent_collapse(self, self)
        if self.learn_intrinsics:
            self._check_learn_intrinsics()

    def _check_learn_intrinsics(self) -> None:
        """Raises `UserError` where no focal length can be learnt."""
        if self.dataset != "video":
            raise UserError(f"--learn_intrinsics is for --dataset video: the cameras of {self.dataset} are known")
        if len(self.frame_ids) < 2:
            raise UserError("--learn_intrinsics learns from motion: add frames of other times, --frame_ids 0 -1 1")


def could_prevent_collapse(options: Any) -> bool:
    """Whether `--prevent_collapse` could be added to the options of a trainer, which are `CollapseOptions`."""
    try:
        replace(options, prevent_collapse=True).check()
    except UserError:
        return False
    return not options.prevent_collapse


def check_prevent_collapse(run: RunOptions, depth: DepthOptions) -> None:
    """Raises `UserError` for options with which `--prevent_collapse` has no meaning.

    Args:
        depth: of the net that is trained together with the pose nets.
    """
    folder = run.load_weights_folder
    if folder is not None and any(path.is_file() for at in ("", "models/*/") for path in folder.glob(f"{at}pose.pth")):
        raise UserError(
            "--prevent_collapse is for pose nets that start from random numbers: not with the pose.pth of "
            "--load_weights_folder"
        )
    if depth.use_stereo:
        raise UserError("--prevent_collapse leaves the scale open, which --use_stereo knows: leave one of them out")
    if depth.head == "relu":
        raise UserError("--prevent_collapse holds a sigmoid's disparity inside its range: leave out --head relu")


@dataclass(frozen=True)
class EvaluateOptions(EvaluationFileOptions, DataOptions):
    """All options of `hybrid-encoder evaluate`; the names are the original's where they mean the same."""

    weights: str = option("", "folder of weights that a trainer or save_pretrained wrote, a hub id, or released")
    part: Literal["test", "val", "train"] = option("test", "which file of the split")
    normalization: Literal["none", "imagenet", "own"] | None = option(
        None, "the authors' folders: how both towers saw pixels, where the folder does not show it"
    )
    truth: str = option(
        "auto",
        "velodyne, improved (16-bit PNG), or an .npz made by export-gt; auto: improved for the splits eigen_improved "
        "and eigen_benchmark, else velodyne",
    )
    crop: Literal["auto", "garg", "eigen", "nyu", "none"] = option(
        "auto", "auto: garg for raw LiDAR and eigen_improved, nyu for NYU, else none"
    )
    eval_stereo: bool = option(False, "a model trained with stereo: scale 5.4 in place of median scaling")
    disable_median_scaling: bool = option(False, "take predicted depth as metres")
    pred_depth_scale_factor: float = option(1.0, "multiply predicted depth by this", above=0)
    min_eval_depth: float = option(MIN_EVAL_DEPTH, "nearest depth that counts, in metres", above=0)
    max_eval_depth: float | None = option(
        None, f"farthest depth that counts, in metres (default: {MAX_EVAL_DEPTH:g}; NYU 10, Make3D 70)", above=0
    )
    post_process: bool = option(False, "average with the prediction of the mirrored image")
    edges: bool = option(False, "also compare depth edges: where the truth is dense and exact (always of synthetic)")
    prior: bool = option(False, "also the errors of the best guess that looks at no image (synthetic)")
    csv: Path | None = option(None, "write one line per image to this file", writes="file")
    batch_size: int = option(4, "images at a time", at_least=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    precision: Precision = option("float32", "bf16: mixed precision")
    compile: bool = option(False, "compile the nets with torch.compile")
    seed: int = option(0, "seed of rendered scenes", at_least=0, at_most=MAX_SCENE_SEED)
    yes: bool = option(False, YES)

    def __post_init__(self) -> None:
        check_depth_limits("min_eval_depth", self.min_eval_depth, "max_eval_depth", self.far_limit)
        super().__post_init__()

    @property
    def far_limit(self) -> float:
        """`--max_eval_depth`, or else the data set's."""
        usual = {"nyu": NYU_METRES, "make3d": MAKE3D_METRES}.get(self.dataset, MAX_EVAL_DEPTH)
        return usual if self.max_eval_depth is None else self.max_eval_depth

    @property
    def truth_kind(self) -> str:
        """`--truth` with "auto" made out."""
        if self.truth != "auto":
            return self.truth
        return "improved" if self.dataset == "kitti" and self.split in IMPROVED_SPLITS else "velodyne"


def check_depth_limits(near_name: str, near: float, far_name: str, far: float) -> None:
    """Raises `UserError` unless the two options are limits of depth."""
    if not 0 < near < far < math.inf:
        raise UserError(f"--{near_name} {near} --{far_name} {far}: expected 0 < min < max")


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
        if depth.decay_on == "all":
            raise UserError(
                "--decay_on all is for the hybrid encoder: ResNets train without weight decay, leave it out"
            )
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
    if options.stage1 is not None and not options.stage1.is_file():
        raise UserError(f"--stage1 {options.stage1}: no such file, expected what `hybrid-encoder pretrain` wrote")
    if options.encoder == "resnet":
        if options.decoder == "dpt":
            raise UserError("--decoder dpt reads the hybrid encoder's levels: use --encoder hybrid, or --decoder unet")
        if options.pose_model_type == "class_token":
            raise UserError("--pose_model_type class_token needs DINO's class token: use --encoder hybrid")
        if options.stage1 is not None:
            raise UserError("--stage1 holds a hybrid encoder: use --encoder hybrid")
    if options.head == "relu" and options.decoder_kind != "dpt":
        raise UserError("--head relu is an end of the DPT decoder: use --decoder dpt")
