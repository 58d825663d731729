"""The nets of single-frame depth under the names of their checkpoint files: encoder, depth, pose_encoder, pose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..config import HybridEncoderConfig
from ..model.decoder import DPTDecoder
from ..model.depth_model import encode
from ..model.encoder import HybridEncoder, HybridFeatures
from ..model.pose import ClassTokenPose, PoseDecoder
from ..model.resnet import ResnetEncoder, UNetDecoder
from .geometry import pose_matrix
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
        others = [frame_id for frame_id in frames if frame_id != 0]
        pairs = [(seen[frame_id], seen[0]) if frame_id < 0 else (seen[0], seen[frame_id]) for frame_id in others]
        axis_angles, translations = (found[:, 0, 0].chunk(len(pairs)) for found in self.motions(pairs))
        return {
            frame_id: pose_matrix(axis_angle, translation, invert=frame_id < 0)
            for frame_id, axis_angle, translation in zip(others, axis_angles, translations, strict=True)
        }

    def motions(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Axis-angle and translation (P B, n, 1, 3) of P pairs: what `_see` gives for the earlier and the later frame.

        The pose ResNet sees a pair at a time, as its batch norm should; the heads see all at once.
        """
        if self.pose_encoder is not None:
            maps = [self.pose_encoder(torch.cat(pair, dim=1))[-1] for pair in pairs]
            return self.pose([[torch.cat(maps)]])
        earlier, later = (torch.cat(frames) for frames in zip(*pairs, strict=True))
        if self.kind == "shared":
            return self.pose([[earlier], [later]])
        return self.pose(earlier, later)

    def _see(self, encoder: nn.Module, frames: dict[int, Tensor], features: Any | None) -> dict[int, Tensor]:
        """What the head reads of each frame: the image itself, the coarsest map, or the class token."""
        if self.kind == "separate_resnet":
            return frames
        seen = {}
        for frame_id, image in frames.items():
            if self.kind == "class_token" and not (frame_id == 0 and features is not None):
                seen[frame_id] = encoder.dino(image).class_token  # type: ignore[operator]
                continue
            read = features if frame_id == 0 and features is not None else encode(encoder, image)
            if self.kind == "class_token":
                seen[frame_id] = read.class_token
            else:
                seen[frame_id] = read.fused[-1] if isinstance(read, HybridFeatures) else read[-1]
        return seen
