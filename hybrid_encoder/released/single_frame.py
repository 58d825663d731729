"""Loads the authors' checkpoints: stage 1, stage 2 and its pose networks, ManyDepth's teacher.

The number of tokens, the towers, the fusion and the alignment are read off the tensors; `facts` adds what tensors do
not show, and one line on stderr reports it all. Every parameter is filled. No tensor of the file may be left over,
except those of `names.UNUSED` and the head that stage 1 never trains.

docs/METHOD.md, section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor

from ..config import HybridEncoderConfig, ResnetNormalization
from ..errors import UserError
from ..model.decoder import DPTDecoder
from ..model.depth_model import DepthModel
from ..model.encoder import HybridEncoder
from ..model.pose import ClassTokenPose, PoseDecoder
from ..model.resnet import ResnetEncoder
from ..weights.describe import describe_tensors
from ..weights.reading import load_state, read_checkpoint, read_tensors, stated_size
from ..weights.run_files import has_teacher
from .facts import Kind, base_config, describe, describe_pixels, kind_of, pose_normalization, tell
from .names import STAGE1_HEAD, decoder_tensors, encoder_tensors, read_alignment, read_config

_STAGE1_PREFIX = "model."


def load_released(
    source: str | Path, ignore: Sequence[str] = (), normalization: str | None = None
) -> tuple[HybridEncoder, DPTDecoder | None]:
    """The authors' nets with their weights, on the CPU in eval mode, under the preset `released`.

    One line on stderr says what was read off the files, and how the nets see pixels.

    Args:
        source: a stage-2 folder (encoder.pth, depth.pth), or a stage-1 Lightning `.ckpt`.
        ignore: patterns for names of further tensors that may be left over, e.g. "clip.extra.*".
        normalization: "none", "imagenet" or "own" for both towers, where the folder does not show how they were
            trained, or in place of it; None: as in the authors' run.

    Returns:
        Encoder and decoder. For a file of stage 1 the decoder is None, and the encoder's tokens are interpolated
        between the seven words, whose text features are `encoder.language.word_features()`. The encoder has no pyramid,
        since no weights for one exist: the decoder reads `forward_features`.

    Raises:
        UserError: missing, damaged or foreign files; tensors that are missing, left over or of another shape; a folder
            that does not show how its nets saw pixels, without `normalization`.
    """
    source = Path(source)
    if not source.is_dir():
        return _load_stage1(source, ignore, normalization), None
    path = source / "encoder.pth"
    if "min_depth_bin" in read_checkpoint(path):
        raise UserError(
            f"{source} is a ManyDepth folder, whose encoder reads two frames: use load_released_matching, or "
            "load_released_teacher (`hybrid-encoder convert --teacher`) for its single-frame teacher"
        )
    return _load_pair(path, source / "depth.pth", "single frame", ignore, normalization)


def load_released_model(folder: str | Path, ignore: Sequence[str] = (), normalization: str | None = None) -> DepthModel:
    """The depth model of a stage-2 folder, at the image size that its encoder.pth states.

    Args:
        folder: the folder of encoder.pth and depth.pth.
        ignore, normalization: as for `load_released`.

    Raises:
        UserError: as `load_released`; or a stage-1 file, which has no decoder.
    """
    encoder, decoder = load_released(folder, ignore, normalization)
    if decoder is None:
        raise UserError(f"{folder} is of stage 1 and predicts no depth yet: train stage 2 with --stage1 {folder}")
    return _depth_model(encoder, decoder, Path(folder) / "encoder.pth")


def load_released_teacher(folder: str | Path, ignore: Sequence[str] = ()) -> DepthModel:
    """The hybrid single-frame teacher of a ManyDepth folder (mono_encoder.pth, mono_depth.pth).

    It sees raw pixels in [0, 1]; the two-frame net beside it does not.

    Raises:
        UserError: as `load_released`.
    """
    folder = Path(folder)
    encoder, decoder = _load_pair(folder / "mono_encoder.pth", folder / "mono_depth.pth", "teacher", ignore)
    return _depth_model(encoder, decoder, folder / "encoder.pth")


def load_released_single_frame(folder: Path, normalization: str | None = None) -> DepthModel:
    """The net of a folder that predicts depth from one frame: a ManyDepth folder's teacher, or a stage-2 folder's own.

    Args:
        normalization: of a stage-2 folder, as for `load_released`.

    Raises:
        UserError: as `load_released`.
    """
    return load_released_teacher(folder) if has_teacher(folder) else load_released_model(folder, (), normalization)


def fill_from_stage1(encoder: HybridEncoder, path: str | Path, ignore: Sequence[str] = ()) -> None:
    """Fills an encoder of any matching config with towers and fusion of the authors' stage-1 checkpoint.

    The pyramid does not change. Tokens change only if the config interpolates them between the seven words: this is
    done again, because the words' embeddings come from the file.

    Raises:
        UserError: a damaged file, or one of another architecture.
    """
    tensors, source = stage1_tensors(path), str(path)
    was = describe_pixels(read_config(tensors, base_config("stage 1"), source))
    if was != (now := describe_pixels(encoder.config)):
        tell(source, f"in the authors' stage 1, {was}; in this encoder, {now}")
    _fill_stage1(encoder, tensors, source, ignore)


def stage1_tensors(path: str | Path) -> dict[str, Tensor]:
    """The model's tensors of a stage-1 Lightning checkpoint, under the names of stage 2.

    Raises:
        UserError: not such a file.
    """
    tensors = read_tensors(path)
    if not _is_stage1(tensors):
        raise UserError(
            f"{path} is no stage-1 checkpoint of the authors, whose tensors begin with model.clip: it seems to be "
            f"{describe_tensors(tensors)}"
        )
    return {name.removeprefix(_STAGE1_PREFIX): t for name, t in tensors.items() if name.startswith(_STAGE1_PREFIX)}


def load_released_pose(
    folder: str | Path, normalization: str | None = None
) -> tuple[ResnetEncoder | None, PoseDecoder | ClassTokenPose]:
    """The pose networks of a stage-2 or ManyDepth folder, in eval mode.

    The pose ResNet of stage 2 sees raw pixels in [0, 1], ManyDepth's sees (x - 0.45) / 0.225; the encoder.pth beside it
    shows which of the two it is.

    Args:
        folder: the folder of pose.pth, and of pose_encoder.pth where a ResNet is used.
        normalization: "none" for a ResNet that sees raw pixels, any other for (x - 0.45) / 0.225; None: what
            encoder.pth shows.

    Returns:
        A ResNet-18 on frame pairs and its decoder (pose_encoder.pth, pose.pth); or None and the head on DINO's class
        tokens, if pose.pth holds one (6, 2 C) matrix and its bias, under any names.

    Raises:
        UserError: the files are neither of these, or no encoder.pth shows how the ResNet saw pixels.
    """
    folder = Path(folder)
    path = folder / "pose.pth"
    tensors = read_tensors(path)
    shapes = {tuple(value.shape): value for value in tensors.values()}
    matrix = next((value for shape, value in shapes.items() if len(shape) == 2 and shape[0] == 6 and shape[1]), None)
    if len(tensors) == 2 and matrix is not None and (6,) in shapes:
        head = ClassTokenPose(matrix.shape[1] // 2)
        load_state(head, {"linear.weight": matrix, "linear.bias": shapes[6,]}, str(path))
        return None, head.eval()
    encoder = ResnetEncoder(18, "random", num_input_images=2)
    load_state(encoder, read_tensors(folder / "pose_encoder.pth"), str(folder / "pose_encoder.pth"))
    decoder = PoseDecoder(int(encoder.num_ch_enc[-1]), num_inputs=1, num_poses=2)
    load_state(decoder, tensors, str(path))
    encoder.normalization = _pose_normalization(folder / "encoder.pth", normalization)
    return encoder.eval(), decoder.eval()


def _pose_normalization(path: Path, given: str | None) -> ResnetNormalization:
    """How the pose ResNet beside an encoder.pth normalises pixels."""
    if given is not None:
        return "none" if given == "none" else "monodepth2"
    return pose_normalization(kind_of(read_checkpoint(path), str(path)))


def is_released(source: str | Path) -> bool:
    """Whether this is a checkpoint of the authors: a folder of stage 2, or a Lightning file of stage 1.

    Raises:
        UserError: the file, or the folder's encoder.pth, exists but cannot be read.
    """
    source = Path(source)
    if source.is_dir():
        path = source / "encoder.pth"
        return path.is_file() and any(name.startswith(("clip.", "dinov2.")) for name in read_checkpoint(path))
    return source.is_file() and _is_stage1(read_tensors(source))


def describe_released(source: str | Path) -> list[str]:
    """What the loaders decide about a checkpoint of the authors, one line for each of its encoders; no net is built.

    Raises:
        UserError: as `load_released`.
    """
    source = Path(source)
    if not source.is_dir():
        config = read_config(stage1_tensors(source), base_config("stage 1"), str(source))
        return [f"{source}: {describe(config, 'stage 1')}"]
    path = source / "encoder.pth"
    kinds: dict[str, Kind] = {"": kind_of(read_checkpoint(path), str(path))}
    if has_teacher(source):
        kinds["mono_"] = "teacher"
    lines = []
    for name, kind in kinds.items():
        path = source / f"{name}encoder.pth"
        lines.append(f"{path}: {describe(_pair_config(path, source / f'{name}depth.pth', kind), kind)}")
    return lines


def _is_stage1(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(f"{_STAGE1_PREFIX}clip.") for name in tensors)


def _load_stage1(path: Path, ignore: Sequence[str], normalization: str | None) -> HybridEncoder:
    tensors = stage1_tensors(path)
    config = read_config(tensors, base_config("stage 1", normalization), str(path)).replace(token_init="words")
    tell(str(path), describe(config, "stage 1"))
    encoder = HybridEncoder(config)
    _fill_stage1(encoder, tensors, str(path), ignore)
    return _labelled(encoder, "stage-1").eval()


def _fill_stage1(encoder: HybridEncoder, tensors: Mapping[str, Tensor], source: str, ignore: Sequence[str]) -> None:
    own = encoder.state_dict()
    kept = {name: value for name, value in own.items() if name == "language.tokens" or name.startswith("pyramid.")}
    head = sum(fnmatchcase(name, STAGE1_HEAD) for name in tensors)
    if head:
        tell(source, f"{head} tensors of a depth head, which stage 1 builds and never trains, are left out")
    theirs = encoder_tensors(tensors, encoder, source, (STAGE1_HEAD, *ignore))
    load_state(encoder, {**_whole(theirs, own), **kept}, source)
    encoder.config = encoder.config.ranked_as(base_config("stage 1"))
    if encoder.config.token_init == "words":
        encoder.language.reset_tokens()


def _whole(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, contiguous where they have the shapes of the net that they fill. A file may store one number for
    many elements; the net has the memory for all of them anyway."""
    fits = {name for name, value in tensors.items() if name in own and own[name].shape == value.shape}
    return {name: value.contiguous() if name in fits else value for name, value in tensors.items()}


def _load_pair(
    encoder_path: Path, decoder_path: Path, kind: Kind, ignore: Sequence[str], normalization: str | None = None
) -> tuple[HybridEncoder, DPTDecoder]:
    seen, decoded = read_tensors(encoder_path), read_tensors(decoder_path)
    config = _pair_config(encoder_path, decoder_path, kind, normalization)
    if kind == "single frame" and normalization is None:
        kind_of(read_checkpoint(encoder_path), str(encoder_path))
    tell(str(encoder_path.parent), describe(config, kind))
    encoder = HybridEncoder(config)
    load_state(encoder, encoder_tensors(seen, encoder, str(encoder_path), ignore), str(encoder_path))
    decoder = DPTDecoder(encoder, scales=(0,), head="relu")
    load_state(decoder, decoder_tensors(decoded, ignore), str(decoder_path))
    return _labelled(encoder, "stage-2").eval(), decoder.eval()


def _pair_config(
    encoder_path: Path, decoder_path: Path, kind: Kind, normalization: str | None = None
) -> HybridEncoderConfig:
    seen, decoded = read_tensors(encoder_path), read_tensors(decoder_path)
    config = read_config(seen, base_config(kind, normalization), str(encoder_path))
    return read_alignment(config, seen, decoded, str(decoder_path))


def _depth_model(encoder: HybridEncoder, decoder: DPTDecoder, sizes_from: Path) -> DepthModel:
    size = stated_size(read_checkpoint(sizes_from), str(sizes_from))
    return DepthModel(encoder, decoder, *size, resize="lanczos").eval()


def _labelled(encoder: HybridEncoder, stage: str) -> HybridEncoder:
    encoder.about = {
        "preset": "released",
        "origin": f"converted from a {stage} checkpoint of the authors of Hybrid-depth",
        "towers": "- RN50-quickgelu: started from OpenAI's CLIP, MIT\n"
        "- vit_base_patch14_dinov2: started from DINOv2, Apache-2.0",
    }
    return encoder
