"""The hybrid matching encoder in the shape that the original ManyDepth's own code handles."""

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
    """The hybrid matching encoder with the original's argument names, that returns a plain list in place of features.

    Args:
        nets: what to build.
        input_height, input_width, settings: as `HybridMatchingEncoder` takes them.

    Attributes:
        nets: what it was built from.
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
        """As the original's: a list of maps; 1 / depth of the lowest cost, on the CPU; confidence."""
        lookup = Lookup(lookup_images, poses, K, invK)
        known = None if min_depth_bin is None or max_depth_bin is None else (min_depth_bin, max_depth_bin)
        features, lowest_cost, confidence = self.forward_features(current_image, lookup, known)
        return listed(self, self.nets, features), lowest_cost.detach().cpu(), confidence


class MatchingNetworks(HybridNetworks):
    """The original's `networks` in which the two-frame net, its teacher, or both are ours.

    Args:
        networks: the original's module.
        student, teacher: what to build for each; without a hybrid encoder: theirs.
        their_scales: disparity scales of their own decoders, whatever is asked for; None: as asked for.
        start: what encoders begin with; None: random numbers, or the weights that the config names.
        settings: of the two-frame net, whatever is asked for.
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
        """As `HybridNetworks.replaced`; `ResnetEncoder` is the teacher's."""
        return super().replaced() | (set() if self.student.config is None else {"ResnetEncoderMatching"})

    def matching_encoder(
        self, num_layers: int, pretrained: bool, input_height: int, input_width: int, **settings: Any
    ) -> nn.Module:
        """In the place of `ResnetEncoderMatching`."""
        self.called.add("ResnetEncoderMatching")
        if self.student.config is None:
            theirs: nn.Module = self._behind.ResnetEncoderMatching(
                num_layers, pretrained, input_height, input_width, **settings
            )
            return theirs
        matching = ListedMatchingEncoder(self.student, input_height, input_width, **{**settings, **self.settings})
        self.add(matching, matching.encoder)
        return matching
