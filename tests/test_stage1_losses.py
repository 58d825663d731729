"""Stage 1's losses against the authors' figures, its sampling against a plain loop, its metrics against known
orders."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hybrid_encoder.model.closeness import distance_score
from hybrid_encoder.stage1.losses import ordinal_contrastive_loss, ranking_loss
from hybrid_encoder.stage1.metrics import confusion, kendall_tau, pairwise_accuracy
from hybrid_encoder.stage1.patch_features import patch_features, patch_logits

PARITY = np.load(Path(__file__).parent / "data" / "proxy_losses.npz")


@pytest.mark.parametrize("case", range(4))
def test_losses_equal_the_authors(case: int) -> None:
    logits = torch.tensor(PARITY[f"logits{case}"])[None]
    features = torch.tensor(PARITY[f"features{case}"])[None]
    assert ranking_loss(logits).item() == pytest.approx(float(PARITY[f"rank{case}"].item()), rel=1e-5)
    both = ranking_loss(logits, bidirectional=True).item()
    assert both == pytest.approx(float(PARITY[f"rank_bidirectional{case}"].item()), rel=1e-5)
    contrastive = ordinal_contrastive_loss(F.normalize(features, dim=-1)).item()
    assert contrastive == pytest.approx(float(PARITY[f"contrastive{case}"].item()), rel=1e-5)


def test_losses_average_over_sequences() -> None:
    logits = torch.tensor(np.stack([PARITY[f"logits{i}"] for i in range(4)]))
    single = torch.stack([ranking_loss(one[None]) for one in logits])
    assert torch.allclose(ranking_loss(logits), single.mean())


def _levels() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 12, 16, 20, generator=generator) for _ in range(4)]


def test_sampling_equals_a_loop_over_points() -> None:
    levels = _levels()
    points = torch.rand(5, 7, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([279.99, 223.99])
    owner = torch.tensor([0, 1, 1, 0, 1])
    ours = patch_features(levels, points, owner, (224, 280), width=24)
    for n in range(5):
        for i in range(7):
            x, y = int(points[n, i, 0] / 280 * 20), int(points[n, i, 1] / 224 * 16)
            feature = torch.cat([level[owner[n], :, y, x] for level in levels])
            feature = F.normalize(F.interpolate(feature[None, None], size=24, mode="nearest")[0, 0], dim=0)
            assert torch.allclose(ours[n, i], feature, atol=1e-6)


def test_regions_average_a_constant_to_itself() -> None:
    levels = [torch.ones(1, 4, 16, 16) * torch.arange(1.0, 5).view(1, 4, 1, 1)] * 4
    points = torch.full((1, 7, 2), 112.0)
    cell = patch_features(levels, points, torch.tensor([0]), (224, 224), width=16)
    region = patch_features(levels, points, torch.tensor([0]), (224, 224), width=16, region=True)
    assert torch.allclose(cell, region, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_metrics_of_known_orders(bidirectional: bool) -> None:
    """Where the loss is zero, the order is perfect."""
    ranks = torch.arange(7.0)
    fits = -(ranks[:, None] - ranks).square() if bidirectional else ranks[:, None] + torch.randn(7)
    assert ranking_loss(fits[None], bidirectional).item() == 0
    score = distance_score(fits[None], bidirectional)
    assert pairwise_accuracy(score).item() == 1
    assert kendall_tau(score.flip(1)).item() == -1
    swapped = score[:, [1, 0, 2, 3, 4, 5, 6]]
    assert pairwise_accuracy(swapped).item() == pytest.approx(20 / 21)
    assert pairwise_accuracy(torch.zeros(1, 7)).item() == 0.5


def test_confusion_of_perfect_fits_is_diagonal() -> None:
    logits = patch_logits(torch.eye(7)[None], torch.eye(7))
    assert torch.equal(confusion(logits), torch.eye(7, dtype=torch.int64))


def test_a_prompt_that_fits_everything_does_not_change_the_order() -> None:
    logits = torch.randn(3, 7, 7, generator=torch.Generator().manual_seed(2))
    biased = logits + 50 * torch.randn(7, generator=torch.Generator().manual_seed(3))
    for bidirectional in (False, True):
        before, after = distance_score(logits, bidirectional), distance_score(biased, bidirectional)
        assert torch.equal(before.argsort(1), after.argsort(1))
