"""How close cells appear: near is high for weights of every variant of stage 1, and for the authors' order."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from hybrid_encoder import HybridEncoder, UserError, create_encoder, load_stage1
from hybrid_encoder.config import preset
from hybrid_encoder.released.facts import Kind, base_config
from hybrid_encoder.stage1.checkpoint import open_stage1, save_stage1
from hybrid_encoder.stage1.dataset import Stage1Batch
from hybrid_encoder.stage1.losses import ranking_loss
from hybrid_encoder.stage1.metrics import pairwise_accuracy
from hybrid_encoder.stage1.model import Stage1Model, stage1_config
from hybrid_encoder.stage1.options import PretrainOptions

HEIGHT, WIDTH = 64, 96


def scene() -> Stage1Batch:
    """An image that is dark above and bright below, with sequences from below (near) to above (far)."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.1, 0.9, HEIGHT).view(1, 1, HEIGHT, 1).expand(1, 3, HEIGHT, WIDTH)
    image = (ramp + 0.05 * torch.randn(1, 3, HEIGHT, WIDTH, generator=generator)).clamp(0, 1)
    y = torch.linspace(HEIGHT - 4, 4, 7).expand(6, 7)
    points = torch.stack([torch.linspace(8, WIDTH - 8, 6)[:, None].expand(6, 7), y], dim=-1)
    return Stage1Batch(image, points, torch.zeros(6, dtype=torch.long), ["ramp"])


def trained(order: str, bidirectional: bool) -> HybridEncoder:
    """The tiny encoder after some steps of stage 1 on `scene`, its points in one of the two orders."""
    torch.manual_seed(0)
    options = PretrainOptions(preset="tiny", weights_init="scratch", bidirectional=bidirectional, margin=2.0)
    model = Stage1Model(HybridEncoder(stage1_config(options.config(), bidirectional)), options).train()
    model.encoder.config = model.encoder.config.replace(rank_order=order)
    batch = scene()
    if order == "far_to_near":
        batch.points = batch.points.flip(1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(12):
        loss = ranking_loss(model.logits(batch)[1], bidirectional, margin=2.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.encoder.eval()


@torch.no_grad()
def order_of(encoder: HybridEncoder, **options: Literal["one_way", "both_ways"]) -> float:
    """The share of pairs of cells of one column whose lower one appears nearer."""
    cells: Tensor = encoder.closeness(scene().images, **options)
    assert cells.shape == (1, HEIGHT // 8, WIDTH // 8)
    assert cells.dtype == torch.float32
    return float(pairwise_accuracy(cells[0].T).mean())


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("order", ["near_to_far", "far_to_near"])
def test_near_is_high_for_weights_of_every_variant(order: str, bidirectional: bool, tmp_path: Path) -> None:
    encoder = trained(order, bidirectional)
    assert order_of(encoder) > 0.8
    save_stage1(tmp_path / "stage1.pth", encoder, preset("tiny"), {})
    assert order_of(open_stage1(tmp_path / "stage1.pth")) > 0.8
    host = create_encoder("tiny")
    load_stage1(host, tmp_path / "stage1.pth")
    assert order_of(host.eval()) > 0.8
    host.save_pretrained(tmp_path / "saved")
    assert order_of(create_encoder(str(tmp_path / "saved"))) > 0.8
    upside_down = encoder.config.replace(rank_order={"near_to_far": "far_to_near"}.get(order, "near_to_far"))
    encoder.config = upside_down
    assert order_of(encoder) < 0.2, "the order is what tells near from far"


def test_weights_that_do_not_say_how_they_were_ranked_are_refused_until_it_is_given(tmp_path: Path) -> None:
    encoder = trained("near_to_far", False)
    encoder.config = encoder.config.replace(ranking="unknown")  # as in files that were written before it was kept
    save_stage1(tmp_path / "stage1.pth", encoder, preset("tiny"), {})
    old = open_stage1(tmp_path / "stage1.pth")
    with pytest.raises(UserError, match=r"closeness\(image, ranking='one_way'\)"):
        order_of(old)
    assert order_of(old, ranking="one_way") > 0.8
    with pytest.raises(UserError, match="do not say how stage 1 ranked"):
        order_of(create_encoder("tiny"))


@pytest.mark.parametrize("kind", ["stage 1", "single frame", "two frames", "teacher"])
def test_the_authors_weights_run_from_far_to_near(kind: Kind) -> None:
    config = base_config(kind)
    assert (config.ranking, config.rank_order) == ("one_way", "far_to_near")
    assert preset("released").ranking == "unknown", "nothing was ranked yet"
    assert stage1_config(config).rank_order == "near_to_far", "what we train runs from near to far"
