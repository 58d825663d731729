"""Evaluation: metrics, crops and blends against hand-made figures, LiDAR depth of real scans, ground truth files."""

from __future__ import annotations

import csv
import importlib
import io
import math
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hybrid_encoder.data.depth_files import read_depth
from hybrid_encoder.data.ground_truth import GroundTruth, export_ground_truth
from hybrid_encoder.data.kitti import KittiRawSource
from hybrid_encoder.data.safe_npy import read_npy
from hybrid_encoder.data.splits import SplitEntry, read_split
from hybrid_encoder.data.velodyne import project_scan, read_scan, read_scan_depth, velodyne_projection
from hybrid_encoder.errors import UserError
from hybrid_encoder.evaluation import (
    DepthErrors,
    EvaluationProtocol,
    compute_depth_errors,
    crop_mask,
    evaluate_depths,
    evaluate_model,
    flip_post_process,
    format_table,
    mean_depth_prior,
    save_csv,
)
from hybrid_encoder.images import read_image
from hybrid_encoder.prediction.pictures import write_depth_png
from hybrid_encoder.stage2.frames import check_same_view

from .oracle import download, originals

KITTI = Path(__file__).resolve().parents[2] / "shared" / "data" / "kitti_raw"
SAMPLE_SPLIT = KITTI.parent / "splits" / "kitti_sample" / "test_files.txt"
DRIVE = "2011_09_26/2011_09_26_drive_sfnd_sync"
real = pytest.mark.skipif(not KITTI.is_dir(), reason="the KITTI sample of shared/data is not on this machine")


def truth_map(height: int = 60, width: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(2, 60, (height, width)).astype(np.float32)


# Metrics


def test_metrics_by_hand() -> None:
    errors = compute_depth_errors(np.array([10.0, 20.0]), np.array([12.0, 10.0]))
    assert errors.abs_rel == pytest.approx((0.2 + 0.5) / 2)
    assert errors.sq_rel == pytest.approx((4 / 10 + 100 / 20) / 2)
    assert errors.rmse == pytest.approx(np.sqrt((4 + 100) / 2))
    assert errors.rmse_log == pytest.approx(np.sqrt((np.log(1.2) ** 2 + np.log(2) ** 2) / 2))
    assert (errors.a1, errors.a2, errors.a3) == (0.5, 0.5, 0.5)
    assert compute_depth_errors(np.array([1.0, 1.0, 1.0]), np.array([1.3, 1.6, 2.0]))[4:] == (0.0, 1 / 3, 2 / 3)


def test_metrics_come_in_the_fields_order() -> None:
    assert DepthErrors._fields == ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")


@pytest.mark.parametrize("pred", [np.ones(3), np.array([1.0, 0.0]), np.array([1.0, np.nan])])
def test_metrics_refuse_what_is_no_depth(pred: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"one shape|positive finite"):
        compute_depth_errors(np.ones(2), pred)


def test_crops_have_the_published_corners() -> None:
    garg, eigen = crop_mask(375, 1242, "garg"), crop_mask(375, 1242, "eigen")
    for mask, (top, bottom, left, right) in ((garg, (153, 371, 44, 1197)), (eigen, (124, 342, 44, 1197))):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (top, bottom, left, right)
        assert mask.sum() == (bottom - top) * (right - left)
    rows = np.flatnonzero(crop_mask(100_000, 20, "garg")[:, 9]) / 100_000
    columns = np.flatnonzero(crop_mask(20, 100_000, "garg")[9]) / 100_000
    assert rows[[0, -1]] == pytest.approx([0.40810811, 0.99189189], abs=2e-5)
    assert columns[[0, -1]] == pytest.approx([0.03594771, 0.96405229], abs=2e-5)
    assert crop_mask(5, 7, None).all()
    with pytest.raises(UserError, match="unknown crop"):
        crop_mask(5, 7, "other")  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e-2, 1.0, 37.0])
def test_a_perfect_prediction_of_any_scale_has_no_error(scale: float) -> None:
    truths = [truth_map(seed=seed) for seed in range(3)]
    result = evaluate_depths([1 / (scale * truth) for truth in truths], truths)
    assert result.mean[:4] == pytest.approx((0, 0, 0, 0), abs=1e-5)
    assert result.mean[4:] == (1, 1, 1)
    assert result.ratio_median == pytest.approx(1 / scale, rel=1e-5)
    assert result.ratio_std == pytest.approx(0, abs=1e-5)


def test_without_median_scaling_the_scale_factor_counts() -> None:
    truth = truth_map()
    result = evaluate_depths([5.4 / truth], [truth], EvaluationProtocol(median_scaling=False, scale_factor=5.4))
    assert result.mean.abs_rel == pytest.approx(0, abs=1e-6)
    assert result.ratios == ()
    assert result.ratio_median is None
    assert evaluate_depths(
        [1.25 / truth], [truth], EvaluationProtocol(median_scaling=False)
    ).mean.abs_rel == pytest.approx(0.2, rel=1e-5)


def test_only_known_pixels_within_crop_and_cap_count() -> None:
    truth = np.full((100, 200), 10.0, np.float32)
    prediction = np.full((100, 200), 0.1, np.float32)
    truth[0, 0], truth[50, 50], truth[50, 60] = 99.0, 0.0, 81.0  # outside the crop; unknown; beyond the cap
    assert evaluate_depths(
        [prediction], [truth], EvaluationProtocol(median_scaling=False)
    ).mean.abs_rel == pytest.approx(0, abs=1e-6)
    prediction[60, 60] = 1e-9  # far beyond the cap: counts as 80 m
    pixels = crop_mask(100, 200, "garg").sum() - 2
    result = evaluate_depths([prediction], [truth], EvaluationProtocol(median_scaling=False))
    assert result.mean.abs_rel == pytest.approx(7 / pixels, rel=1e-4)


def test_the_inverse_depth_is_what_is_resized() -> None:
    disparity = np.array([[0.1, 0.5]], np.float32)
    truth = 1 / cv2.resize(disparity, (40, 10), interpolation=cv2.INTER_LINEAR)
    assert evaluate_depths([disparity], [truth], EvaluationProtocol(crop=None)).mean.rmse == pytest.approx(0, abs=1e-5)
    of_depth = cv2.resize(1 / disparity, (40, 10), interpolation=cv2.INTER_LINEAR)
    assert np.abs(of_depth - truth).max() > 1


def test_images_without_truth_are_left_out_and_named() -> None:
    truth = truth_map()
    result = evaluate_depths([1 / truth] * 2, [np.zeros_like(truth), truth], sample_names=["empty", "full"])
    assert (result.sample_names, result.skipped, len(result.rows)) == (("full",), ("empty",), 1)
    assert "empty" in format_table(result)
    with pytest.raises(UserError, match="no image to evaluate"):
        evaluate_depths([1 / truth], [np.zeros_like(truth)])


def test_flat_predictions_are_counted_and_told() -> None:
    truth = truth_map()
    result = evaluate_depths([np.full_like(truth, 0.1), 1 / truth], [truth, truth])
    assert result.flat == 1
    assert "flat predictions, with one depth everywhere: 1 of 2" in format_table(result)
    assert "flat" not in format_table(evaluate_depths([1 / truth], [truth]))


def test_bad_predictions_are_refused_by_name() -> None:
    truth = truth_map()
    with pytest.raises(UserError, match=r"night: .*non-finite"):
        evaluate_depths([np.full_like(truth, np.nan)], [truth], sample_names=["night"])
    with pytest.raises(UserError, match="more predictions"):
        evaluate_depths([1 / truth] * 2, [truth])
    with pytest.raises(UserError, match="more ground truths"):
        evaluate_depths([1 / truth], [truth] * 2)
    with pytest.raises(UserError, match="0 < min < max"):
        evaluate_depths([1 / truth], [truth], EvaluationProtocol(min_depth=2, max_depth=1))
    # All at infinity is a poor prediction, not a broken one.
    assert np.isfinite(evaluate_depths([np.zeros_like(truth)], [truth]).mean).all()


def test_flip_post_process_takes_each_edge_from_the_image_that_sees_it() -> None:
    disp, mirrored = np.full((2, 4, 101), 1.0, np.float32), np.full((2, 4, 101), 3.0, np.float32)
    blend = flip_post_process(disp, mirrored)
    assert blend.dtype == np.float32
    assert blend[0, 0, :6] == pytest.approx(3.0)
    assert blend[0, 0, -6:] == pytest.approx(1.0)
    assert blend[0, 0, 11:-11] == pytest.approx(2.0)
    assert np.all(np.diff(blend[0, 0, :51]) <= 1e-6)
    ramp = np.random.default_rng(0).random((1, 4, 101)).astype(np.float32)
    assert np.abs(flip_post_process(ramp, ramp[..., ::-1]) - ramp).max() < 1e-6


def test_prior_is_the_mean_of_what_is_known() -> None:
    first, second = np.array([[2.0, 0.0, 0.0], [4.0, 8.0, 0.0]]), np.array([[4.0, 6.0, 0.0], [0.0, 0.0, 0.0]])
    prior = mean_depth_prior([first, second])
    assert prior[:, :2].tolist() == [[3.0, 6.0], [4.0, 8.0]]
    assert prior[:, 2].tolist() == [6.0, 8.0]
    assert mean_depth_prior([first, np.full((4, 6), 4.0)])[0, 0] == 3.0
    with pytest.raises(UserError, match="at least one depth map"):
        mean_depth_prior([np.zeros((2, 2))])


def test_csv_and_table(tmp_path: Path) -> None:
    truths = [truth_map(seed=1), truth_map(seed=2)]
    result = evaluate_depths([1 / (truth + 1) for truth in truths], truths, sample_names=["a 1 l", "b 2 l"])
    save_csv(result, tmp_path / "rows.csv")
    with open(tmp_path / "rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a 1 l", "b 2 l"]
    assert list(rows[0]) == ["name", *DepthErrors._fields, "ratio"]
    assert float(rows[1]["rmse"]) == pytest.approx(result.rows[1].rmse, abs=1e-6)
    header, figures, note = format_table(result).splitlines()
    assert header.split(" | ")[0].strip() == "abs_rel"
    assert [field.strip() for field in header.split("|")] == list(DepthErrors._fields)
    assert float(figures.split("|")[0]) == pytest.approx(result.mean.abs_rel, abs=5e-4)
    assert note.startswith("2 images")


class RampModel:
    """Says that what is lower in the image, or darker at the left, is nearer: enough to see sizes and flips."""

    height, width, min_depth, max_depth = 32, 64, 0.1, 100.0

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def disparity(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(image.shape))
        rows = torch.linspace(0.05, 0.5, self.height)[:, None].expand(self.height, self.width)
        columns = torch.linspace(0.0, 0.2, self.width)
        return (rows + columns)[None, None].expand(len(image), 1, -1, -1) + 0 * image[:, :1]


def test_evaluate_model_in_batches_and_with_flips() -> None:
    model, image = RampModel(), np.zeros((50, 90, 3), np.uint8)
    truth = 1 / cv2.resize(model.disparity(torch.zeros(1, 3, 32, 64))[0, 0].numpy(), (90, 50))
    model.seen.clear()
    result = evaluate_model(model, [image] * 5, [truth] * 5, EvaluationProtocol(crop=None), batch_size=2)
    assert [shape[0] for shape in model.seen] == [2, 2, 1]
    assert result.mean.abs_rel == pytest.approx(0, abs=1e-6)
    # The model's slope to the right comes out mirrored, so the blend differs from its plain prediction.
    blended = EvaluationProtocol(crop=None, post_process=True)
    assert evaluate_model(model, [image], [truth], blended).mean.abs_rel > 0.01


# LiDAR


def write_calibration(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "calib_cam_to_cam.txt").write_text(
        "calib_time: 09-Jan-2012 13:57:47\nR_rect_00: 1 0 0 0 1 0 0 0 1\nS_rect_02: 40 20\n"
        "P_rect_02: 10 0 20 0 0 10 10 0 0 0 1 0\n"
    )
    (folder / "calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -0.25\n")


def test_projection_by_hand(tmp_path: Path) -> None:
    write_calibration(tmp_path / "day")
    projection, size = velodyne_projection(tmp_path / "day")
    assert size == (20, 40)
    points = np.array(
        [
            [10.25, 0, 0, 1],  # camera (0, 0, 10): pixel (20, 10), one less by convention
            [5.25, 0, 0, 1],  # the same pixel, nearer: wins
            [10.25, -10, 5, 1],  # camera (10, -5, 10): u 30, v 5
            [-8.0, 0, 0, 1],  # behind
            [10.25, 40, 0, 1],  # off the image
            [10.25, -20, 0, 1],  # u 40: the last column is 39
        ],
        np.float32,
    )
    depth = project_scan(points, projection, size)
    assert {(int(r), int(c)): float(depth[r, c]) for r, c in np.argwhere(depth)} == {
        (9, 19): 5,
        (4, 29): 10,
        (9, 39): 10,
    }
    assert project_scan(points, projection, size, "scanner")[9, 19] == 5.25
    with pytest.raises(UserError, match="P_rect_03"):
        velodyne_projection(tmp_path / "day", "r")


def test_damaged_scans_are_named(tmp_path: Path) -> None:
    scan = tmp_path / "0000000000.bin"
    for content, message in (
        (b"", "0 bytes"),
        (b"\0" * 30, "30 bytes"),
        (np.full(4, np.nan, "<f4").tobytes(), "not finite"),
    ):
        scan.write_bytes(content)
        with pytest.raises(UserError, match=f"0000000000.bin.*{message}"):
            read_scan(scan)
    with pytest.raises(UserError, match="cannot read the velodyne scan"):
        read_scan(tmp_path / "none.bin")


@real
def test_real_scan_lines_up_with_the_road() -> None:
    for frame in (0, 30, 76):
        depth = read_scan_depth(KITTI, DRIVE, frame)
        assert depth.shape == read_image(KITTI / DRIVE / "image_02" / "data" / f"{frame:010d}.jpg").shape[:2]
        known = depth > 0
        print(f"frame {frame}: {known.sum()} points, {depth[known].min():.1f} to {depth[known].max():.1f} m")
        assert 15_000 < known.sum() < 25_000
        assert not known[:60].any()
        assert 2 < depth[known].min() < 6
        assert 60 < depth[known].max() < 120
    depth = read_scan_depth(KITTI, DRIVE, 0)
    lane = depth[:, 400:520]  # open road in front of the camera
    medians = [float(np.median(lane[row : row + 15][lane[row : row + 15] > 0])) for row in (355, 330, 305, 280, 255)]
    assert medians == sorted(medians)
    # A plane 1.65 m below a camera of focal length 721.5 and horizon 172.9 lies at f * 1.65 / (v - 172.9).
    assert medians[0] == pytest.approx(721.5 * 1.65 / (362 - 172.9), rel=0.1)
    car = depth[250:300, 560:690]  # the car ahead
    assert np.ptp(np.percentile(car[car > 0], [10, 90])) < 1.5
    behind = read_scan_depth(KITTI, DRIVE, 0, reference="scanner") - depth
    assert float(np.median(behind[depth > 0])) == pytest.approx(0.27, abs=0.05)


def test_same_figures_as_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = download("monodepth2", tmp_path)
    monkeypatch.setattr(np, "int", int, raising=False)  # removed in numpy 1.24; the original still asks for it
    with originals(wheel):
        theirs, kitti = importlib.import_module("evaluate_depth"), importlib.import_module("kitti_utils")
    draw = np.random.default_rng(0)
    gt, pred = draw.uniform(1, 80, 500), draw.uniform(1, 80, 500)
    assert compute_depth_errors(gt, pred) == pytest.approx(theirs.compute_errors(gt, pred), rel=1e-12)
    disp, flipped = draw.random((2, 3, 8, 120))
    blend = theirs.batch_post_process_disparity(disp, flipped[..., ::-1])
    assert np.abs(flip_post_process(disp, flipped) - blend).max() < 1e-12
    write_calibration(tmp_path / "day")
    scan = tmp_path / "day" / "drive" / "velodyne_points" / "data" / "0000000000.bin"
    scan.parent.mkdir(parents=True)
    draw.uniform((-5, -30, -8, 0), (60, 30, 8, 1), (600, 4)).astype("<f4").tofile(scan)
    for reference in ("camera", "scanner"):
        depth = read_scan_depth(tmp_path, "day/drive", 0, "l", reference)
        expected = kitti.generate_depth_map(str(tmp_path / "day"), str(scan), 2, reference == "scanner")
        assert (depth > 0).sum() > 100
        # Theirs confuses pixels of the first and last columns when it looks for several points in one.
        assert np.abs(depth - expected)[:, 1:-1].max() < 1e-5


def test_a_crop_is_of_the_whole_image_also_where_rows_are_cut_off() -> None:
    truth = np.full((100, 200), 10.0, np.float32)
    truth[90:] = 20.0  # within Garg's crop, which ends at row 99, but below what is seen
    truth[35:41] = 5.0  # its first row is 40
    prediction = np.full((80, 200), 1 / 10.0, np.float32)
    result = evaluate_depths([prediction], [truth], EvaluationProtocol(median_scaling=False, crop_bottom=0.2))
    rows = np.full(40, 10.0)
    rows[0] = 5.0
    assert result.mean.abs_rel == pytest.approx(np.mean(np.abs(rows - 10) / rows), rel=1e-5)


# Ground truth files


@real
def test_export_and_read_back(tmp_path: Path) -> None:
    entries = read_split(SAMPLE_SPLIT)[:3]
    export_ground_truth(KITTI, entries, tmp_path / "gt.npz", progress=False)
    truth = GroundTruth(tmp_path / "gt.npz")
    assert truth.names == tuple(str(entry) for entry in entries)
    for entry, depth in zip(entries, truth, strict=True):
        assert np.array_equal(depth, read_scan_depth(KITTI, entry.folder, entry.frame, entry.side, "scanner"))
    assert truth[-1].shape == (375, 1242)
    with pytest.raises(IndexError):
        truth[3]
    with np.load(tmp_path / "gt.npz", allow_pickle=False) as plain:
        assert np.array_equal(plain["depth_000001"], truth[1])


def test_failed_export_writes_nothing(tmp_path: Path) -> None:
    write_calibration(tmp_path / "day")
    with pytest.raises(UserError, match=r"velodyne scan .*0000000007\.bin"):
        export_ground_truth(tmp_path, [SplitEntry("day/drive", 7, "l")], tmp_path / "out" / "gt.npz", progress=False)
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(UserError, match="no frame"):
        export_ground_truth(tmp_path, [], tmp_path / "gt.npz")


def test_improved_truth_and_png_round_trip(tmp_path: Path) -> None:
    depth = np.array([[0.0, 1.0, 79.99], [255.99, 300.0, 0.001]], np.float32)
    file = tmp_path / "day" / "drive" / "proj_depth" / "groundtruth" / "image_02" / "0000000003.png"
    write_depth_png(file, depth)
    assert cv2.imread(str(file), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    read = read_depth(file)
    assert read[0] == pytest.approx([0, 1, 79.99], abs=1 / 512)
    assert read[1] == pytest.approx([255.99, 65535 / 256, 1 / 256], abs=1 / 256)
    export_ground_truth(
        tmp_path, [SplitEntry("day/drive", 3, "l")], tmp_path / "gt.npz", source="improved", progress=False
    )
    assert np.array_equal(GroundTruth(tmp_path / "gt.npz")[0], read)
    cv2.imwrite(str(file), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="8 bits and 3 channels"):
        read_depth(file)


def save_as_the_field_does(path: Path, maps: list[np.ndarray], ragged: bool) -> None:
    array = np.array(maps, dtype=object) if not ragged else np.empty(len(maps), dtype=object)
    if ragged:
        array[:] = maps
    np.savez_compressed(path, data=array)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_object_arrays_of_every_pickle_protocol(protocol: int) -> None:
    array = np.empty(2, dtype=object)
    array[:] = [truth_map(3, 4), np.asfortranarray(truth_map(5, 2).astype(">f8"))]
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (2,)})
    pickle.dump(array, file, protocol=protocol)
    if protocol == 2:  # writes bytes by way of _codecs.encode, a function call: refused
        with pytest.raises(ValueError, match="_codecs"):
            read_npy(file.getvalue())
        return
    for read, expected in zip(read_npy(file.getvalue()), array, strict=True):
        assert np.array_equal(read, expected)


@pytest.mark.parametrize("ragged", [True, False])
def test_the_fields_ground_truth_is_read(tmp_path: Path, ragged: bool) -> None:
    maps = [truth_map(6, 8, seed=1), truth_map(5 if ragged else 6, 8, seed=2)]
    save_as_the_field_does(tmp_path / "gt_depths.npz", maps, ragged)
    truth = GroundTruth(tmp_path / "gt_depths.npz")
    assert len(truth) == 2
    for read, expected in zip(truth, maps, strict=True):
        assert np.array_equal(read, expected)


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path: Path) -> None:
    array = np.empty(1, dtype=object)
    array[0] = Hostile(tmp_path / "ran")
    np.savez(tmp_path / "gt_depths.npz", data=array)
    with pytest.raises(UserError, match=r"mkdir.*nothing was run"):
        GroundTruth(tmp_path / "gt_depths.npz")
    assert not (tmp_path / "ran").exists()
    with np.load(tmp_path / "gt_depths.npz", allow_pickle=True) as trusting:
        trusting["data"]
    assert (tmp_path / "ran").exists(), "the file was hostile after all"


@pytest.mark.parametrize(
    "element", [{"a": 1}, np.array(["text"]), np.array([{}], dtype=object), np.zeros(1, dtype="V8"), "text"]
)
def test_object_arrays_of_other_things_are_refused(tmp_path: Path, element: object) -> None:
    array = np.empty(1, dtype=object)
    array[0] = element
    np.savez(tmp_path / "gt.npz", data=array)
    with pytest.raises(UserError, match="data cannot be read"):
        GroundTruth(tmp_path / "gt.npz")


def test_foreign_and_damaged_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "gt.npz"
    with pytest.raises(UserError, match="export-gt"):
        GroundTruth(file)
    file.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"no \.npz"):
        GroundTruth(file)
    np.savez(file, other=np.zeros(3))
    with pytest.raises(UserError, match="found other"):
        GroundTruth(file)
    np.savez(file, names=np.array(["a", "b"]), depth_000000=np.zeros((2, 2)))
    with pytest.raises(UserError, match="lacks depth_000001"):
        GroundTruth(file)
    np.savez(file, names=np.array(["a"]), depth_000000=np.zeros((2, 2, 3)))
    with pytest.raises(UserError, match="map 0"):
        GroundTruth(file)[0]
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.npy", header.getvalue() + b"\0" * 8)
    with pytest.raises(UserError, match="do not fill"):
        GroundTruth(file)


def test_declared_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    """Zeros of a gigabyte are a megabyte in a zip archive."""
    file = tmp_path / "gt.npz"
    cases = (
        ("data.npy", (1, 16384, 16384), "states a size of 16384x16384"),
        ("names.npy", (1, 16384, 16384), r"names states 1\.0 GiB"),
    )
    for name, shape, message in cases:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, header.getvalue() + bytes(1 << 25))
            archive.getinfo(name).file_size = len(header.getvalue()) + 4 * math.prod(shape)
        tracemalloc.start()
        with pytest.raises(UserError, match=message):
            GroundTruth(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
        tracemalloc.stop()


def test_maps_of_a_stack_are_read_one_at_a_time(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).uniform(1, 80, (30, 200, 300)).astype(np.float32)
    for order in ("C", "F"):
        np.savez(tmp_path / "gt.npz", data=np.array(maps, order=order))  # type: ignore[call-overload]
        tracemalloc.start()
        truth = GroundTruth(tmp_path / "gt.npz")
        assert all(np.array_equal(read, expected) for read, expected in zip(truth, maps, strict=True))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.array_equal(truth[-1], maps[29])
        assert peak < (maps.nbytes / 2 if order == "C" else 1.5 * maps.nbytes)


def test_cropped_images_are_not_compared_with_depth_of_whole_ones(tmp_path: Path) -> None:
    write_calibration(tmp_path / "day")
    image = tmp_path / "day" / "drive" / "image_02" / "data" / "0000000001.png"
    image.parent.mkdir(parents=True)
    depth = np.ones((20, 40), np.float32)
    for shape, fits in (((20, 40), True), ((10, 20), True), ((20, 30), False)):
        cv2.imwrite(str(image), np.zeros((*shape, 3), np.uint8))
        source = KittiRawSource(tmp_path, [SplitEntry("day/drive", 1, "l")], (0,), png=True)
        if fits:
            assert check_same_view(source, 0, depth) is depth
        else:
            with pytest.raises(UserError, match=r"day/drive 1 l: made for images of 40x20, but these are 30x20"):
                check_same_view(source, 0, depth)
