"""The hybrid encoder in somebody else's trainer: a host that is neither Monodepth2 nor ManyDepth.

The host has a depth net of its own (five maps in, inverse depth out), learns from stereo pairs by a loss of its own,
and knows nothing of this package but the lines marked HYBRID.

    python examples/own_trainer.py --steps 20
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hybrid_encoder  # HYBRID
from hybrid_encoder.synthetic.sequence import render_sequence


class HostDecoder(nn.Module):
    """The host's own decoder: adds up all five maps at stride 2 and reads inverse depth off."""

    def __init__(self, num_ch_enc: Sequence[int]) -> None:
        super().__init__()
        self.squeeze = nn.ModuleList(nn.Conv2d(int(channels), 32, 1) for channels in num_ch_enc)
        self.head = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 3, padding=1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        size = maps[0].shape[-2:]
        joined = sum(F.interpolate(s(m), size, mode="bilinear") for s, m in zip(self.squeeze, maps, strict=True))
        return F.interpolate(self.head(F.relu(joined)), scale_factor=2.0, mode="bilinear").sigmoid()


def shift_left(image: Tensor, disparity: Tensor) -> Tensor:
    """The right image seen from the left camera: every pixel comes from `disparity` (share of the width) to its
    left."""
    batch, _, height, width = image.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    grid = torch.stack([x - 2 * disparity[:, 0], y.expand(batch, -1, -1)], dim=-1)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=True)


def main(arguments: list[str] | None = None) -> list[float]:
    """Trains for some steps and returns the losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)

    encoder = hybrid_encoder.create_encoder(options.preset)  # HYBRID: in place of the host's ResNet
    decoder = HostDecoder(encoder.num_ch_enc)  # as before: the encoder says what its maps have
    groups = [*encoder.parameter_groups(1e-3), {"params": decoder.parameters()}]  # HYBRID: frozen parts stay out
    optimizer = torch.optim.AdamW(groups, lr=1e-3)

    scenes = [render_sequence(seed, frames=2, height=64, width=192, stereo=True) for seed in range(8)]
    left = torch.cat([scene.images for scene in scenes]).float() / 255
    right = torch.cat([scene.images_right for scene in scenes if scene.images_right is not None]).float() / 255
    losses = []
    for step in range(options.steps):
        chosen = torch.randint(len(left), (4,))
        disparity = 0.3 * decoder(encoder(left[chosen]))  # RGB in [0, 1]; sides are multiples of 32
        loss = (shift_left(right[chosen], disparity) - left[chosen]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        print(f"step {step + 1}: {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    main()
