"""The nets of single-frame depth under the names of their checkpoint files: encoder, depth, pose_encoder, pose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hybrid_encoder.config import HybridEncoderConfig
from hybrid_encoder.decoder import DPTDecoder
from hybrid_encoder.depth_model import encode
from hybrid_encoder.encoder import HybridEncoder, HybridFeatures
from hybrid_encoder.pose import ClassTokenPose, PoseDecoder
from hybrid_encoder.resnet import ResnetEncoder, UNetDecoder
from hybrid_encoder.selfsup.geometry import pose_matrix

from .options import DepthOptions


def build_encoder(options: DepthOptions, config: HybridEncoderConfig, resnet_weights: str) -> nn.Module:
    """The depth encoder of `--encoder`."""
    if options.encoder == "resnet":
        return ResnetEncoder(options.num_layers, resnet_weights)
    return HybridEncoder(config.replace(pyramid=options.decoder_kind == "unet"))


def build_decoder(encoder: nn.Module, options: DepthOptions) -> nn.Module:
    """The depth decoder of `--decoder`."""
    if options.decoder_kind == "dpt":
        return DPTDecoder(encoder, options.disparity_scales, options.head)  # type: ignore[arg-type]
    return UNetDecoder(encoder.num_ch_enc, options.disparity_scales)  # type: ignore[arg-type]


class PoseNetworks(nn.Module):
    """Camera motion by `--pose_model_type`.

    Attributes:
        pose_encoder: the pose ResNet of separate_resnet, else None.
        pose: the head.
    """

    def __init__(self, options: DepthOptions, encoder: nn.Module, resnet_weights: str) -> None:
        super().__init__()
        self.kind = options.pose_model_type
        self.pose_encoder: ResnetEncoder | None = None
        if self.kind == "separate_resnet":
            self.pose_encoder = ResnetEncoder(options.num_layers, resnet_weights, num_input_images=2)
            self.pose: nn.Module = PoseDecoder(int(self.pose_encoder.num_ch_enc[-1]), num_inputs=1, num_poses=2)
        elif self.kind == "shared":
            channels = (
                encoder.fused_channels[-1] if isinstance(encoder, HybridEncoder) else int(encoder.num_ch_enc[-1])  # type: ignore[index]
            )
            self.pose = PoseDecoder(channels, num_inputs=2, num_poses=1)
        else:
            self.pose = ClassTokenPose(int(encoder.class_width))  # type: ignore[arg-type]

    def forward(self, encoder: nn.Module, frames: dict[int, Tensor], features: Any | None = None) -> dict[int, Tensor]:
        """Poses from frame 0 to every other frame.

        The nets see each pair in order of time; the motion of an earlier frame is inverted.

        Args:
            encoder: the depth encoder, which shared and class_token read.
            frames: (B, 3, H, W) by frame id, 0 among them.
            features: `encode`'s features of frame 0, where they exist already.

        Returns:
            (B, 4, 4) by frame id.
        """
        seen = self._see(encoder, frames, features)
        poses = {}
        for frame_id in frames:
            if frame_id == 0:
                continue
            earlier, later = (frame_id, 0) if frame_id < 0 else (0, frame_id)
            axis_angle, translation = self.motion(seen[earlier], seen[later])
            poses[frame_id] = pose_matrix(axis_angle[:, 0, 0], translation[:, 0, 0], invert=frame_id < 0)
        return poses

    def motion(self, earlier: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
        """Axis-angle and translation (B, n, 1, 3) from what `_see` gives for two frames."""
        if self.pose_encoder is not None:
            return self.pose([self.pose_encoder(torch.cat([earlier, later], dim=1))])  # type: ignore[no-any-return]
        if self.kind == "shared":
            return self.pose([[earlier], [later]])  # type: ignore[no-any-return]
        return self.pose(earlier, later)  # type: ignore[no-any-return]

    def _see(self, encoder: nn.Module, frames: dict[int, Tensor], features: Any | None) -> dict[int, Tensor]:
        """What the head reads of each frame: the image itself, the coarsest map, or the class token."""
        if self.kind == "separate_resnet":
            return frames
        seen = {}
        for frame_id, image in frames.items():
            if self.kind == "class_token" and not (frame_id == 0 and features is not None):
                seen[frame_id] = encoder.dino(image).class_token  # type: ignore[operator, union-attr]
                continue
            read = features if frame_id == 0 and features is not None else encode(encoder, image)
            if self.kind == "class_token":
                seen[frame_id] = read.class_token
            else:
                seen[frame_id] = read.fused[-1] if isinstance(read, HybridFeatures) else read[-1]
        return seen
