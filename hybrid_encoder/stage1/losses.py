"""The two losses of the close-distant proxy task (docs/METHOD.md, section 3).

Hybrid-depth (https://arxiv.org/abs/2510.09320). Sequences run near to far, as do the prompts: patch j belongs to
prompt j.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ranking_loss(
    logits: Tensor, bidirectional: bool = False, margin: float = 0.0, divisor: int | None = None
) -> Tensor:
    """Asks that patch j fits prompt j better than the patches before it do (bidirectional: better than all others).

    The sum of max(0, margin + logits[i, j] - logits[j, j]) over i < j (bidirectional: over i != j), averaged over the
    sequences.

    >>> logits = torch.zeros(4, 2, 2)
    >>> logits[:, 0, 1] = 3.0  # the first patch fits the second prompt better than the second patch does
    >>> ranking_loss(logits).item(), ranking_loss(logits, divisor=2).item()
    (3.0, 6.0)

    Args:
        logits: (N, n, n), patches x prompts.
        bidirectional: also over i > j.
        margin: by how much it has to fit better; at 0, as published, the loss is 0 if all patches are alike.
        divisor: what the sum over the sequences is divided by; None: their number N. The released code takes the number
            of images.

    Returns:
        Scalar.
    """
    own = logits.diagonal(dim1=1, dim2=2)[:, None, :]
    excess = (margin + logits - own).clamp_min(0)
    excess = excess.triu(diagonal=1) + excess.tril(diagonal=-1) if bidirectional else excess.triu(diagonal=1)
    return excess.sum() / max(len(logits) if divisor is None else divisor, 1)  # a batch may have no sequence


def ordinal_contrastive_loss(features: Tensor) -> Tensor:
    """Asks that two patches are the less alike, the farther apart they are in order.

    The mean over all n x n pairs of |i - j| / (n - 1) x cos(f_i, f_j), averaged over the sequences.

    Args:
        features: (N, n, D), each of length 1.

    Returns:
        Scalar.
    """
    count = features.shape[1]
    order = torch.arange(count, device=features.device, dtype=features.dtype)
    weight = (order[:, None] - order).abs() / (count - 1)
    with torch.autocast(features.device.type, enabled=False):  # cosines of 1 - 1e-3 matter
        alike = features @ features.transpose(1, 2)
    total = (weight * alike).mean((1, 2)).sum()
    return total / max(len(features), 1)
