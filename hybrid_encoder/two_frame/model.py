"""Two-frame self-supervised depth as one module: teacher, pose nets and the two-frame net; a batch in, the loss out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import HybridEncoderConfig
from ..data.sample import FrameId
from ..model.contract import DepthEncoder, EncoderFeatures
from ..model.depth_model import decode
from ..model.disparity import disp_to_depth
from ..model.nets import DepthNets
from ..stage2.geometry import invert_intrinsics, scale_intrinsics
from ..stage2.health import health_metrics
from ..stage2.losses import text_bin_loss
from ..stage2.model import DepthBatch, MonoDepth
from ..stage2.networks import Stage1Start, asked_nets
from ..stage2.objective import View, self_supervised_loss
from ..stage2.prevent_collapse import HELD_WEIGHT, drift
from ..weights.reading import load_state
from .cost_volume import TRACKER_MOMENTUM, DepthBinTracker, Lookup
from .encoder import build_matching_encoder
from .lookup import augment_matching, matching_poses
from .matching import MATCHING_STRIDE, BinRange, Matched, MatchingEncoder
from .objective import find_consistency_mask, two_frame_loss
from .options import ManydepthOptions


class TwoFrameNet(nn.Module):
    """The two-frame depth net: matching encoder and decoder.

    Args:
        encoder: the matching encoder, whose features `depth` decodes.
        depth: a DPT decoder (hybrid encoder) or a U-Net decoder.
    """

    def __init__(self, encoder: MatchingEncoder, depth: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.depth = depth

    def start_from(self, encoder: DepthEncoder, depth: nn.Module) -> None:
        """Copies a single-frame net's weights, so that both nets predict the same depth at first.

        Raises:
            UserError: a net of another architecture.
        """
        self.encoder.start_from(encoder)
        load_state(self.depth, depth.state_dict(), "the teacher's decoder")

    def forward(
        self, current: Tensor, lookup: Tensor, poses: Tensor, K: Tensor, bin_range: BinRange | None = None
    ) -> tuple[dict[tuple[str, int], Tensor], Matched]:
        """The disparity of a frame, predicted with its lookup frames.

        Args:
            current: (B, 3, H, W) in [0, 1].
            lookup: (B, F, 3, H, W).
            poses: (B, F, 4, 4), from the current camera to each lookup camera; all zeros: there is no such frame.
            K: (B, 3, 3), pixels of H x W.
            bin_range: of the depth bins; None: the range of the last call or of loading.

        Returns:
            {("disp", s): (B, 1, H / 2^s, W / 2^s)}, and the encoder's output.
        """
        small = scale_intrinsics(K, 1 / MATCHING_STRIDE, 1 / MATCHING_STRIDE)
        frames = Lookup(lookup, poses, small, invert_intrinsics(small))
        found = self.encoder.forward_features(current, frames, bin_range)
        return decode(self.encoder, self.depth, found.features), found


class TwoFrameDepth(nn.Module):
    """All nets of a ManyDepth run; called on a `DepthBatch` it returns scalars, among them "loss".

    In training mode it also tracks the range of the teacher's depth.

    Args:
        config: of hybrid encoders; `--teacher_encoder_option` changes the teacher's.
        resnet_weights: "pretrained" (ImageNet), "random", or a file.

    Attributes:
        teacher: the single-frame net and the pose nets.
        nets: which nets the two-frame net is made of.
        net: the two-frame net.
        bins: the tracked range.
        frozen: whether teacher and pose nets have stopped training.
        range_unknown: whether no batch has set the range of the bins yet; the next one then sets it.
    """

    def __init__(self, options: ManydepthOptions, config: HybridEncoderConfig, resnet_weights: str) -> None:
        super().__init__()
        self.options = options
        self.objective = options.objective()
        self.teacher = MonoDepth(
            options.teacher(), options.teacher_config(config), resnet_weights, options.prevent_collapse
        )
        self.nets = asked_nets(options, config)
        self.net = build_two_frame_net(options, self.nets, resnet_weights)
        self.bins = DepthBinTracker(options.min_depth)
        self.frozen = False
        self.range_unknown = False

    def files(self) -> dict[str, nn.Module]:
        """The nets by the name of their checkpoint file."""
        teacher = {f"mono_{name}": net for name, net in self.teacher.files().items() if name in ("encoder", "depth")}
        poses = {name: net for name, net in self.teacher.files().items() if name.startswith("pose")}
        return {"encoder": self.net.encoder, "depth": self.net.depth, **teacher, **poses}

    def files_to_save(self) -> dict[str, nn.Module]:
        """`files`, with pose nets whose translations are in the unit of depth, as all readers of weights expect."""
        saved = self.teacher.files_to_save()
        return {name: saved[name] if name.startswith("pose") else net for name, net in self.files().items()}

    def freeze_teacher(self) -> None:
        """Stops the training of teacher and pose nets, batch-norm statistics included.

        The range of the bins is frozen, too, unless it has never been tracked (--freeze_teacher_and_pose).
        """
        self.frozen = True
        self.teacher.requires_grad_(False)
        for parameter in self.teacher.parameters():
            parameter.grad = None  # accumulated gradients must not change them any more
        self.teacher.eval()

    def train(self, mode: bool = True) -> TwoFrameDepth:
        super().train(mode)
        if self.frozen:
            self.teacher.eval()
        return self

    def forward(self, batch: DepthBatch) -> dict[str, Tensor]:
        """Scalars: "loss", its parts, the teacher's loss, the range of the bins, the mean depth."""
        learns = self.training and not self.frozen
        known = {i: batch.frames[i] for i in self.options.all_frame_ids}
        with torch.autocast(batch.K.device.type, enabled=False):
            view = View.of(known, batch.K, self.objective)
        with torch.set_grad_enabled(learns):
            predicted = self.teacher.predict(batch)
        features, mono, poses = predicted.features, predicted.disparities, predicted.poses
        scalars: dict[str, Tensor] = {}
        if learns or not self.training:
            scalars["teacher_loss"] = self_supervised_loss(mono, view, poses, self.objective).loss
            if self.teacher.unit is not None:
                scalars["drift"] = drift(mono.values())
                scalars["teacher_loss"] = scalars["teacher_loss"] + HELD_WEIGHT * scalars["drift"]
        with torch.no_grad():
            mono_depths = {scale: self._full_depth(mono, scale) for scale in self.options.disparity_scales}
            mono_depth = self._full_depth(mono)
        lookup, relative, unchanged = self._shown(batch, poses)
        disparities, found = self.net(batch.augmented[0], lookup, relative, batch.K, (self.bins.near, self.bins.far))
        trusted = self._trusted(found, mono_depth) & unchanged.view(-1, 1, 1, 1)
        two = two_frame_loss(disparities, view, poses, mono_depths, trusted, self.objective)
        scalars.update(two.scalars(), confident_share=found.confidence.mean(), mean_depth=two.depth.mean())
        if learns or (self.training and self.options.freeze_teacher_and_pose):
            self.bins.update(mono_depth, 0.0 if self.range_unknown else TRACKER_MOMENTUM)
        if learns:
            scalars["loss"] = scalars["loss"] + scalars["teacher_loss"]
        taught = [(found.features, two.depth), *([(features, mono_depth)] if learns else [])]
        self._teach_text(scalars, taught)
        scalars.update(near_bin=self.bins.near.clone(), far_bin=self.bins.far.clone())
        if not self.training:
            scalars.update(health_metrics(two.depth, poses, self.objective.min_depth, self.objective.max_depth))
        return scalars

    def _shown(self, batch: DepthBatch, poses: dict[FrameId, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Lookup frames and their poses, augmented in training; (B,) bool, False for samples that were augmented."""
        lookup, relative = self.lookup(batch, poses)
        if self.training and not self.options.no_matching_augmentation:
            lookup, relative, changed = augment_matching(batch.frames[0], lookup, relative)
            return lookup, relative, ~changed
        return lookup, relative, torch.ones(len(lookup), dtype=torch.bool, device=lookup.device)

    def _trusted(self, found: Matched, mono_depth: Tensor) -> Tensor:
        """(B, 1, H, W) bool: the pixels of all samples whose loss is photometric, because matching can be trusted."""
        if self.options.disable_motion_masking:
            return torch.ones_like(mono_depth, dtype=torch.bool)
        return find_consistency_mask(found, mono_depth)

    def _teach_text(self, scalars: dict[str, Tensor], taught: list[tuple[EncoderFeatures, Tensor]]) -> None:
        """Adds pixel-wise text supervision to the scalars.

        Args:
            taught: features of the nets that train, each with the depth (B, 1, H, W) that its net predicts.
        """
        if not self.options.text_weight:
            return
        low, high = self.objective.min_depth, self.objective.max_depth
        named = [text_bin_loss(logits, depth, low, high) for features, depth in taught for logits in features.logits]
        if named:  # empty where only the teacher has logits, and it is frozen
            scalars["text"] = torch.stack(named).mean()
            scalars["loss"] = scalars["loss"] + self.options.text_weight * scalars["text"]

    @torch.no_grad()
    def inverse_depths(self, batch: DepthBatch) -> tuple[Tensor, Tensor]:
        """1 / depth, (B, 1, H, W), of the two-frame net and of the teacher."""
        _, mono = self.teacher.see(batch.augmented[0])
        lookup, relative = self.lookup(batch, {})
        two, _ = self.net(batch.augmented[0], lookup, relative, batch.K, (self.bins.near, self.bins.far))
        return 1 / self._full_depth(two), 1 / self._full_depth(mono)

    def _full_depth(self, disparities: dict[tuple[str, int], Tensor], scale: int = 0) -> Tensor:
        """Depth (B, 1, H, W) of a scale; of the finest scale where the net does not predict this one."""
        disp = disparities.get(("disp", scale), disparities["disp", 0])
        size = (self.options.height, self.options.width)
        if disp.shape[-2:] != size:
            disp = F.interpolate(disp, size, mode="bilinear", align_corners=False)
        return disp_to_depth(disp, self.objective.min_depth, self.objective.max_depth)[1]

    @torch.no_grad()
    def lookup(self, batch: DepthBatch, poses: dict[Any, Tensor]) -> tuple[Tensor, Tensor]:
        """The frames to match with, (B, F, 3, H, W), and the poses from frame 0 to them, (B, F, 4, 4).

        Args:
            poses: poses from frame 0 that are known already.
        """
        frames = {i: batch.augmented[i] for i in (0, *self.options.matching_ids)}
        assert self.teacher.poses is not None
        unit = None if self.teacher.unit is None else self.teacher.unit.mean_depth
        relative = matching_poses(self.teacher.poses, self.teacher.encoder, frames, poses, unit)
        ids = self.options.matching_ids
        return torch.stack([frames[i] for i in ids], dim=1), torch.stack([relative[i] for i in ids], dim=1)


def build_two_frame_net(options: ManydepthOptions, nets: DepthNets, resnet_weights: str) -> TwoFrameNet:
    """The two-frame net of `--encoder` and `--decoder`."""
    encoder = build_matching_encoder(
        nets,
        (options.height, options.width),
        resnet_weights,
        Stage1Start.of(options),
        num_depth_bins=options.num_depth_bins,
        adaptive_bins=True,
        depth_binning=options.depth_binning,
        max_bytes=None if options.matching_memory is None else options.matching_memory << 20,
    )
    return TwoFrameNet(encoder, nets.build_decoder(encoder))
