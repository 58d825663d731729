"""The pose nets of a folder of weights, ready to tell how a camera moved."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import Resize
from ..errors import UserError
from ..model.contract import DepthEncoder
from ..released.single_frame import is_released, load_released_pose, load_released_single_frame
from ..weights.hub import CONFIG_FILE
from ..weights.reading import load_state, read_checkpoint, read_tensors, stated_size, tensors_of
from ..weights.run_files import single_frame_files
from .checkpoint import load_depth_model, newest_weights, resnet_layers, stated_normalization, stated_resize
from .networks import PoseNetworks
from .options import DepthOptions


class PoseModel(nn.Module):
    """Trained pose nets in one piece: the camera's motion between two frames.

    Args:
        poses: the pose nets.
        encoder: the depth encoder, where the pose nets read it.
        size: height and width of the images.
        resize: how images are brought to that size.
    """

    def __init__(
        self, poses: PoseNetworks, encoder: DepthEncoder | None, size: tuple[int, int], resize: Resize
    ) -> None:
        super().__init__()
        self.poses, self.encoder = poses, encoder
        self.height, self.width = size
        self.resize = resize

    @torch.no_grad()
    def motions(self, earlier: Tensor, later: Tensor) -> Tensor:
        """(B, 4, 4), maps points of the earlier camera to the later one, of images (B, 3, height, width) in [0, 1] on
        any device; on the model's."""
        device = next(self.poses.parameters()).device
        found: Tensor = self.poses(self.encoder, {0: earlier.to(device), 1: later.to(device)})[1]
        return found


def load_pose_model(folder: str | Path, normalization: str | None = None) -> PoseModel:
    """The pose nets of a trainer's folder or of the authors', of one frame or of two, in eval mode.

    Args:
        folder: weights_N, or a run's folder, of which the last epoch is taken.
        normalization: of the authors' folders, as for `load_released_pose`; None: as the folder shows.

    Raises:
        UserError: no such folder, no pose nets in it, or missing or damaged files.
    """
    folder = Path(folder)
    if (folder / CONFIG_FILE).is_file() or not folder.is_dir():
        raise UserError(f"{folder} holds no pose nets: give the folder of a run, with pose.pth in models/weights_N")
    folder = newest_weights(folder)
    if not (folder / "pose.pth").is_file():
        raise UserError(f"{folder} holds no pose.pth: its run learned depth from stereo alone, or it was converted")
    path = folder / "encoder.pth"
    entries = read_checkpoint(path)
    poses, encoder = load_poses(folder, normalization)
    return PoseModel(poses, encoder, stated_size(entries, str(path)), stated_resize(entries, str(path))).eval()


def load_poses(folder: Path, normalization: str | None = None) -> tuple[PoseNetworks, DepthEncoder | None]:
    """The pose nets of a folder of weights, and the depth encoder where they read it: a two-frame run's teacher's.

    Args:
        normalization: as in `load_pose_model`.

    Raises:
        UserError: missing or damaged files, or a normalization for a folder that shows it.
    """
    if is_released(folder):
        return _released_poses(folder, normalization)
    if normalization is not None:
        raise UserError(f"{folder} shows how its nets saw pixels: leave out --normalization {normalization}")
    head_path, resnet_path = folder / "pose.pth", folder / "pose_encoder.pth"
    head = read_tensors(head_path)
    reader: DepthEncoder | None = None
    if "pose_conv.weight" in head:
        poses = PoseNetworks(DepthOptions(pose_model_type="posecnn"), reader, "random")
    elif resnet_path.exists():
        entries = read_checkpoint(resnet_path)
        tensors = tensors_of(entries, str(resnet_path))
        options = DepthOptions(
            encoder="resnet",
            num_layers=resnet_layers(tensors, str(folder)),  # type: ignore[arg-type]
            pose_normalization=stated_normalization(entries, str(resnet_path)),
        )
        poses = PoseNetworks(options, reader, "random")
        assert poses.pose_encoder is not None
        load_state(poses.pose_encoder, tensors, str(resnet_path))
    else:
        reader = load_depth_model(folder, *single_frame_files(folder)).encoder
        kind = "class_token" if "linear.weight" in head else "shared"
        poses = PoseNetworks(DepthOptions(pose_model_type=kind), reader, "random")  # type: ignore[arg-type]
    load_state(poses.pose, head, str(head_path))
    return poses, reader


def _released_poses(folder: Path, normalization: str | None) -> tuple[PoseNetworks, DepthEncoder | None]:
    """The authors' pose nets: a ResNet-18, or a head on class tokens."""
    resnet, head = load_released_pose(folder, normalization)
    reader: DepthEncoder | None = None
    if resnet is not None:
        poses = PoseNetworks(DepthOptions(encoder="resnet"), reader, "random")
        poses.pose_encoder = resnet
    else:
        reader = load_released_single_frame(folder, normalization).encoder
        poses = PoseNetworks(DepthOptions(pose_model_type="class_token"), reader, "random")
    poses.pose = head
    return poses, reader
