"""`hybrid-encoder train bev`: a lift-splat model, alone or under torchrun."""

from __future__ import annotations

from ..bev.options import BevOptions
from ..bev.training import train
from ..engine.processes import processes


def run(options: BevOptions) -> None:
    """Trains, and prints the next command."""
    options.check()
    with processes(options.device) as group:
        train(options, group)
        if group.is_main and not options.dry_run:
            print(f"next: hybrid-encoder evaluate bev --weights {options.out} --data_path {options.data_path}")
