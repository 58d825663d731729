"""`hybrid-encoder synth`: rendered driving scenes in the layouts of KITTI raw and TuSimple."""

from __future__ import annotations

from ..synthetic.files import write_synthetic
from ..synthetic.settings import SynthSettings
from .options import SynthOptions


def run(options: SynthOptions) -> None:
    """Renders and writes, and says where."""
    out = options.out
    settings = SynthSettings(options.seed, options.sequences, options.frames, options.height, options.width)
    write_synthetic(out, settings)
    print(f"KITTI layout: {out / 'kitti'} (split: synthetic); TuSimple layout: {out / 'tusimple'}")
