"""`hybrid-encoder train`: stage 2 with either trainer, alone or under torchrun."""

from __future__ import annotations

from dataclasses import replace

from ..engine.processes import processes
from ..stage2.options import Monodepth2Options
from ..stage2.training import train as train_monodepth2
from ..two_frame.options import ManydepthOptions
from ..two_frame.training import train as train_manydepth
from .named_weights import local_stage1, refuse_released
from .recipes import recipe_table


def run(options: Monodepth2Options | ManydepthOptions) -> None:
    """Trains, and prints the next command."""
    refuse_released(options.load_weights_folder, "--load_weights_folder")
    options = replace(options, stage1=local_stage1(options.stage1, options.yes))
    options.check()
    with processes("cpu" if options.no_cuda else options.device) as group:
        if options.recipe and group.is_main:
            print(recipe_table(options))
        if isinstance(options, ManydepthOptions):
            train_manydepth(options, group)
        else:
            train_monodepth2(options, group)
        if group.is_main and options.num_epochs and not options.dry_run:
            command = "predict INPUT" if options.dataset == "video" else "evaluate"
            print(f"next: hybrid-encoder {command} --weights {options.folder} ...")
