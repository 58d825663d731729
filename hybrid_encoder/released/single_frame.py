"""Loads the authors' checkpoints: stage 1, stage 2 and its pose networks, ManyDepth's teacher (METHOD, section 5).

What a file holds is read off the file: how many tokens, which towers, which alignment. Every parameter is filled, and
no tensor of the file is left over but those of `released_names.UNUSED`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ..config import HybridEncoderConfig, preset
from ..errors import UserError
from ..model.decoder import DPTDecoder
from ..model.depth_model import DepthModel
from ..model.encoder import HybridEncoder
from ..model.pose import ClassTokenPose, PoseDecoder
from ..model.resnet import ResnetEncoder
from ..weights.describe import describe_tensors
from ..weights.reading import load_state, read_checkpoint, read_tensors, stated_size
from .names import decoder_tensors, encoder_tensors, read_alignment, read_config

_STAGE1_PREFIX = "model."


def load_released(source: str | Path, ignore: Sequence[str] = ()) -> tuple[HybridEncoder, DPTDecoder | None]:
    """The authors' nets with their weights, on the CPU in eval mode, under the preset `released`.

    Args:
        source: a stage-2 folder (encoder.pth, depth.pth), or a stage-1 Lightning `.ckpt`.
        ignore: patterns of names of further tensors that may be left over, e.g. "clip.extra.*".

    Returns:
        Encoder and decoder. After stage 1 the decoder is None, and the encoder's tokens are interpolated between the
        seven words, whose own features are `encoder.language.word_features()`. The encoder has no pyramid, since no
        weights for one exist: `forward_features` is what the decoder reads.

    Raises:
        UserError: missing, damaged or foreign files; tensors that are missing, left over or of another shape.
    """
    source = Path(source)
    if not source.is_dir():
        return _load_stage1(source, ignore), None
    path = source / "encoder.pth"
    if "min_depth_bin" in read_checkpoint(path):
        raise UserError(
            f"{source} is a ManyDepth folder, whose encoder reads two frames: use load_released_matching, or "
            "load_released_teacher (`hybrid-encoder convert --teacher`) for its single-frame teacher"
        )
    return _load_pair(path, source / "depth.pth", preset("released"), ignore)


def load_released_model(folder: str | Path, ignore: Sequence[str] = ()) -> DepthModel:
    """The depth model of a stage-2 folder, at the image size that its encoder.pth states.

    Raises:
        UserError: as `load_released`; or a stage-1 file, which has no decoder.
    """
    encoder, decoder = load_released(folder, ignore)
    if decoder is None:
        raise UserError(f"{folder} is of stage 1 and predicts no depth yet: train stage 2 with --stage1 {folder}")
    return _depth_model(encoder, decoder, Path(folder) / "encoder.pth")


def load_released_teacher(folder: str | Path, ignore: Sequence[str] = ()) -> DepthModel:
    """The hybrid single-frame teacher of a ManyDepth folder (mono_encoder.pth, mono_depth.pth).

    It sees ImageNet's mean and deviation, as the released ManyDepth run did (METHOD, section 4).

    Raises:
        UserError: as `load_released`.
    """
    folder = Path(folder)
    config = preset("released").replace(normalization="imagenet")
    encoder, decoder = _load_pair(folder / "mono_encoder.pth", folder / "mono_depth.pth", config, ignore)
    return _depth_model(encoder, decoder, folder / "encoder.pth")


def fill_from_stage1(encoder: HybridEncoder, path: str | Path, ignore: Sequence[str] = ()) -> None:
    """Fills an encoder of any matching config with towers and fusion of the authors' stage-1 checkpoint.

    The pyramid stays as it is. The tokens do, too, unless the config draws them from the seven words: then they are
    drawn anew, since the words' embeddings have come with the file.

    Raises:
        UserError: another architecture, or damaged.
    """
    _fill_stage1(encoder, stage1_tensors(path), str(path), ignore)


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


def load_released_pose(folder: str | Path) -> tuple[ResnetEncoder | None, PoseDecoder | ClassTokenPose]:
    """The pose networks of a stage-2 folder, in eval mode.

    Returns:
        A ResNet-18 on frame pairs with its decoder (pose_encoder.pth, pose.pth), or None with the head on DINO's class
        tokens: a pose.pth of one (6, 2 C) matrix and its bias, whatever their names.

    Raises:
        UserError: neither of the two.
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
    return encoder.eval(), decoder.eval()


def is_released(source: str | Path) -> bool:
    """Whether this is one of the authors' checkpoints: a folder of stage 2, or a Lightning file of stage 1.

    Raises:
        UserError: an encoder.pth or a file is there, but cannot be read.
    """
    source = Path(source)
    if source.is_dir():
        path = source / "encoder.pth"
        return path.is_file() and any(name.startswith(("clip.", "dinov2.")) for name in read_checkpoint(path))
    return source.is_file() and _is_stage1(read_tensors(source))


def _is_stage1(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(f"{_STAGE1_PREFIX}clip.") for name in tensors)


def _load_stage1(path: Path, ignore: Sequence[str]) -> HybridEncoder:
    tensors = stage1_tensors(path)
    encoder = HybridEncoder(read_config(tensors, preset("released"), str(path)).replace(token_init="words"))
    _fill_stage1(encoder, tensors, str(path), ignore)
    return _labelled(encoder, "stage-1").eval()


def _fill_stage1(encoder: HybridEncoder, tensors: Mapping[str, Tensor], source: str, ignore: Sequence[str]) -> None:
    own = encoder.state_dict()
    kept = {name: value for name, value in own.items() if name == "language.tokens" or name.startswith("pyramid.")}
    load_state(encoder, {**encoder_tensors(tensors, encoder, source, ignore), **kept}, source)
    if encoder.config.token_init == "words":
        encoder.language.reset_tokens()


def _load_pair(
    encoder_path: Path, decoder_path: Path, base: HybridEncoderConfig, ignore: Sequence[str]
) -> tuple[HybridEncoder, DPTDecoder]:
    seen, decoded = read_tensors(encoder_path), read_tensors(decoder_path)
    config = read_alignment(read_config(seen, base, str(encoder_path)), seen, decoded, str(decoder_path))
    encoder = HybridEncoder(config)
    load_state(encoder, encoder_tensors(seen, encoder, str(encoder_path), ignore), str(encoder_path))
    decoder = DPTDecoder(encoder, scales=(0,), head="relu")
    load_state(decoder, decoder_tensors(decoded, ignore), str(decoder_path))
    return _labelled(encoder, "stage-2").eval(), decoder.eval()


def _depth_model(encoder: HybridEncoder, decoder: DPTDecoder, sizes_from: Path) -> DepthModel:
    return DepthModel(encoder, decoder, *stated_size(read_checkpoint(sizes_from), str(sizes_from))).eval()


def _labelled(encoder: HybridEncoder, stage: str) -> HybridEncoder:
    encoder.about = {
        "preset": "released",
        "origin": f"converted from a {stage} checkpoint of the authors of Hybrid-depth",
        "towers": "- RN50-quickgelu: started from OpenAI's CLIP, MIT\n"
        "- vit_base_patch14_dinov2: started from DINOv2, Apache-2.0",
    }
    return encoder
