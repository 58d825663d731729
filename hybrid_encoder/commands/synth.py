"""`hybrid-encoder synth`: rendered driving scenes in the layouts of KITTI raw and TuSimple, or of nuScenes."""

from __future__ import annotations

from ..synthetic.files import write_synthetic
from ..synthetic.nuscenes import VERSION, write_rigs
from ..synthetic.settings import RigSettings, SynthSettings
from .options import SynthOptions

KITTI_SIZE, RIG_SIZE = (375, 1242), (128, 352)
"""Default height and width of the images."""


def run(options: SynthOptions) -> None:
    """Renders and writes the scenes, and prints where they are."""
    out, default = options.out, RIG_SIZE if options.layout == "nuscenes" else KITTI_SIZE
    size = (options.height or default[0], options.width or default[1])
    if options.layout == "nuscenes":
        write_rigs(out, RigSettings(options.seed, options.sequences, options.frames, *size))
        print(f"nuScenes layout: {out} (version: {VERSION}; parts: train, val)")
        return
    write_synthetic(out, SynthSettings(options.seed, options.sequences, options.frames, *size))
    print(f"KITTI layout: {out / 'kitti'} (split: synthetic); TuSimple layout: {out / 'tusimple'}")
