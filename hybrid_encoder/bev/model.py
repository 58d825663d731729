"""The lift-splat model: images of a rig -> maps of the ground around it (Lift, Splat, Shoot, arXiv 2008.05711)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.contract import DepthEncoder
from ..model.precision import without_autocast
from .decoder import BevDecoder
from .geometry import bin_depths, cells_of, frustum_points
from .lift import Lift
from .nets import BevNets
from .splat import splat


@dataclass
class BevBatch:
    """B rigs with N cameras each.

    Attributes:
        images: (B, N, 3, H, W) in [0, 1].
        intrinsics: (B, N, 3, 3), pixels of these images.
        camera_to_ego: (B, N, 4, 4), metres.
        maps: (B, K, X, Y), 1 where the class is, 0 elsewhere; K maps in the order of the nets' classes.
        sample_names: of the rigs.
    """

    images: Tensor
    intrinsics: Tensor
    camera_to_ego: Tensor
    maps: Tensor
    sample_names: list[str]


class BevModel(nn.Module):
    """Image encoder, lift, splat and BEV decoder.

    Args:
        nets: what to build.
        encoder: the image encoder that `nets` describes.
        positive_weights: for each class, the weight of its cells in the loss, relative to the other cells; None: 1.
    """

    def __init__(self, nets: BevNets, encoder: DepthEncoder, positive_weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        self.nets, self.encoder = nets, encoder
        self.lift = Lift(encoder, nets.stride, nets.bins, nets.channels)
        self.decoder = BevDecoder(nets.channels, nets.bev_channels, len(nets.classes))
        depths = bin_depths(nets.near, nets.far, nets.bins)
        weights = torch.tensor(positive_weights or (1.0,) * len(nets.classes))
        self.depths: Tensor
        self.positive_weights: Tensor
        self.register_buffer("depths", depths, persistent=False)
        self.register_buffer("positive_weights", weights[:, None, None], persistent=False)

    def forward(self, batch: BevBatch) -> dict[str, Tensor]:
        """The loss of each class, the mean binary cross-entropy over cells ("vehicle_loss"), and their sum ("loss")."""
        logits = self.logits(batch.images, batch.intrinsics, batch.camera_to_ego)
        with without_autocast(logits.device):
            cells = F.binary_cross_entropy_with_logits(
                logits, batch.maps, pos_weight=self.positive_weights, reduction="none"
            )
        losses = cells.mean(dim=(0, 2, 3))
        parts = {f"{name}_loss": loss for name, loss in zip(self.nets.classes, losses.unbind(), strict=True)}
        return {"loss": losses.sum(), **parts}

    def logits(self, images: Tensor, intrinsics: Tensor, camera_to_ego: Tensor) -> Tensor:
        """Logits (B, K, X, Y), float32; arguments as in `BevBatch`."""
        features, depth = self.lift(self.encoder.forward_features(images.flatten(0, 1)))
        along, across = self.nets.grid.shape
        with without_autocast(images.device):
            cells = self.cells(intrinsics, camera_to_ego, (features.shape[-2], features.shape[-1]))
            seen = splat(features, depth, cells, len(images) * along * across)
        return self.decoder(seen.view(len(images), along, across, -1).permute(0, 3, 1, 2))

    def cells(self, intrinsics: Tensor, camera_to_ego: Tensor, size: tuple[int, int]) -> Tensor:
        """The cells of the points of B rigs: int64 (B N, D, h, w). Cells of rig b start at b X Y; -1: outside the grid.

        Args:
            size: rows h and columns w of the lifted maps.
        """
        grid = self.nets.grid
        points = frustum_points(intrinsics, camera_to_ego, self.depths, size, self.nets.stride)
        cells = cells_of(points, grid)
        first = torch.arange(len(cells), device=cells.device) * (grid.shape[0] * grid.shape[1])
        return torch.where(cells < 0, cells, cells + first[:, None, None, None, None]).flatten(0, 1)
