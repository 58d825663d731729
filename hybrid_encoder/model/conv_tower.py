"""ResNets as towers: maps at strides 4, 8, 16, 32; a cost volume can be joined after the first of them."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from .tower import Normalization, Tower


class ConvTower(Tower):
    """A ResNet in two parts: the stem with the first layer (stride 4), then three layers (strides 8, 16, 32).

    Serves CLIP's ModifiedResNet and timm's ResNets.
    """

    def __init__(
        self, stem: nn.Module, layers: list[nn.Module], channels: tuple[int, ...], normalization: Normalization | None
    ) -> None:
        super().__init__(normalization)
        self.stem = stem
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.channels = channels

    def shallow(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C1, H/4, W/4), the map that a cost volume is built on."""
        return cast(Tensor, self.layer1(self.stem(self.normalize(image))))

    def deep(self, shallow: Tensor) -> list[Tensor]:
        """(B, C1, H/4, W/4) -> three maps at strides 8, 16, 32."""
        second = self.layer2(shallow)
        third = self.layer3(second)
        return [second, third, self.layer4(third)]

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps at strides 4, 8, 16, 32."""
        shallow = self.shallow(image)
        return [shallow, *self.deep(shallow)]


class ClipStem(nn.Module):
    """ModifiedResNet's three convolutions and average pool, under OpenAI's tensor names."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        for name in ("conv1", "bn1", "act1", "conv2", "bn2", "act2", "conv3", "bn3", "act3", "avgpool"):
            self.add_module(name, getattr(visual, name))

    def forward(self, image: Tensor) -> Tensor:
        for module in self.children():
            image = module(image)
        return image
