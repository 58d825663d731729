"""The hybrid matching encoder in the form that the original ManyDepth's code handles."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import Tensor, nn

from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.model.nets import DepthNets
from hybrid_encoder.two_frame.cost_volume import Lookup
from hybrid_encoder.two_frame.encoder import HybridMatchingEncoder

from ..clone_networks import HybridNetworks, Start, listed


class ListedMatchingEncoder(HybridMatchingEncoder):
    """The hybrid matching encoder with the original's argument names, and with a plain list as its output.

    Args:
        nets: what to build.
        input_height, input_width, settings: as `HybridMatchingEncoder` takes them.

    Attributes:
        nets: what the encoder was built from.
        image_size: (H, W) of the last images.
    """

    def __init__(self, nets: DepthNets, input_height: int, input_width: int, **settings: Any) -> None:
        assert nets.config is not None
        super().__init__(HybridEncoder(nets.config), input_height, input_width, **settings)
        self.nets = nets
        self.image_size = (input_height, input_width)

    def forward(  # type: ignore[override]
        self,
        current_image: Tensor,
        lookup_images: Tensor,
        poses: Tensor,
        K: Tensor,
        invK: Tensor,
        min_depth_bin: Tensor | float | None = None,
        max_depth_bin: Tensor | float | None = None,
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Returns what the original's encoder does: a list of maps; 1 / depth of the lowest cost, on the CPU;
        confidence."""
        lookup = Lookup(lookup_images, poses, K, invK)
        known = None if min_depth_bin is None or max_depth_bin is None else (min_depth_bin, max_depth_bin)
        features, lowest_cost, confidence = self.forward_features(current_image, lookup, known)
        return listed(self, self.nets, features), lowest_cost.detach().cpu(), confidence


class MatchingNetworks(HybridNetworks):
    """The original's `networks` in which the two-frame net, its teacher, or both are ours.

    Args:
        networks: the original's module.
        student, teacher: what to build for each; nets without a hybrid encoder are the original's.
        their_scales, start: as for `HybridNetworks`.
        settings: arguments of the two-frame net, in place of the caller's.
    """

    def __init__(
        self,
        networks: ModuleType,
        student: DepthNets,
        teacher: DepthNets,
        their_scales: tuple[int, ...] | None = None,
        start: Start | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(networks, teacher, their_scales, start, ResnetEncoderMatching=self.matching_encoder)
        self.student = student
        self.settings = settings

    def replaced(self) -> set[str]:
        """As `HybridNetworks.replaced`; `ResnetEncoder` builds the teacher."""
        return super().replaced() | (set() if self.student.config is None else {"ResnetEncoderMatching"})

    def matching_encoder(
        self, num_layers: int, pretrained: bool, input_height: int, input_width: int, **settings: Any
    ) -> nn.Module:
        """In place of `ResnetEncoderMatching`: our matching encoder or the original's."""
        self.called.add("ResnetEncoderMatching")
        if self.student.config is None:
            theirs: nn.Module = self._original.ResnetEncoderMatching(
                num_layers, pretrained, input_height, input_width, **settings
            )
            return theirs
        matching = ListedMatchingEncoder(self.student, input_height, input_width, **{**settings, **self.settings})
        self.add(matching, matching.encoder)
        return matching
