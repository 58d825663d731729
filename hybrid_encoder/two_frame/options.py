"""The options of the ManyDepth trainer, with the original's names where the meaning is the same."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import HybridEncoderConfig, check_image_size
from ..data.sample import FrameId
from ..errors import UserError
from ..options import EncoderOptions, Options, option, parse_settings
from ..stage2.options import (
    MAX_REACH,
    CollapseOptions,
    DataOptions,
    DepthOptions,
    EvaluateOptions,
    ObjectiveOptions,
    RunOptions,
    check_depth_options,
    check_hybrid_options,
    check_prevent_collapse,
)

Dataset = Literal["kitti", "kitti_odom", "video", "synthetic", "cityscapes_preprocessed"]
EvaluatedDataset = Literal["kitti", "kitti_odom", "video", "synthetic", "cityscapes", "nyu", "make3d"]


@dataclass(frozen=True)
class MatchingOptions(Options):
    """How frames are matched, and what the teacher is."""

    teacher_encoder: Literal["resnet", "hybrid"] = option("resnet", "encoder of the single-frame teacher")
    teacher_encoder_option: tuple[str, ...] = option(
        (), "NAME=VALUE, as --encoder_option: where a hybrid teacher differs; may be repeated", repeat=True
    )
    teacher_decoder: Literal["dpt", "unet"] | None = option(None, "default: dpt for hybrid, unet for resnet")
    mono_weights_folder: Path | None = option(
        None, "teacher and pose nets start from this folder: a Monodepth2 run's weights, or a ManyDepth run's"
    )
    start_from_teacher: bool = option(
        False, "the two-frame net starts as the teacher of --mono_weights_folder, its cost volume without effect"
    )
    freeze_teacher_and_pose: bool = option(False, "teacher and pose nets do not train at all")
    freeze_teacher_epoch: int = option(15, "from this epoch on (counted from 0) they are frozen", at_least=0)
    freeze_teacher_step: int = option(-1, "from this step on they are frozen; -1: the epoch decides", at_least=-1)
    on_freeze: Literal["continue", "fresh_adam"] = option(
        "continue",
        "when the teacher freezes, optimiser and schedule of the rest continue; fresh_adam: Adam and the schedule "
        "begin anew, at the full rate and without weight decay, as in ManyDepth and the released run",
    )
    clip_over: Literal["all", "encoder_decoder"] = option(
        "all",
        "--clip_grad is for all gradients together; encoder_decoder: for those of the two-frame encoder and of its "
        "decoder apart, and the teacher's and the pose nets' are not cut, as in the released run",
    )
    depth_binning: Literal["linear", "inverse"] = option("linear", "bins evenly spaced in depth or in 1 / depth")
    num_depth_bins: int = option(96, "depth bins of the cost volume", at_least=2, at_most=1024)
    num_matching_frames: int = option(
        1, "frames before the current one that it is matched with", at_least=0, at_most=MAX_REACH
    )
    use_future_frame: bool = option(False, "match with the frame after it, too")
    disable_motion_masking: bool = option(False, "trust the two-frame depth where it contradicts the teacher, too")
    no_matching_augmentation: bool = option(False, "do not train for static cameras and first frames")
    matching_memory: int | None = option(
        None, "MiB that matching may work in (default: what suits the device)", at_least=1
    )

    @property
    def matching_ids(self) -> tuple[int, ...]:
        """Ids of the lookup frames, in the order in which the encoder takes them."""
        return (1,) * self.use_future_frame + tuple(-n for n in range(1, self.num_matching_frames + 1))


@dataclass(frozen=True)
class ManydepthOptions(MatchingOptions, CollapseOptions, RunOptions, DataOptions, DepthOptions, EncoderOptions):
    """All options of `hybrid-encoder train manydepth`; options of `train monodepth2` are for the two-frame net."""

    dataset: Dataset = option("kitti", "what lies under --data_path")  # type: ignore[assignment]
    clip_grad: float | None = option(10.0, "largest norm of the gradient", above=0)

    @property
    def clip_parts(self) -> tuple[str, ...]:
        """Parts of the model whose gradients are clipped apart, as `--clip_over` says; empty: all together."""
        return ("net.encoder", "net.depth") if self.clip_over == "encoder_decoder" else ()

    @property
    def loaded_ids(self) -> tuple[FrameId, ...]:
        """Frame ids of a sample: the frames of the loss, then those that are only matched."""
        return (*self.all_frame_ids, *(i for i in self.matching_ids if i not in self.frame_ids))

    def objective(self) -> ObjectiveOptions:
        """The options that the losses read."""
        return dataclasses.replace(super().objective(), mean_over_mask=True)

    def teacher(self) -> DepthOptions:
        """The options of the teacher and the pose nets, as the single-frame trainer has them."""
        options = dataclasses.replace(self, encoder=self.teacher_encoder, decoder=self.teacher_decoder)
        return options if options.decoder_kind == "dpt" else dataclasses.replace(options, head="sigmoid")

    def teacher_config(self, config: HybridEncoderConfig) -> HybridEncoderConfig:
        """The config of a hybrid teacher, from that of the two-frame net."""
        return config.replace(**parse_settings("teacher_encoder_option", self.teacher_encoder_option))

    def student(self) -> DepthOptions:
        """The options of the two-frame net; the pose nets are the teacher's."""
        return dataclasses.replace(
            self, pose_model_type="separate_resnet", stage1=self.stage1 if self.encoder == "hybrid" else None
        )

    def check(self) -> None:
        """Raises `UserError` for options that contradict each other, before any data is read."""
        check_image_size(self.height, self.width)
        self.check_run()
        if self.teacher_encoder == "resnet" and self.pose_model_type == "class_token":
            raise UserError("--pose_model_type class_token needs a teacher with class tokens: --teacher_encoder hybrid")
        if "hybrid" not in (self.encoder, self.teacher_encoder) and self.stage1 is not None:
            raise UserError("--stage1 holds a hybrid encoder: use --encoder hybrid or --teacher_encoder hybrid")
        check_hybrid_options(self, self, "hybrid" in (self.encoder, self.teacher_encoder))
        teacher_config = self.teacher_config(self.config())
        if self.on_freeze == "fresh_adam" and self.lr_schedule == "one_cycle":
            raise UserError("--on_freeze fresh_adam begins the schedule anew: use --lr_schedule step")
        check_depth_options(self.student())
        teacher = self.teacher()
        check_depth_options(teacher if self.teacher_encoder == "hybrid" else dataclasses.replace(teacher, stage1=None))
        if len(self.frame_ids) < 2:
            raise UserError("--frame_ids 0 gives the pose nets, which matching needs, nothing to learn from: add -1 1")
        if not self.matching_ids:
            raise UserError(
                f"--num_matching_frames {self.num_matching_frames}: expected at least 1, or --use_future_frame"
            )
        if self.prevent_collapse:
            check_prevent_collapse(self, teacher)
            if self.mono_weights_folder is not None:
                raise UserError(
                    "--prevent_collapse is for teachers that learn from random numbers: not --mono_weights_folder"
                )
        if self.start_from_teacher:
            if self.mono_weights_folder is None:
                raise UserError("--start_from_teacher needs a trained teacher: add --mono_weights_folder")
            if (self.encoder, self.decoder_kind) != (self.teacher_encoder, teacher.decoder_kind):
                raise UserError("--start_from_teacher: the teacher needs the encoder and decoder of the two-frame net")
            if self.encoder == "hybrid":
                self.config().check_same_features(teacher_config, "--start_from_teacher: the teacher")


@dataclass(frozen=True)
class TwoFrameEvaluateOptions(EvaluateOptions):
    """All options of `hybrid-encoder evaluate`, for single-frame and two-frame weights alike."""

    dataset: EvaluatedDataset = option("kitti", "what lies under --data_path")  # type: ignore[assignment]
    eval_teacher: bool = option(False, "the single-frame teacher of a two-frame run")
    static_camera: bool = option(False, "two-frame: every frame is its own previous frame")
    zero_cost_volume: bool = option(False, "two-frame: no previous frame, as at the start of a sequence")
    matching_memory: int | None = option(None, "two-frame: MiB that matching may work in", at_least=1)

    def check(self, two_frame: bool) -> None:
        """Raises `UserError` for two-frame options beside single-frame weights."""
        for name in ("eval_teacher", "static_camera", "zero_cost_volume", "matching_memory"):
            if getattr(self, name) and not two_frame:
                raise UserError(f"--{name} is for two-frame weights: those of {self.weights} look at one frame")
