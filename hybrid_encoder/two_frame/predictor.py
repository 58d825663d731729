"""A trained two-frame model: predicts depth of a frame with its lookup frames, or of a single frame."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Resize
from ..model.contract import DepthEncoder
from ..model.disparity import disp_to_depth
from ..stage2.networks import PoseNetworks
from .lookup import matching_poses
from .model import TwoFrameNet


class TwoFrameModel(nn.Module):
    """Two-frame net and pose nets in one piece.

    Args:
        net: the two-frame net; its bins are set.
        poses: the pose nets.
        read_by_poses: the teacher's encoder, where the pose nets read it.
        matching_ids: the lookup frames, in the order in which the net was trained with them.
        size: height and width of the images.
        limits: nearest and farthest depth.
        resize: how the training images were resized.
    """

    def __init__(
        self,
        net: TwoFrameNet,
        poses: PoseNetworks,
        read_by_poses: DepthEncoder | None,
        matching_ids: tuple[int, ...],
        size: tuple[int, int],
        limits: tuple[float, float],
        resize: Resize = "area",
    ) -> None:
        super().__init__()
        self.net, self.poses, self.read_by_poses = net, poses, read_by_poses
        self.matching_ids = matching_ids
        self.height, self.width = size
        self.min_depth, self.max_depth = limits
        self.resize = resize

    @torch.no_grad()
    def forward(self, frames: dict[int, Tensor], K: Tensor) -> Tensor:
        """1 / depth, (B, 1, height, width), of frame 0.

        Args:
            frames: (B, 3, height, width) in [0, 1], on any device, by frame id. A lookup frame that is absent or black
                does not exist; one that equals frame 0 means a static camera. Without lookup frames, the net relies on
                frame 0 alone, as training has taught it.
            K: (B, 3, 3), in pixels.
        """
        device = self.net.encoder.depth_bins.device
        current = frames[0].to(device)
        known = {i: frames[i].to(device) if i in frames else torch.zeros_like(current) for i in self.matching_ids}
        poses = matching_poses(self.poses, self.read_by_poses, {0: current, **known}, {})
        lookup = torch.stack([known[i] for i in self.matching_ids], dim=1)
        relative = torch.stack([poses[i] for i in self.matching_ids], dim=1)
        disparities, _ = self.net(current, lookup, relative, K.to(device))
        return disp_to_depth(disparities["disp", 0], self.min_depth, self.max_depth)[0]

    def disparity(self, image: Tensor) -> Tensor:
        """1 / depth of single images, without lookup frames: (B, 3, height, width) -> (B, 1, height, width)."""
        anything = torch.eye(3).repeat(len(image), 1, 1)
        anything[:, 0, 0] = anything[:, 1, 1] = self.width
        return self({0: image}, anything)

    def video(self, K: np.ndarray, width: int, height: int) -> VideoPredictor:
        """A predictor for the frames of one video, in order.

        Args:
            K: (3, 3) intrinsics, in pixels of frames of width x height.
        """
        scale = np.array([[self.width / width], [self.height / height], [1.0]])
        return VideoPredictor(self, torch.from_numpy((K * scale).astype(np.float32)))


class VideoPredictor:
    """Depth of a video's frames, which are given in order, in batches of any size.

    The first frame has no frame before it. A model that also matches with the next frame lacks it at the end of every
    batch.
    """

    def __init__(self, model: TwoFrameModel, K: Tensor) -> None:
        self.model, self.K = model, K
        self.height, self.width = model.height, model.width
        self.min_depth, self.max_depth, self.resize = model.min_depth, model.max_depth, model.resize
        self._before: Tensor | None = None

    def disparity(self, image: Tensor) -> Tensor:
        """1 / depth, (B, 1, height, width), of the next B frames (B, 3, height, width)."""
        reach = max(max(-i for i in self.model.matching_ids), 1)
        count = len(image)
        before = image.new_zeros(reach, *image.shape[1:]) if self._before is None else self._before
        line = torch.cat([before, image, torch.zeros_like(image[:1])])
        self._before = line[count : count + reach]
        frames = {i: line[reach + i : reach + i + count] for i in (0, *self.model.matching_ids)}
        return self.model(frames, self.K.expand(count, 3, 3))
