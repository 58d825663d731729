"""How close every cell of an image appears, read off the logits over the seven words that stage 1 trains.

docs/METHOD.md, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import HybridEncoderConfig
from ..errors import UserError
from .language import align


def distance_score(logits: Tensor, bidirectional: bool = False) -> Tensor:
    """How distant each patch appears; what the logits mean depends on the ranking loss of stage 1.

    One way, the loss asks only that patch j fits prompt j better than NEARER patches do: the logits of every prompt
    grow with distance, and their mean is the score. Both ways, every prompt fits the patches of its own rank best: the
    score is the slope of the logits from the nearest prompt (-1) to the farthest (+1). A prompt that fits all patches
    alike adds the same to all scores.

    >>> logits = torch.tensor([[1.0, 3.0, 2.0], [2.0, 3.0, 7.0]])  # of two patches over three prompts
    >>> distance_score(logits).tolist(), distance_score(logits, bidirectional=True).tolist()
    ([2.0, 4.0], [1.0, 5.0])

    Args:
        logits: (..., m) over the m prompts, near to far.
        bidirectional: how the encoder was trained.

    Returns:
        (...), larger is farther.
    """
    if not bidirectional:
        return logits.mean(-1)
    ramp = torch.linspace(-1, 1, logits.shape[-1], device=logits.device, dtype=logits.dtype)
    return logits @ ramp


def closeness_map(fused: list[Tensor], words: Tensor, config: HybridEncoderConfig) -> Tensor:
    """The closeness of every cell, read as the ranking of the weights asks for.

    Args:
        fused: the four fused levels (B, C, h, w).
        words: (7, D) text features of the words, near to far.
        config: says how stage 1 ranked patches.

    Returns:
        (B, h, w) float32, larger is nearer; only differences within an image count.

    Raises:
        UserError: the config does not say how stage 1 ranked patches.
    """
    if config.ranking == "unknown":
        raise UserError(
            "these weights do not say how stage 1 ranked patches, and closeness cannot be read off their logits: fill "
            "the encoder with load_stage1, or name it where you know it: closeness(image, ranking='one_way'), or "
            "'both_ways' after pretrain --bidirectional"
        )
    logits = align(torch.cat(fused, dim=1).float(), words).movedim(1, -1)
    score = distance_score(logits, config.ranking == "both_ways")
    # Where patches ran from far to near beside words from near to far, a high score means near.
    return score if config.rank_order == "far_to_near" else -score
