"""The nets of single-frame depth under the names of their checkpoint files: encoder, depth, pose_encoder, pose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import HybridEncoderConfig
from ..model.contract import DepthEncoder, EncoderFeatures
from ..model.encoder import HybridEncoder
from ..model.nets import DepthNets
from ..model.pose import ClassTokenPose, PoseCNN, PoseDecoder, PoseHead
from ..model.resnet import ResnetEncoder
from ..stage1.checkpoint import load_stage1
from .camera import in_pixels
from .geometry import pose_matrix
from .options import DepthOptions


def asked_nets(options: DepthOptions, config: HybridEncoderConfig) -> DepthNets:
    """The depth nets that the options ask for.

    Args:
        config: of a hybrid encoder; the five maps are built only for a decoder that reads them.
    """
    unet = options.decoder_kind == "unet"
    return DepthNets(
        config=config.replace(pyramid=unet) if options.encoder == "hybrid" else None,
        num_layers=options.num_layers,
        decoder="unet" if unet else "dpt",
        scales=tuple(sorted(set(options.disparity_scales))),
        head="sigmoid" if unet else options.head,
        min_depth=options.min_depth,
        max_depth=options.max_depth,
        resize=options.resize,
    )


def starting_weights(options: Any) -> tuple[HybridEncoderConfig, str]:
    """What the nets of a run are built with: the hybrid encoder's config, and the ResNets' weights.

    Nothing is downloaded that stage 1 or a weights folder fills afterwards.

    Args:
        options: of a trainer: `RunOptions`, `DepthOptions` and `EncoderOptions`.
    """
    config = options.config()
    filled = options.load_weights_folder is not None
    if filled or options.stage1 is not None:
        config = config.without_downloads()
    return config, "random" if filled or options.weights_init == "scratch" else "pretrained"


@dataclass(frozen=True)
class Stage1Start:
    """Which stage 1 an encoder starts from, as for `load_stage1`."""

    path: Path
    any_pixels: bool = False

    @classmethod
    def of(cls, options: DepthOptions) -> Stage1Start | None:
        """What the options ask for; None: nothing."""
        return None if options.stage1 is None else cls(options.stage1, options.stage1_pixels == "any")


def build_encoder(nets: DepthNets, stage1: Stage1Start | None, resnet_weights: str) -> DepthEncoder:
    """The depth encoder; a hybrid one starts from stage 1 where there is one."""
    return nets.build_encoder(resnet_weights) if nets.config is None else build_hybrid(nets.config, stage1)


def build_hybrid(config: HybridEncoderConfig, stage1: Stage1Start | None) -> HybridEncoder:
    """A hybrid encoder, which starts from stage 1 where there is one."""
    encoder = HybridEncoder(config)
    if stage1 is not None:
        load_stage1(encoder, stage1.path, stage1.any_pixels)
    return encoder


class PoseNetworks(nn.Module):
    """Camera motion by `--pose_model_type`; a pose ResNet sees pixels by `--pose_normalization`.

    Args:
        encoder: the depth encoder, which shared and class_token read; the others need none.
        resnet_weights: of the pose ResNet: "pretrained" (ImageNet), "random", or a file.

    Attributes:
        pose_encoder: the pose ResNet of separate_resnet, else None.
        pose: the head.
    """

    def __init__(self, options: DepthOptions, encoder: DepthEncoder | None, resnet_weights: str) -> None:
        super().__init__()
        self.kind = options.pose_model_type
        self.pose_encoder: ResnetEncoder | None = None
        if self.kind == "separate_resnet":
            self.pose_encoder = ResnetEncoder(options.num_layers, resnet_weights, 2, options.pose_normalization)
            self.pose: PoseHead = PoseDecoder(int(self.pose_encoder.num_ch_enc[-1]), num_inputs=1, num_poses=2)
            return
        if self.kind == "posecnn":
            self.pose = PoseCNN()
            return
        assert encoder is not None
        if self.kind == "shared":
            self.pose = PoseDecoder(encoder.fused_channels[-1], num_inputs=2, num_poses=1)
        else:
            self.pose = ClassTokenPose(encoder.class_width)

    def forward(
        self,
        encoder: DepthEncoder | None,
        frames: dict[int, Tensor],
        features: Mapping[int, EncoderFeatures] | None = None,
        unit: Tensor | None = None,
        focal: Tensor | None = None,
    ) -> dict[int, Tensor]:
        """Poses from frame 0 to every other frame.

        The nets see each pair in order of time; the motion of an earlier frame is inverted.

        Args:
            encoder: as given to the constructor.
            frames: (B, 3, H, W) by frame id, 0 among them.
            features: the encoder's, by frame id, where they exist already.
            unit: scalar, what translations are counted in; None: the unit of depth.
            focal: scalar, the learnt factor of the focal length, where motions are counted in pixels (`camera`).

        Returns:
            (B, 4, 4) by frame id.
        """
        seen = self._see(encoder, frames, features or {})
        others = [frame_id for frame_id in frames if frame_id != 0]
        pairs = [(seen[frame_id], seen[0]) if frame_id < 0 else (seen[0], seen[frame_id]) for frame_id in others]
        axis_angles, translations = (found[:, 0, 0].chunk(len(pairs)) for found in self.motions(pairs))
        if unit is not None:
            translations = tuple(translation * unit for translation in translations)
        if focal is not None:
            axis_angles = tuple(in_pixels(axis_angle, focal) for axis_angle in axis_angles)
            translations = tuple(in_pixels(translation, focal) for translation in translations)
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
        if isinstance(self.pose, PoseCNN):
            return self.pose(torch.cat([torch.cat(pair, dim=1) for pair in pairs]))
        earlier, later = (torch.cat(frames) for frames in zip(*pairs, strict=True))
        if self.kind == "shared":
            return self.pose([[earlier], [later]])
        return self.pose(earlier, later)

    def _see(
        self, encoder: DepthEncoder | None, frames: dict[int, Tensor], features: Mapping[int, EncoderFeatures]
    ) -> dict[int, Tensor]:
        """What the head reads of each frame: the image itself, the coarsest map, or the class token."""
        if self.kind in ("separate_resnet", "posecnn"):
            return frames
        assert encoder is not None
        seen: dict[int, Tensor] = {}
        for frame_id, image in frames.items():
            known = features.get(frame_id)
            if self.kind == "shared":
                read = encoder.forward_features(image) if known is None else known
                seen[frame_id] = read.fused[-1]
            elif known is not None and known.class_token is not None:
                seen[frame_id] = known.class_token
            else:
                seen[frame_id] = encoder.class_token(image)
        return seen
