"""The options of commands other than training and evaluation: a dataclass for each command, read without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import MAX_CROP_BOTTOM, MAX_SIDE, SIZE_MULTIPLE
from ..engine.options import MAX_WORKERS
from ..options import MAX_SCENE_SEED, MAX_SCENES, MAX_SEED, SCALE_FROM, YES, Options, Precision, option
from ..weights.in_package import DEFAULT


@dataclass(frozen=True)
class DemoOptions(Options):
    """All options of `hybrid-encoder demo`; the defaults take under five minutes on two CPU cores."""

    out: Path = option(
        Path("demo"),
        "folder for runs and report.html; the same command resumes a stopped demo, or replaces a finished one",
        writes="folder",
    )
    from_scratch: bool = option(
        False, "also train stage 1, instead of starting from the stage-1 weights in the package"
    )
    encoder: Literal["hybrid", "resnet"] = option("hybrid", "depth encoder; resnet skips stage 1")
    stage1_epochs: int = option(6, "epochs of stage 1", at_least=1)
    num_epochs: int = option(6, "epochs of stage 2", at_least=1)
    scenes: int = option(96, "number of rendered training drives for stage 2", at_least=1, at_most=MAX_SCENES)
    height: int = option(64, "image height", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
    width: int = option(192, "image width", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
    batch_size: int = option(4, "samples per step", at_least=1)
    learning_rate: float = option(5e-4, "learning rate of stage 2", at_least=0)
    device: str = option("cpu", "auto, cpu, cuda or cuda:N")
    seed: int = option(0, "seed of scenes and weights", at_least=0, at_most=MAX_SCENE_SEED)


@dataclass(frozen=True)
class FitOptions(Options):
    """All options of `hybrid-encoder fit`."""

    inputs: tuple[str, ...] = option(
        (), "a video, several videos of one camera, or a folder of frames", positional=True
    )
    out: Path = option(
        Path("fit"),
        "folder for weights, depth and report.html; the same command resumes a stopped fit, or replaces a finished one",
        writes="folder",
    )
    intrinsics: str | None = option(
        None,
        "fx,fy,cx,cy in pixels of the frames, or a JSON file; the focal length is learnt if this and --fov are missing",
    )
    fov: float | None = option(None, "horizontal field of view in degrees, instead of the intrinsics", above=0)
    weights: str = option(
        DEFAULT, "depth model to start from: folder of weights or hub id; none: tiny nets with random weights"
    )
    crop_bottom: float = option(
        0.0, "share of the height to cut off at the bottom, e.g. 0.07 for a bonnet", at_least=0, at_most=MAX_CROP_BOTTOM
    )
    min_motion: float = option(
        0.005,
        "leave out a frame if the picture has moved by less than this share of its width since the last frame kept",
        at_least=0,
        at_most=0.2,
    )
    height: int | None = option(
        None,
        "image height (default of height and width: as many pixels as in training, in the frames' aspect ratio)",
        at_least=SIZE_MULTIPLE,
        at_most=MAX_SIDE,
    )
    width: int | None = option(None, "image width", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
    num_epochs: int | None = option(None, "largest number of epochs (default: about 600 steps)", at_least=1)
    early_stop: int | None = option(
        None,
        "stop after this many epochs in a row without a lower held-out loss (default: a quarter of all)",
        at_least=1,
    )
    batch_size: int = option(4, "samples per step", at_least=1)
    learning_rate: float = option(5e-4, "learning rate", at_least=0)
    video_codec: Literal["browser", "mpeg4"] = option(
        "browser", "browser: H.264 or VP9, which browsers play; mpeg4: written much faster"
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    seed: int = option(0, "seed of weights, order and augmentation", at_least=0, at_most=MAX_SEED)


@dataclass(frozen=True)
class SynthOptions(Options):
    """All options of `hybrid-encoder synth`."""

    out: Path = option(Path(), "folder to write; new or empty", positional=True, writes="folder")
    seed: int = option(0, "seed of the scenes", at_least=0, at_most=MAX_SCENE_SEED)
    layout: Literal["kitti", "nuscenes"] = option(
        "kitti",
        "kitti: drives as in KITTI raw, and lanes as in TuSimple; nuscenes: rigs of six cameras, boxes and maps",
    )
    sequences: int = option(12, "number of drives, or of scenes", at_least=3, at_most=MAX_SCENES // 4)
    frames: int = option(12, "frames per drive, or keyframes per scene", at_least=1, at_most=100_000)
    height: int | None = option(None, "image height (default: 375; nuscenes: 128)", at_least=32, at_most=4096)
    width: int | None = option(None, "image width (default: 1242; nuscenes: 352)", at_least=32, at_most=4096)
    num_workers: int = option(
        2, "processes that render; 0: one, without further processes", at_least=0, at_most=MAX_WORKERS
    )


@dataclass(frozen=True)
class PredictOptions(Options):
    """All options of `hybrid-encoder predict`."""

    inputs: tuple[str, ...] = option((), "images, folders, globs or videos", positional=True)
    weights: str = option(
        DEFAULT,
        "folder of weights, hub id, released (the authors' weights), or a .onnx file of `export` (runs on the CPU)",
    )
    out: Path = option(Path("depth"), "folder to write", writes="folder")
    normalization: Literal["none", "imagenet", "own"] | None = option(
        None, "folders of the authors: pixel normalisation of both towers, if the folder does not show it"
    )
    intrinsics: str | None = option(
        None,
        "fx,fy,cx,cy in pixels of the frames, or a JSON file, whose lens distortion is removed from the inputs; "
        "two-frame weights need it for videos",
    )
    sequence: bool = option(False, "two-frame weights: the images are consecutive frames")
    trajectory: bool = option(
        False,
        "also write the camera's path from the run's pose nets, as TUM and KITTI poses and as a map; images are "
        "frames of one sequence",
    )
    crop_bottom: float = option(
        0.0, "share of the height to cut off at the bottom, as in training", at_least=0, at_most=MAX_CROP_BOTTOM
    )
    npy: bool = option(False, "also write depth of images as .npy")
    no_pairs: bool = option(False, "do not write images and their depth side by side")
    scale_factor: float = option(1.0, "metres per unit of depth; 5.4 for weights trained on stereo pairs", above=0)
    scale_from: str | None = option(None, SCALE_FROM)
    fov: float | None = option(None, "horizontal field of view in degrees, instead of the intrinsics", above=0)
    points: bool = option(
        False, "also write coloured points as .ply; frames of a video are fused, by the pose nets' path or --poses"
    )
    poses: Path | None = option(
        None, "file of the camera's path, in KITTI's or TUM's form: a pose per frame, in metres"
    )
    voxel: float | None = option(
        None,
        "side of the cells in which a video's points are averaged (default: a hundredth of the median depth)",
        above=0,
    )
    colormap: Literal["magma", "inferno", "plasma", "viridis", "cividis", "turbo", "bone"] = option(
        "magma", "colour map of depth"
    )
    keep_aspect: bool = option(False, "resize inputs in their own aspect ratio, to about as many pixels as in training")
    batch_size: int = option(4, "images per forward pass", at_least=1)
    video_codec: Literal["browser", "mpeg4"] = option(
        "browser", "browser: H.264 or VP9, which browsers play; mpeg4: written much faster"
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32", "bf16"] = option(
        "auto",
        "bf16: mixed precision; auto: bf16 for videos and many images on CPUs where it is faster, else float32",
    )
    compile: bool = option(False, "compile the nets with torch.compile")
    yes: bool = option(False, YES)


@dataclass(frozen=True)
class ExportModelOptions(Options):
    """All options of `hybrid-encoder export`."""

    model: str = option("", "folder of single-frame weights, or a hub id", positional=True)
    part: Literal["depth", "encoder"] = option(
        "depth", "depth: the whole model; encoder: its encoder alone, whose feature maps come out"
    )
    format: Literal["onnx", "torch"] = option(
        "onnx", "onnx: for onnxruntime and others; torch: a program of torch.export"
    )
    out: Path = option(Path(), "file to write, e.g. depth.onnx or depth.pt2", required=True, writes="file")
    yes: bool = option(False, YES)


@dataclass(frozen=True)
class ExportOptions(Options):
    """All options of `hybrid-encoder export-gt`."""

    data_path: Path = option(Path(), "KITTI raw", required=True)
    split: str = option("", "name or folder of the split", required=True)
    part: Literal["test", "val", "train"] = option("test", "part of the split")
    truth: Literal["velodyne", "improved"] = option(
        "velodyne", "velodyne: projected scans; improved: depth maps of KITTI's depth benchmark"
    )
    out: Path = option(Path(), "the .npz file to write", required=True, writes="file")


@dataclass(frozen=True)
class InfoOptions(Options):
    """All options of `hybrid-encoder info`."""

    preset: str | None = option(
        None,
        "paper, released, small, dinov3 or tiny; or a file or folder of weights to describe; none: all presets",
        positional=True,
    )
    weights_dir: Path | None = option(None, "folder of weights (default: $HYBRID_ENCODER_WEIGHTS)")


@dataclass(frozen=True)
class ConvertOptions(Options):
    """All options of `hybrid-encoder convert`."""

    source: str = option(
        "",
        "folder of a trainer or of the authors, the authors' stage-1 .ckpt, or released (the authors' weights)",
        positional=True,
    )
    out: Path = option(Path(), "folder to write", required=True, writes="folder")
    layout: Literal["hub", "monodepth2"] = option("hub", "hub: for from_pretrained; monodepth2: for trainers")
    teacher: bool = option(False, "ManyDepth folders: convert the single-frame teacher")
    ignore: tuple[str, ...] = option((), "pattern of names of tensors that may be unused", repeat=True)
    normalization: Literal["none", "imagenet", "own"] | None = option(
        None, "folders of the authors: pixel normalisation of both towers, if the folder does not show it"
    )
    training_data: str | None = option(None, "what the weights were trained on, for the model card")
    yes: bool = option(False, YES)


@dataclass(frozen=True)
class PatchOptions(Options):
    """All options of `hybrid-encoder patch`."""

    host: Literal["monodepth2", "manydepth", "mono_vifi"] = option(
        "monodepth2", "the original code that was cloned", positional=True
    )
    path: Path = option(Path(), "the clone's folder", positional=True)
    check: bool = option(False, "only say what would be done")
    revert: bool = option(False, "remove the patch")
    package: str | None = option(None, "name of the package's folder, in a fork of ManyDepth that has renamed it")


@dataclass(frozen=True)
class AppOptions(Options):
    """All options of `hybrid-encoder app`."""

    weights: str = option(
        DEFAULT, "folder of weights, hub id, released (the authors' weights), or a .onnx file of `export`"
    )
    stage1: Path | None = option(
        None,
        "stage1.pth of `pretrain`, for closeness in words (default: that of the shipped weights, if those are used)",
    )
    clip_weights: str | None = option(
        None, "with --stage1: CLIP's weights, openai or a file, so that phrases may have any words"
    )
    port: int = option(7860, "port of http://127.0.0.1", at_least=1024, at_most=65535)
    max_mb: int = option(200, "largest size of a file in megabytes", at_least=1)
    max_frames: int = option(600, "largest number of frames in a video", at_least=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    yes: bool = option(False, YES)


@dataclass(frozen=True)
class CompletionOptions(Options):
    """All options of `hybrid-encoder completion`."""

    shell: Literal["bash", "zsh"] = option(
        "bash",
        'the shell; to load the script, put eval "$(hybrid-encoder completion bash)" into ~/.bashrc',
        positional=True,
    )


@dataclass(frozen=True)
class CacheOptions(Options):
    """All options of `hybrid-encoder cache`."""

    empty: bool = option(False, "delete the decoded videos, except those that a run is reading")


@dataclass(frozen=True)
class BenchOptions(Options):
    """All options of `hybrid-encoder bench`."""

    part: Literal["encoder", "train", "stage1", "loader", "cost-volume"] = option(
        "encoder", "what to measure", positional=True
    )
    preset: str = option("paper", "preset of the encoder; its weights are random")
    num_tokens: int | None = option(None, "number of depth tokens (default: that of the preset)", at_least=1)
    height: int = option(224, "image height", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
    width: int = option(672, "image width", at_least=SIZE_MULTIPLE, at_most=MAX_SIDE)
    batch_size: int = option(1, "images per call or step", at_least=1)
    repeats: int = option(5, "measured runs after one warm-up; their median is printed", at_least=1)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    precision: Precision = option("float32", "bf16: mixed precision")
    compile: bool = option(False, "compile the model with torch.compile (encoder, train, stage1)")
    encoder: Literal["hybrid", "resnet"] = option("hybrid", "depth encoder (train)")
    num_layers: Literal[18, 34, 50, 101, 152] = option(18, "layers of the ResNets (train)")
    data_path: Path | None = option(None, "KITTI raw (loader)")
    split: str = option("eigen_zhou", "name or folder of a split (loader)")
    num_workers: int = option(0, "processes that load data (loader)", at_least=0, at_most=MAX_WORKERS)
    json: Path | None = option(None, "also write the measures to this file", writes="file")
