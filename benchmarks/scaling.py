"""Measures how time grows with image size and number of depth tokens K: of the depth model, and of a step's prompts.

    python benchmarks/scaling.py [--preset paper] [--rounds 3] [--threads 2] [--device cpu]

Random weights, batch 1. Prints two tables of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor

from hybrid_encoder.commands.measuring import machine, median_seconds
from hybrid_encoder.config import HybridEncoderConfig, preset
from hybrid_encoder.engine.inference import inference, prepare
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.encoder import HybridEncoder

SIZES = ((96, 320), (192, 320), (192, 640), (384, 640))
"""Heights and widths; every size has twice the pixels of the previous one."""
TOKENS = (32, 64, 128, 256)


def seconds_of(config: HybridEncoderConfig, device: torch.device, rounds: int) -> tuple[list[float], float]:
    """Seconds of encoder and decoder at every size, and of the prompts' forward and backward pass."""
    encoder = HybridEncoder(config)
    decoder = prepare(DPTDecoder(encoder), device)
    prepare(encoder, device)

    def see(image: Tensor) -> None:
        with inference(device):
            decoder(encoder.forward_features(image))

    def read() -> None:
        encoder.language.text_features().square().sum().backward()

    images = [torch.rand(1, 3, height, width, device=device) for height, width in SIZES]
    seen = [median_seconds(partial(see, image), rounds, device) for image in images]
    return seen, median_seconds(read, rounds, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device = torch.device(given.device)
    print(f"{machine(device)}; {given.preset}, batch 1, float32, medians of {given.rounds}\n")
    prompts = []
    print(f"| encoder and decoder, seconds an image | {' | '.join(f'{h}x{w}' for h, w in SIZES)} |")
    print(f"|{'---|' * (len(SIZES) + 1)}")
    for count in TOKENS:
        config = preset(given.preset).without_downloads().replace(pyramid=False, num_tokens=count)
        seen, read = seconds_of(config, device, given.rounds)
        print(f"| K = {count} | {' | '.join(f'{seconds:.2f}' for seconds in seen)} |", flush=True)
        prompts.append(read)
    print(f"\n| prompts of a training step, K = | {' | '.join(map(str, TOKENS))} |\n|{'---|' * (len(TOKENS) + 1)}")
    print(f"| seconds, forward and backward | {' | '.join(f'{seconds:.2f}' for seconds in prompts)} |")


if __name__ == "__main__":
    main()
