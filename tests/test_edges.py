"""Depth edges: which pixels they are, and the scores of hand-made maps."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hybrid_encoder.evaluation import EvaluationProtocol, evaluate_depths, format_table, save_csv
from hybrid_encoder.evaluation.edges import EdgeCounts, EdgeScores, compare_edges, depth_edges, edge_scores
from hybrid_encoder.stage2.evaluate import evaluate, prior_errors
from hybrid_encoder.stage2.options import EvaluateOptions
from hybrid_encoder.synthetic.sequence import render_sequence


def box(left: int, depth: float = 10.0, behind: float = 40.0) -> np.ndarray:
    """A box 20 wide and 10 high before a wall, its left side at a column."""
    scene = np.full((40, 60), behind)
    scene[15:25, left : left + 20] = depth
    return scene


def road(height: int = 64, horizon: int = 28) -> np.ndarray:
    """A road up to a wall at 80 m, in pixels of a small image."""
    rows = np.arange(height)[:, None] - horizon
    return np.clip(200 / np.maximum(rows, 1e-3), 0, 80) * np.ones((1, 30))


def test_edges_are_both_sides_of_a_step_and_know_no_scale() -> None:
    edges = depth_edges(box(20))
    outer, inner = np.zeros((2, 40, 60), dtype=bool)
    outer[15:25, 19:41] = outer[14:26, 20:40] = True
    inner[16:24, 21:39] = True
    assert np.array_equal(edges, outer & ~inner)
    assert np.array_equal(edges, depth_edges(0.01 * box(20)))
    assert not depth_edges(box(20, depth=10.0, behind=12.4)).any()
    assert depth_edges(box(20, depth=10.0, behind=12.6)).any()


def test_the_ground_has_no_edges_but_what_stands_on_it_has() -> None:
    ground = road()
    assert ground[31, 0] / ground[32, 0] > 1.25, "the rows near the horizon do differ by much"
    assert not depth_edges(ground).any()
    car = ground.copy()
    car[26:40, 10:20] = ground[40, 0]
    edges = depth_edges(car)
    assert edges[25:27, 10:20].all()
    assert edges[27:33, 9:11].all()
    assert not edges[39:42, 12:18].any(), "its wheels stand on the road"


def test_scores_by_hand() -> None:
    truth = box(20)
    assert compare_edges(truth, 3.0 * truth) == (116, 116, 116, 116)
    assert edge_scores([compare_edges(truth, box(22))]) == (1, 1, 1)
    moved = compare_edges(truth, box(25))
    side = 2 * 10  # pixels of a side of the box; those of top and bottom still lie on the true ones, but for the end
    assert 0 < moved.predicted_right < moved.predicted - side
    assert 0 < moved.true_found < moved.true - side
    half = truth.copy()
    half[:, 32:] = 40.0
    assert compare_edges(truth, half).true_found < 0.7 * 116
    assert edge_scores([compare_edges(truth, np.full_like(truth, 7.0))]) == (0, 0, 0)
    blurred = cv2.GaussianBlur(truth, (0, 0), 6)
    scores = edge_scores([compare_edges(truth, blurred)])
    assert scores is not None
    assert scores.edge_comp < 0.2, "a slope is no edge"


def test_tolerance_is_two_pixels() -> None:
    truth, three_off, four_off = np.full((3, 9, 30), 10.0)
    truth[:, 10:] = three_off[:, 13:] = four_off[:, 14:] = 30.0  # the true edge is in columns 9 and 10
    assert compare_edges(truth, three_off) == (18, 9, 18, 9)
    assert compare_edges(truth, four_off) == (18, 0, 18, 0)


def test_what_is_unknown_or_left_out_has_no_edges() -> None:
    truth = box(20)
    truth[:15] = 0  # sky, down to the box
    counts = compare_edges(truth, box(20))
    expected = depth_edges(box(20))
    expected[:17] = False
    assert counts == (expected.sum(),) * 4
    left = np.zeros((40, 60), dtype=bool)
    left[:, :30] = True
    assert compare_edges(truth, box(20), left).true == expected[:, :30].sum()
    assert compare_edges(np.zeros((5, 5)), np.ones((5, 5))) == (0, 0, 0, 0)
    with pytest.raises(ValueError, match="one shape"):
        compare_edges(truth, truth[1:])


def test_scores_are_of_all_images_together() -> None:
    assert edge_scores([EdgeCounts(30, 30, 10, 5), EdgeCounts(10, 0, 10, 10)]) == pytest.approx(
        EdgeScores(0.75, 0.75, 0.75)
    )
    assert edge_scores([]) is None
    assert edge_scores([EdgeCounts(5, 0, 0, 0)]) is None


def test_evaluation_prints_edges_beside_the_seven_metrics(tmp_path: Path) -> None:
    plain = np.full_like(box(20), 40.0)
    truths, protocol = [box(20), plain], EvaluationProtocol(crop=None, edges=True)
    result = evaluate_depths([1 / (7 * truth) for truth in truths], truths, protocol)
    assert result.edges == (1, 1, 1)
    assert format_table(result).splitlines()[0].endswith("a3 | edge_acc | edge_comp |  edge_f1")
    assert format_table(result).splitlines()[1].endswith("1.000 |    1.000 |     1.000 |    1.000")
    save_csv(result, tmp_path / "rows.csv")
    with open(tmp_path / "rows.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["edge_acc"], first["edge_comp"], second["edge_f1"]) == ("1.000000", "1.000000", "")
    assert evaluate_depths([1 / box(20)], [box(20)]).edges is None


class FlatModel:
    """The same depth everywhere."""

    height, width, min_depth, max_depth = 32, 64, 0.1, 100.0

    def disparity(self, image: torch.Tensor) -> torch.Tensor:
        return 0.1 + 0 * image[:, :1]


def test_evaluation_compares_edges_of_rendered_scenes() -> None:
    options = EvaluateOptions(weights="-", dataset="synthetic", part="train", scenes=1, height=32, width=64)
    result = evaluate(options, FlatModel())
    assert len(result.edge_counts) == len(result.rows) == 3
    assert result.edges == (0, 0, 0)
    assert prior_errors(dataclasses.replace(options, part="test")).edges is not None


def test_rendered_scenes_have_edges_and_a_coarser_map_lacks_some() -> None:
    depth = render_sequence(7, 1, 96, 320).depth[0, 0].numpy()
    whole = np.where(depth > 0, depth, 200)
    small = cv2.resize(cv2.resize(1 / whole, (40, 12), interpolation=cv2.INTER_AREA), (320, 96))
    result = evaluate_depths([1 / whole, small], [depth, depth], EvaluationProtocol(crop=None, edges=True))
    exact, coarse = (edge_scores([counts]) for counts in result.edge_counts)
    assert exact is not None
    assert coarse is not None
    assert exact == pytest.approx((1, 1, 1), abs=0.02)
    assert coarse.edge_f1 < 0.6
