"""The BEV grid and the maps on it, against cells counted by hand."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybrid_encoder.bev.grid import BevGrid
from hybrid_encoder.bev.raster import road_map, vehicle_map
from hybrid_encoder.data.rig import MapMask, RigBox, RigSample
from hybrid_encoder.errors import UserError

GRID = BevGrid(-4, 4, -4, 4, 1.0)


def box(x: float, y: float, yaw: float = 0.0, category: str = "vehicle.car", visibility: int | None = 4) -> RigBox:
    """4 m long, 2 m wide."""
    return RigBox(category, np.array([x, y, 0.8]), np.array([4.0, 2.0, 1.6]), yaw, visibility)


def sample(*boxes: RigBox, ego_to_global: np.ndarray | None = None, mask: MapMask | None = None) -> RigSample:
    pose = np.eye(4) if ego_to_global is None else ego_to_global
    return RigSample("token", "scene-0001", (), boxes, pose, mask, None, None)


def cells(filled: np.ndarray) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in np.argwhere(filled)}


def test_a_box_fills_the_cells_whose_centres_it_covers() -> None:
    # x from -1 to 3: cells 3 to 6; y from 0 to 2: cells 4 and 5
    assert cells(vehicle_map(sample(box(1, 1)), GRID)) == {(i, j) for i in (3, 4, 5, 6) for j in (4, 5)}
    turned = vehicle_map(sample(box(1, 1, math.pi / 2)), GRID)  # x from 0 to 2, y from -1 to 3
    assert cells(turned) == {(i, j) for i in (4, 5) for j in (3, 4, 5, 6)}
    # turned by 45 degrees to the left, the box's axis is x = y: |x + y| <= 2 sqrt 2, |x - y| <= sqrt 2
    diagonal = cells(vehicle_map(sample(box(0, 0, math.pi / 4)), GRID))
    assert diagonal == {(2, 3), (3, 2), (3, 3), (3, 4), (4, 3), (4, 4), (4, 5), (5, 4)}


def test_only_vehicles_that_are_seen_enough_and_on_the_grid() -> None:
    walker, hidden, unknown = box(0, 0, category="human.pedestrian.adult"), box(0, 0, visibility=1), box(0, 0)
    assert not vehicle_map(sample(walker), GRID).any()
    assert not vehicle_map(sample(hidden), GRID, least_visibility=2).any()
    assert vehicle_map(sample(hidden), GRID).sum() == 8
    assert vehicle_map(sample(box(0, 0, visibility=None)), GRID, least_visibility=2).sum() == 8
    assert vehicle_map(sample(unknown, box(30, 0), box(4, -4)), GRID).sum() == 8 + 2


def test_road_from_a_mask(tmp_path: Path) -> None:
    # 20 x 20 m in pixels of 0.5 m; road where 10 <= x < 12, and the one pixel at x, y in [0, 0.5)
    picture = np.zeros((40, 40), np.uint8)
    picture[:, 20:24] = 255
    picture[39, 0] = 1
    assert cv2.imwrite(str(tmp_path / "map.png"), picture)
    mask = MapMask(tmp_path / "map.png", 0.5)
    pose = np.eye(4)
    pose[:2, 3] = 10.0, 5.0  # looks east: road from 0 to 2 m ahead
    assert cells(road_map(sample(ego_to_global=pose, mask=mask), GRID)) == {(i, j) for i in (4, 5) for j in range(8)}
    pose[:2, :2] = [[0, -1], [1, 0]]  # looks north: x ahead is y of the map, road from 0 to 2 m to the right
    assert cells(road_map(sample(ego_to_global=pose, mask=mask), GRID)) == {(i, j) for i in range(8) for j in (2, 3)}
    corner = np.eye(4)
    corner[:2, 3] = -0.3, -0.3  # the cell [4, 4] has its centre at (0.2, 0.2); all behind and right is off the map
    assert cells(road_map(sample(ego_to_global=corner, mask=mask), GRID)) == {(4, 4)}


def test_a_map_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no map"):
        road_map(sample(), GRID)
    with pytest.raises(UserError, match=r"cannot read the map .*none\.png"):
        road_map(sample(mask=MapMask(tmp_path / "none.png")), GRID)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text\.png is damaged"):
        road_map(sample(mask=MapMask(tmp_path / "text.png")), GRID)


@pytest.mark.parametrize("extent", [(0, 0, -1, 1, 0.5), (0, 1, -1, 1, 0.3), (0, 1, 1, -1, 0.5), (0, 1, 0, 1, 0)])
def test_a_grid_of_whole_cells(extent: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="whole number of cells"):
        BevGrid(*extent)
