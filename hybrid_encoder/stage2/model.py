"""Single-frame self-supervised depth as one module: a batch in, the loss out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..config import HybridEncoderConfig
from ..data.augment import color_jitter
from ..data.sample import FrameId
from ..model.contract import EncoderFeatures
from ..model.depth_model import decode
from ..model.disparity import disp_to_depth
from ..model.pose import start_forward, with_scaled_motion
from .camera import PROBE, LearntCamera, bend, recounted, with_focal_factor
from .health import health_metrics
from .losses import text_bin_loss
from .networks import PoseNetworks, Stage1Start, asked_nets, build_encoder
from .objective import Objective, View, self_supervised_loss
from .options import DepthOptions
from .prevent_collapse import FIRST_MOTION, HELD_WEIGHT, MotionUnit, drift


@dataclass
class DepthBatch:
    """Samples on the device.

    Attributes:
        frames: (B, 3, H, W) in [0, 1] by frame id: what is compared.
        augmented: the same frames, colour-jittered alike: what the nets see.
        K: (B, 3, 3) pixels.
        stereo_T: (B, 4, 4) from camera 0 to the other one.
        sample_names: of the samples.
    """

    frames: dict[FrameId, Tensor]
    augmented: dict[FrameId, Tensor]
    K: Tensor
    stereo_T: Tensor
    sample_names: list[str]


def to_batch(collated: dict[str, Any], frame_ids: tuple[FrameId, ...], device: torch.device) -> DepthBatch:
    """Moves a collated batch to the device as bytes; colours become floats and are jittered there, for all frames at
    once."""
    images = collated["frames"].to(device, non_blocking=True).float() / 255
    augmented = color_jitter(images, collated["jitter"])
    return DepthBatch(
        dict(zip(frame_ids, images.unbind(1), strict=True)),
        dict(zip(frame_ids, augmented.unbind(1), strict=True)),
        collated["K"].to(device, non_blocking=True),
        collated["stereo_T"].to(device, non_blocking=True),
        collated["name"],
    )


@dataclass(frozen=True)
class Prediction:
    """What the nets make of a batch.

    Attributes:
        features: of frame 0.
        disparities: {("disp", s): (B, 1, H / 2^s, W / 2^s)} of frame 0.
        poses: (B, 4, 4) from frame 0 to each source.
    """

    features: EncoderFeatures
    disparities: dict[tuple[str, int], Tensor]
    poses: dict[FrameId, Tensor]


class MonoDepth(nn.Module):
    """Depth encoder, depth decoder and pose nets; called on a `DepthBatch` it returns scalars, among them "loss".

    Args:
        config: of a hybrid encoder.
        resnet_weights: "pretrained" (ImageNet), "random", or a file.
        prevent_collapse: for nets that start from random numbers; there is a frame of another time then.
        learn_intrinsics: learn the focal length, too; there is a frame of another time then.

    Attributes:
        nets: which depth nets these are.
        encoder, depth: the depth net.
        poses: the pose nets.
        unit: what their translations are counted in; None: the unit of depth.
        camera: the focal length that is learnt; None: that of the samples holds.
    """

    def __init__(
        self,
        options: DepthOptions,
        config: HybridEncoderConfig,
        resnet_weights: str,
        prevent_collapse: bool = False,
        learn_intrinsics: bool = False,
    ) -> None:
        super().__init__()
        self.options = options
        self.objective = options.objective()
        self.nets = asked_nets(options, config)
        self.encoder = build_encoder(self.nets, Stage1Start.of(options), resnet_weights)
        self.depth = self.nets.build_decoder(self.encoder)
        self.poses = PoseNetworks(options, self.encoder, resnet_weights) if len(options.frame_ids) > 1 else None
        self.unit: MotionUnit | None = None
        if prevent_collapse:
            assert self.poses is not None
            self.unit = MotionUnit()
            start_forward(self.poses.pose, FIRST_MOTION)
        self.camera = LearntCamera() if learn_intrinsics else None

    def files(self) -> dict[str, nn.Module]:
        """The nets by the name of their checkpoint file."""
        files: dict[str, nn.Module] = {"encoder": self.encoder, "depth": self.depth}
        if self.poses is not None:
            if self.poses.pose_encoder is not None:
                files["pose_encoder"] = self.poses.pose_encoder
            files["pose"] = self.poses.pose
        return files

    def files_to_save(self) -> dict[str, nn.Module]:
        """`files`, with pose nets that answer in radians and in the unit of depth, as all readers of weights expect."""
        files = self.files()
        if self.poses is not None and not (self.unit is None and self.camera is None):
            factors = torch.ones(6)
            if self.unit is not None:
                factors[3:] *= self.unit.mean_depth.cpu()
            if self.camera is not None:
                factors[[0, 1, 3, 4]] /= self.camera.factor.detach().cpu()
            files["pose"] = with_scaled_motion(self.poses.pose, factors)
        return files

    def see(self, image: Tensor) -> tuple[EncoderFeatures, dict[tuple[str, int], Tensor]]:
        """(B, 3, H, W) in [0, 1] -> features, and {("disp", s): (B, 1, H / 2^s, W / 2^s)}."""
        features = self.encoder.forward_features(image)
        return features, decode(self.encoder, self.depth, features)

    def see_frames(self, batch: DepthBatch) -> tuple[dict[int, EncoderFeatures], dict[tuple[str, int], Tensor]]:
        """As `see`, of frame 0 of a batch; with `--frames_in_one_batch` the features of the frames of other times, too,
        by frame id, where the pose nets read them."""
        if not (self.options.frames_in_one_batch and self.options.pose_model_type in ("shared", "class_token")):
            alone, disparities = self.see(batch.augmented[0])
            return {0: alone}, disparities
        ids = self.options.frame_ids
        seen = self.encoder.forward_features(torch.cat([batch.augmented[i] for i in ids]))
        features = dict(zip(ids, seen.chunk(len(ids)), strict=True))
        return features, decode(self.encoder, self.depth, features[0])

    def predict_poses(
        self,
        batch: DepthBatch,
        features: Mapping[int, EncoderFeatures],
        unit: Tensor | None = None,
        focal: Tensor | None = None,
    ) -> dict[FrameId, Tensor]:
        """(B, 4, 4) from frame 0 to each source, from the features that `see_frames` gives, the unit of translations
        and the learnt factor of the focal length."""
        poses: dict[FrameId, Tensor] = {}
        if self.poses is not None:
            timed = {frame_id: batch.augmented[frame_id] for frame_id in self.options.frame_ids}
            poses.update(self.poses(self.encoder, timed, features, unit, focal))
        if "s" in batch.frames:
            poses["s"] = batch.stereo_T
        return poses

    def predict(self, batch: DepthBatch) -> Prediction:
        """Depth of frame 0 and the motion to its sources; in training mode, one more step of the motion's unit."""
        features, disparities = self.see_frames(batch)
        unit = None
        if self.unit is not None:
            scaled, _ = disp_to_depth(disparities["disp", 0].float(), self.options.min_depth, self.options.max_depth)
            unit = self.unit(scaled)
        focal = None if self.camera is None else self.camera.factor
        return Prediction(features[0], disparities, self.predict_poses(batch, features, unit, focal))

    def view_of(self, batch: DepthBatch) -> View:
        """A batch as the loss needs it, with the camera as it is known by now."""
        with torch.autocast(batch.K.device.type, enabled=False):
            K = batch.K if self.camera is None else self.camera(batch.K)
            return View.of(batch.frames, K, self.objective)

    def forward(self, batch: DepthBatch) -> dict[str, Tensor]:
        """Scalars: "loss", its parts, the mean depth; in evaluation mode also what `health_metrics` finds."""
        predicted, view = self.predict(batch), self.view_of(batch)
        objective = self_supervised_loss(predicted.disparities, view, predicted.poses, self.objective)
        low, high = self.options.min_depth, self.options.max_depth
        scalars = objective.scalars()
        scalars["mean_depth"] = objective.depth.mean()
        if self.options.text_weight and predicted.features.logits:
            named = [text_bin_loss(logits, objective.depth, low, high) for logits in predicted.features.logits]
            scalars["text"] = torch.stack(named).mean()
            scalars["loss"] = scalars["loss"] + self.options.text_weight * scalars["text"]
        if self.unit is not None:
            scalars["drift"] = drift(predicted.disparities.values())
            scalars["loss"] = scalars["loss"] + HELD_WEIGHT * scalars["drift"]
        if self.camera is not None:
            scalars["focal_length"] = (view.K[:, 0, 0] / objective.depth.shape[-1]).mean()
        if not self.training:
            scalars.update(health_metrics(objective.depth, predicted.poses, low, high))
            if self.camera is not None:
                scalars.update(self._evidence(predicted, view, objective))
        return scalars

    def _evidence(self, predicted: Prediction, view: View, objective: Objective) -> dict[str, Tensor]:
        """What a batch in evaluation says of the learnt focal length, for `doubt`."""
        losses = []
        height, width = objective.depth.shape[-2:]
        for factor in (view.K.new_tensor(PROBE), view.K.new_tensor(1 / PROBE)):
            other = replace(view, K=with_focal_factor(view.K, factor))
            poses = {i: pose if i == "s" else recounted(pose, factor) for i, pose in predicted.poses.items()}
            losses.append(self_supervised_loss(predicted.disparities, other, poses, self.objective).photometric)
        return {
            "bend": bend(view.K, predicted.poses, (height, width)),
            "focal_evidence": torch.stack(losses).min() / objective.photometric - 1,
        }

    def disparity(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 1, H, W) disparity of the finest scale."""
        return self.see(image)[1]["disp", 0]
