"""`hybrid-encoder pretrain`: stage 1, alone or under torchrun."""

from __future__ import annotations

from ..engine.processes import processes
from ..stage1.options import PretrainOptions
from ..stage1.training import pretrain
from ..weights.run_files import STAGE1_FILE
from .recipes import recipe_table


def run(options: PretrainOptions) -> None:
    """Trains, and prints the next command."""
    with processes(options.device) as group:
        if options.recipe and group.is_main:
            print(recipe_table(options))
        pretrain(options, group)
        if group.is_main and not options.dry_run:
            print(f"next: hybrid-encoder train monodepth2 --stage1 {options.out / STAGE1_FILE} ...")
