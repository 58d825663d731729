"""Opens a depth model in any known layout, and writes it in the hub's or Monodepth2's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError
from ..model.depth_model import DepthModel
from ..model.encoder import HybridEncoder
from ..released.single_frame import (
    is_released,
    load_released,
    load_released_model,
    load_released_pose,
    load_released_teacher,
)
from ..stage1.checkpoint import is_stage1, open_stage1
from ..stage2.checkpoint import encoder_extras, file_entries, load_depth_model, newest_weights
from ..weights.hub import CARD_FILE, CONFIG_FILE, TENSOR_FILE
from ..weights.reading import read_checkpoint
from ..weights.run_files import SINGLE_FRAME_FILES, TEACHER_FILES
from ..writing import write_torch
from .named_weights import local_weights
from .options import ConvertOptions

Layout = Literal["hub", "monodepth2"]


def run(options: ConvertOptions) -> None:
    """`hybrid-encoder convert`: prints the names of the files that it has written."""
    options = replace(options, source=local_weights(options.source, options.yes))
    for path in convert_as(options):
        print(path)


def open_depth_model(
    source: str | Path, teacher: bool = False, ignore: Sequence[str] = (), normalization: str | None = None
) -> DepthModel:
    """The single-frame depth model of a folder or a hub id, on the CPU in eval mode.

    Args:
        source: a folder that `save_pretrained` wrote, a repository of the hub ("account/name"), a stage-2 folder of the
            authors, or weights_N of a trainer: ours, a patched original, or an original with a ResNet. Of a run's
            folder, the last epoch is taken.
        teacher: open the single-frame teacher of a ManyDepth folder.
        ignore: for folders of the authors, patterns of names of tensors that may be unused.
        normalization: for folders of the authors, as in `load_released`; that of a teacher is known.

    Raises:
        UserError: nothing is there, it is damaged, or it holds no depth model.
    """
    folder = Path(source)
    if (folder / CONFIG_FILE).is_file() or not folder.exists():
        refuse_normalization(source, normalization)
        return DepthModel.from_pretrained(source)
    if folder.is_file():
        raise UserError(f"{folder} is a file: give the folder of encoder.pth and depth.pth, or of {CONFIG_FILE}")
    folder = newest_weights(folder)
    if is_released(folder) and not teacher:
        return load_released_model(folder, ignore, normalization)
    refuse_normalization(source, normalization)
    if is_released(folder):
        return load_released_teacher(folder, ignore)
    return load_depth_model(folder, *(TEACHER_FILES if teacher else SINGLE_FRAME_FILES))


def refuse_normalization(source: str | Path, normalization: str | None) -> None:
    """Raises `UserError` if `--normalization` is given for weights that state their own pixel normalisation."""
    if normalization is not None:
        raise UserError(
            f"--normalization {normalization} is for single-frame folders of the authors: {source} states its own "
            "pixel normalisation, leave the option out"
        )


def convert(
    source: str | Path,
    out: str | Path,
    layout: Layout = "hub",
    teacher: bool = False,
    ignore: Sequence[str] = (),
    training_data: str | None = None,
) -> list[Path]:
    """Rewrites saved weights, as `convert_as`.

    Args:
        source, teacher, ignore: as in `open_depth_model`; or `stage1.pth`, or the authors' stage-1 `.ckpt`.
        out: folder to write.
        layout: as in `convert_as`.
        training_data: for the model card.

    Returns:
        The files written.
    """
    return convert_as(ConvertOptions(str(source), Path(out), layout, teacher, tuple(ignore), None, training_data))


def convert_as(options: ConvertOptions) -> list[Path]:
    """Rewrites saved weights.

    The layout "hub" has model.safetensors, config.json and a model card. It holds the depth model, or the encoder alone
    if the source is a stage-1 checkpoint, and no pose networks.

    The layout "monodepth2" has encoder.pth and depth.pth, and pose_encoder.pth and pose.pth if the source has them. The
    trainers of this package start from it (`--load_weights_folder`). The original code reads it if the encoder is a
    ResNet.

    Returns:
        The files written.

    Raises:
        UserError: unreadable source, `out` is the source, or a stage-1 checkpoint for the layout "monodepth2".
    """
    source, out = options.source, options.out
    if Path(source).exists() and out.resolve() == Path(source).resolve():
        raise UserError(f"{out} is the source itself: choose another folder with --out")
    model: DepthModel | HybridEncoder
    if Path(source).is_file():
        if options.layout != "hub":
            raise UserError(f"{source} is of stage 1 and has no decoder: convert it with --layout hub")
        if is_stage1(source):
            refuse_normalization(source, options.normalization)
            model = open_stage1(source)
        else:
            model = load_released(source, options.ignore, options.normalization)[0]
    else:
        model = open_depth_model(source, options.teacher, options.ignore, options.normalization)
    if options.layout == "hub":
        model.save_pretrained(out, options.training_data)
        return [out / name for name in (TENSOR_FILE, CONFIG_FILE, CARD_FILE)]
    assert isinstance(model, DepthModel)
    contents = trainer_files(model)
    if not options.teacher and Path(source).is_dir() and not (Path(source) / CONFIG_FILE).is_file():
        folder = newest_weights(Path(source))
        contents["encoder"]["use_stereo"] = bool(read_checkpoint(folder / "encoder.pth").get("use_stereo", False))
        contents.update(_pose_entries(folder, options.normalization))
    for name, content in contents.items():
        write_torch(out / f"{name}.pth", content)
    return [out / f"{name}.pth" for name in contents]


def trainer_files(model: DepthModel) -> dict[str, dict[str, Any]]:
    """The contents of a depth model's files in the layout of trainers, by file name; without pose networks."""
    extras = encoder_extras(model.nets, model.height, model.width)
    return {
        "encoder": {**model.encoder.state_dict(), **extras, "use_stereo": False},
        "depth": dict(model.decoder.state_dict()),
    }


def _pose_entries(folder: Path, normalization: str | None) -> dict[str, dict[str, Any]]:
    """The contents of the pose networks' files, by file name; empty if the folder has no pose networks."""
    if not (folder / "pose.pth").is_file():
        return {}
    if is_released(folder):
        encoder, head = load_released_pose(folder, normalization)
        nets = {"pose_encoder": encoder, "pose": head}
        return {name: file_entries(net) for name, net in nets.items() if net is not None}
    paths = [folder / f"{name}.pth" for name in ("pose_encoder", "pose")]
    return {path.stem: read_checkpoint(path) for path in paths if path.is_file()}
