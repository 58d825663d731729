"""Compares our loader with a plain pipeline in PIL: decoding, a Lanczos pyramid of 4 scales and a jittered copy of each
scale, for 3 frames.

    python benchmarks/loader.py --data_path KITTI --split SPLIT

Our loader decodes frames, resizes them once, draws the numbers of the jitter and collates bytes. Conversion to floats,
jitter and pyramids run on the training device, in batches; `--device_work` counts this work, too, on the CPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import functional as T

from hybrid_encoder.commands.measuring import machine
from hybrid_encoder.data.augment import color_jitter
from hybrid_encoder.data.dataset import SelfSupervisedDataset
from hybrid_encoder.data.kitti import KittiRawSource
from hybrid_encoder.data.loader import make_loader
from hybrid_encoder.data.splits import find_split, read_split

FRAME_IDS = (0, -1, 1)
SCALES = range(4)
BATCH = 4


def reference_sample(
    source: KittiRawSource, index: int, height: int, width: int
) -> dict[tuple[str, int, int], torch.Tensor]:
    """One sample of the plain pipeline."""
    factors = np.random.default_rng(index).uniform(0.8, 1.2, 3)
    sample = {}
    for frame_id in FRAME_IDS:
        image = Image.open(source.path(source.entries[index], frame_id)).convert("RGB")
        for scale in SCALES:
            image = image.resize((width >> scale, height >> scale), Image.Resampling.LANCZOS)
            sample["color", frame_id, scale] = T.to_tensor(image)
            jittered = T.adjust_brightness(image, factors[0])
            jittered = T.adjust_contrast(jittered, factors[1])
            jittered = T.adjust_saturation(jittered, factors[2])
            jittered = T.adjust_hue(jittered, 0.05)
            sample["color_aug", frame_id, scale] = T.to_tensor(jittered)
    return sample


def main() -> None:
    """Prints samples per CPU second of both sides, which take turns, and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device_work", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    entries = read_split(find_split(options.split, options.data_path) / "train_files.txt")
    source = KittiRawSource(options.data_path, entries, FRAME_IDS)
    dataset = SelfSupervisedDataset(source, options.height, options.width, FRAME_IDS, train=True)
    loader = make_loader(dataset, BATCH, train=True)

    def ours() -> int:
        count = 0
        for batch in loader:
            count += len(batch["name"])
            if options.device_work:
                images = batch["frames"].float() / 255
                for scale in SCALES[1:]:
                    F.avg_pool2d(images.flatten(0, 1), 2**scale)
                color_jitter(images, batch["jitter"])
        return count

    def reference() -> int:
        count = min(len(source), 20)
        for index in range(count):
            reference_sample(source, index, options.height, options.width)
        return count

    def rate(run: Callable[[], int]) -> float:
        started = time.process_time()
        return run() / (time.process_time() - started)

    ours(), reference()
    pairs = [(rate(ours), rate(reference)) for _ in range(options.repeats)]
    fast, slow = (float(np.median(values)) for values in zip(*pairs, strict=True))
    print(machine(torch.device("cpu")))
    print(
        f"ours      {fast:7.1f} samples per CPU second" + (" (with jitter and pyramid)" if options.device_work else "")
    )
    print(f"reference {slow:7.1f} samples per CPU second")
    print(f"ratio     {fast / slow:7.2f}")


if __name__ == "__main__":
    main()
