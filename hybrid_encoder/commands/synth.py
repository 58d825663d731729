"""`hybrid-encoder synth`: rendered driving scenes in the layouts of KITTI raw and TuSimple."""

from __future__ import annotations

from ..synthetic.files import write_synthetic
from .options import SynthOptions


def run(options: SynthOptions) -> None:
    """Renders and writes, and says where."""
    out = options.out
    write_synthetic(out, options.seed, options.sequences, options.frames, options.height, options.width)
    print(f"KITTI layout: {out / 'kitti'} (split: synthetic); TuSimple layout: {out / 'tusimple'}")
