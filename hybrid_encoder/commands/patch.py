"""`hybrid-encoder patch`: makes a clone of an original trainer run today, and adds `--encoder hybrid` to it."""

from __future__ import annotations

from ..patches.apply import patch_clone
from .options import PatchOptions


def run(options: PatchOptions) -> None:
    """Patches, and prints what was found and done."""
    print(patch_clone(options.host, options.path, options.check, options.revert, options.package))
