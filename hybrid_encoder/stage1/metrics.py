"""How well patches are ordered: pairwise ranking accuracy, Kendall's tau, confusion of prompts.

docs/METHOD.md, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor


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

    The mean of a prompt's logits over the sequence is subtracted first: only differences between patches order them.
    """
    chosen = (logits - logits.mean(1, keepdim=True)).argmax(-1)
    return torch.nn.functional.one_hot(chosen, logits.shape[-1]).sum(0)
