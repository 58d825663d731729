"""How well patches are ordered: pairwise ranking accuracy, Kendall's tau, confusion of prompts.

docs/METHOD.md, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor


def distance_score(logits: Tensor, bidirectional: bool = False) -> Tensor:
    """How distant each patch appears, by what its ranking loss makes of the logits.

    One way, patch j only has to fit prompt j better than NEARER patches do: logits grow with distance for every prompt,
    and their mean is the score. Both ways, every prompt fits the patches of its own rank best: the score is the slope
    of the logits from the nearest prompt (-1) to the farthest (+1), which no prompt that fits everything can disturb.

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


def pairwise_accuracy(scores: Tensor) -> Tensor:
    """The share of pairs i < j of a near-to-far sequence with score_i < score_j; ties count half. (N, n) -> (N,)."""
    count = scores.shape[1]
    first, second = torch.triu_indices(count, count, offset=1, device=scores.device)
    difference = scores[:, second] - scores[:, first]
    return (0.5 * (difference.sign() + 1)).mean(1)


def kendall_tau(scores: Tensor) -> Tensor:
    """Kendall's tau (a) between predicted and true order: concordant minus discordant pairs, by all. (N, n) -> (N,)."""
    return 2 * pairwise_accuracy(scores) - 1


def confusion(logits: Tensor) -> Tensor:
    """How often the patch of rank i is nearest to prompt j: (N, n, m) -> (n, m) counts.

    Each prompt's mean over its sequence is taken off first, as for ordering only differences between patches count.
    """
    chosen = (logits - logits.mean(1, keepdim=True)).argmax(-1)
    return torch.nn.functional.one_hot(chosen, logits.shape[-1]).sum(0)
