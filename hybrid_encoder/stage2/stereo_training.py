"""Whether weights know the scale of a stereo baseline."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import UserError
from .checkpoint import newest_weights

OPTIONS_FILE = "opt.json"
"""A run's options, beside its folders of weights; the originals write it, too."""


def check_learnt_from_stereo(weights: str) -> None:
    """Raises UserError for weights of a run whose options say that it had one camera; what says nothing passes.

    Args:
        weights: a run's folder, one of its folders of weights, or anything else.
    """
    folder = Path(weights)
    if not weights or not ((folder / "models").is_dir() or (folder / "encoder.pth").is_file()):
        return
    file = newest_weights(folder).parent / OPTIONS_FILE
    try:
        stated = json.loads(file.read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): it tells whether the run learnt from stereo") from error
    if isinstance(stated, dict) and stated.get("use_stereo") is False:
        raise UserError(
            f"--scale_from baseline: {weights} learnt from one camera, says {file}, so a baseline tells nothing of its "
            "scale. Use camera_height, lidar, speed or poses"
        )
