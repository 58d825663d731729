"""Sets that depth is evaluated on, and the files that `evaluate` reads and writes."""

from __future__ import annotations

import contextlib
import csv
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hybrid_encoder.cli import main
from hybrid_encoder.data.depth_files import read_depth
from hybrid_encoder.data.image_pairs import ImagePairs
from hybrid_encoder.data.improved_splits import part_entries
from hybrid_encoder.data.make3d import Make3D
from hybrid_encoder.data.mat import read_mat
from hybrid_encoder.data.nyu import NyuFile, NyuFolders, open_nyu
from hybrid_encoder.data.splits import read_split
from hybrid_encoder.data.velodyne import improved_depth_path
from hybrid_encoder.errors import UserError
from hybrid_encoder.evaluation import EvaluationProtocol, compute_depth_errors, crop_mask, evaluate_depths
from hybrid_encoder.images import read_image
from hybrid_encoder.prediction.pictures import write_depth_png
from hybrid_encoder.stage2.evaluate import chosen_crop, evaluate, evaluation_protocol
from hybrid_encoder.stage2.evaluation_data import open_data
from hybrid_encoder.stage2.options import EvaluateOptions
from hybrid_encoder.stage2.prediction_files import saved, stored_disparities


def write_png(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def write_npy(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def random_depth(seed: int, size: tuple[int, int] = (40, 60), far: float = 60.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(2, far, size).astype(np.float32)


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# Pairs of folders


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Path, Path, list[np.ndarray]]:
    """Three images, one of them in a folder, and their depth in millimetres or as .npy."""
    images, truths = tmp_path / "images", tmp_path / "truth"
    for name in ("a_2.jpg", "a_10.png", "night/b.png"):
        write_png(images / name, np.full((80, 120, 3), 90, np.uint8))
    depths = [random_depth(seed) for seed in range(3)]
    depths[0][3, 4] = 0
    write_png(truths / "a_2.png", np.round(1000 * depths[0]).astype(np.uint16))
    stored = depths[1].astype(np.float64)
    stored[0, :2] = np.nan, np.inf
    depths[1][0, :2] = 0
    write_npy(truths / "a_10.npy", stored[..., None])
    write_npy(truths / "night" / "b.npy", depths[2])
    (images / ".hidden.png").write_bytes(b"")
    (truths / "notes.txt").write_text("more depth than images is fine")
    write_npy(truths / "other.npy", depths[2])
    return images, truths, depths


def test_pairs_are_found_by_name(pairs: tuple[Path, Path, list[np.ndarray]]) -> None:
    images, truths, depths = pairs
    found = ImagePairs(images, truths, scale=1000)
    assert [found.name(index) for index in range(len(found))] == ["a_2.jpg", "a_10.png", "night/b.png"]
    for index, depth in enumerate(depths):
        assert found.depth(index) == pytest.approx(depth, abs=6e-4)
        assert found.depth(index).dtype == np.float32
        assert found.read(index).shape == (80, 120, 3)


def test_what_is_no_pair_is_named(pairs: tuple[Path, Path, list[np.ndarray]], tmp_path: Path) -> None:
    images, truths, depths = pairs
    with pytest.raises(UserError, match="another folder than the images"):
        ImagePairs(images, images)
    with pytest.raises(UserError, match="folder of depth files"):
        ImagePairs(images, "velodyne")
    (truths / "a_2.png").rename(truths / "a_3.png")
    with pytest.raises(UserError, match=r"1 of 3 images .* first needs .*a_2\.png or \.npy"):
        ImagePairs(images, truths)
    (truths / "a_3.png").rename(truths / "a_2.png")
    write_npy(truths / "night" / "b.npy", depths[2][:20])
    with pytest.raises(UserError, match="other proportions"):
        ImagePairs(images, truths).depth(2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in it"):
        ImagePairs(tmp_path / "empty", truths)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.png", np.zeros((4, 4), np.uint8), "16-bit grey"),
        ("d.npy", np.zeros((4, 4, 3)), r"float64 \(4, 4, 3\)"),
        ("d.npy", np.zeros((0, 4)), r"it holds float64 \(0, 4\)"),
        ("d.npy", np.full((4, 4), -1.0), "negative"),
        ("d.npy", np.array([["a"]]), r"expected numbers of shape \(H, W\)"),
    ],
)
def test_files_that_are_no_depth_are_refused(tmp_path: Path, name: str, content: np.ndarray, message: str) -> None:
    (write_png if name.endswith("png") else write_npy)(tmp_path / name, content)
    with pytest.raises(UserError, match=message):
        read_depth(tmp_path / name, 256.0)


def test_command_evaluates_pairs_without_camera_or_layout(
    pairs: tuple[Path, Path, list[np.ndarray]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, truths, depths = pairs
    inverse = np.stack([1 / np.maximum(3 * depth, 1) for depth in depths])
    np.save(tmp_path / "disps.npy", inverse.astype(np.float32))
    stored = ["--ext_disp_to_eval", str(tmp_path / "disps.npy"), "--csv", str(tmp_path / "rows.csv")]
    folders = ["--images", str(images), "--truth", str(truths), "--depth_scale", "1000", "--edges"]
    assert main(["evaluate", *folders, *stored, "--vis_dir", str(tmp_path / "seen")]) == 0
    assert "edge_f1" in capsys.readouterr().out
    rows = read_rows(tmp_path / "rows.csv")
    assert [row["name"] for row in rows] == ["a_2.jpg", "a_10.png", "night/b.png"]
    assert all(float(row["abs_rel"]) < 1e-3 for row in rows)
    assert float(rows[0]["ratio"]) == pytest.approx(1 / 3, rel=1e-3)
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == [f"{n:06d}.png" for n in range(3)]
    assert read_image(tmp_path / "seen" / "000001.png").shape[1] == 3 * 120
    assert main(["evaluate", *folders[:2], *stored]) == 2
    assert "folder of depth files" in capsys.readouterr().err


# Predictions that are kept


class RowModel:
    """Depth by the image's row and grey value."""

    height, width, min_depth, max_depth = 32, 64, 0.1, 100.0

    def disparity(self, image: torch.Tensor) -> torch.Tensor:
        return 0.02 + torch.linspace(0, 0.3, 32)[:, None].expand(len(image), 1, 32, 64) + 0.01 * image[:, :1]


def test_saved_predictions_evaluate_to_the_same_metrics(
    pairs: tuple[Path, Path, list[np.ndarray]], tmp_path: Path
) -> None:
    images, truths, _ = pairs
    options = EvaluateOptions(
        weights="-", images=images, truth=str(truths), depth_scale=1000, save_pred_disps=True,
        eval_out_dir=tmp_path / "out", batch_size=2,
    )  # fmt: skip
    direct = evaluate(options, RowModel())
    file = tmp_path / "out" / "disps_images_split.npy"
    assert np.load(file).shape == (3, 32, 64)
    rows = tmp_path / "rows.csv"
    folders = ["--images", str(images), "--truth", str(truths), "--depth_scale", "1000", "--csv", str(rows)]
    assert main(["evaluate", *folders, "--ext_disp_to_eval", str(file)]) == 0
    again = [float(row["abs_rel"]) for row in read_rows(rows)]
    assert again == pytest.approx([row.abs_rel for row in direct.rows], abs=1e-6)


def test_predictions_are_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    maps, file = [random_depth(seed, (4, 5)) for seed in range(3)], tmp_path / "disps.npy"
    assert len(list(saved(maps, 3, file))) == 3
    assert np.array_equal(np.load(file), np.stack(maps))
    assert np.array_equal(list(stored_disparities(file, 3)), maps)
    file.unlink()
    with pytest.raises(UserError, match="2 of 3 images"):
        list(saved(maps[:2], 3, file))
    next(iter(saved(maps, 3, file)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.ones((2, 4, 5)), "holds 2 maps of 3 images"),
        (np.ones((3, 4), np.float32), r"float32 \(3, 4\)"),
        (np.ones((3, 4, 5), np.int32), "int32"),
    ],
)
def test_other_arrays_are_no_predictions(tmp_path: Path, stored: np.ndarray, message: str) -> None:
    np.save(tmp_path / "disps.npy", stored)
    with pytest.raises(UserError, match=message):
        list(stored_disparities(tmp_path / "disps.npy", 3))
    with pytest.raises(UserError, match="No such file"):
        list(stored_disparities(tmp_path / "none.npy", 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--weights is missing"),
        (["--weights", "x", "--ext_disp_to_eval", "y.npy"], "leave out --weights"),
        (["--weights", "x", "--pose", "--no_eval"], "--pose is about odometry: leave out --no_eval"),
        (["--weights", "x", "--pose", "--csv", "rows.csv"], "--pose is about odometry: leave out --csv"),
        (["--ext_disp_to_eval", "y.npy", "--post_process"], "leave out --post_process"),
        (["--weights", "x", "--no_eval", "--edges"], "nothing is compared with a truth: leave out --edges"),
        (["--weights", "x", "--no_eval"], "would write nothing"),
        (["--weights", "a/hub_id", "--depth_scale", "0"], "expected above 0"),
    ],
)
def test_contradictions_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err


# KITTI's improved depth, and its server


def test_eigen_frames_with_improved_depth(scenes: Path, tmp_path: Path) -> None:
    root = scenes / "kitti"
    with_depth = read_split(root / "splits" / "synthetic" / "test_files.txt")
    without = read_split(root / "splits" / "synthetic" / "train_files.txt")[:2]
    data = tmp_path / "kitti"
    data.mkdir()
    for path in root.iterdir():
        if path.name != "splits":
            (data / path.name).symlink_to(path)
    eigen = data / "splits" / "eigen"
    eigen.mkdir(parents=True)
    (eigen / "test_files.txt").write_text("\n".join(map(str, [without[0], *with_depth, without[1]])))
    for split in ("eigen_improved", "eigen_benchmark"):
        assert part_entries(split, data, "test") == with_depth
    options = EvaluateOptions(weights="-", data_path=data, split="eigen_improved")
    assert (options.truth_kind, chosen_crop(options)) == ("improved", "garg")
    assert not evaluation_protocol(options).far_truth_counts
    original = EvaluateOptions(weights="-", data_path=data, split="eigen_benchmark")
    assert (original.truth_kind, chosen_crop(original)) == ("improved", None)
    assert evaluation_protocol(original).far_truth_counts
    truths = list(open_data(options).truths())
    path = improved_depth_path(data, *with_depth[0])
    assert truths[0] == pytest.approx(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / 256)
    assert len(evaluate(options, RowModel()).rows) == len(with_depth)
    (eigen / "test_files.txt").write_text("\n".join(map(str, without)))
    with pytest.raises(UserError, match="none of 2 test frames has improved depth"):
        part_entries("eigen_improved", data, "test")
    (data / "splits" / "eigen_benchmark").mkdir()
    (data / "splits" / "eigen_benchmark" / "test_files.txt").write_text(f"{with_depth[1]}\n")
    assert part_entries("eigen_improved", data, "test") == with_depth[1:2], "a list of one's own counts"


def test_far_truth_counts_as_in_the_original() -> None:
    truth, guess = np.array([[10.0, 40.0, 100.0]]), np.array([[10.0, 50.0, 300.0]])
    counted = EvaluationProtocol(crop=None, median_scaling=False, far_truth_counts=True)
    result = evaluate_depths([1 / guess], [truth], counted)
    expected = compute_depth_errors(truth, np.minimum(guess, 80))
    assert result.mean == pytest.approx(expected, rel=1e-5)
    without = evaluate_depths([1 / guess], [truth], EvaluationProtocol(crop=None, median_scaling=False))
    assert without.mean.abs_rel == pytest.approx(0.25 / 2, rel=1e-5)


def test_predictions_for_kittis_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "depth_selection" / "test_depth_prediction_anonymous" / "image"
    for number in range(2):
        write_png(folder / f"{number:010d}.png", np.full((35, 121, 3), 60, np.uint8))
    maps = np.stack([np.full((32, 64), 1 / 12.5), np.full((32, 64), 1 / 500)]).astype(np.float32)
    np.save(tmp_path / "disps.npy", maps)
    arguments = [
        "--data_path",
        str(tmp_path),
        "--split",
        "benchmark",
        "--ext_disp_to_eval",
        str(tmp_path / "disps.npy"),
    ]
    assert main(["evaluate", *arguments]) == 2
    assert "--eval_out_dir is missing" in capsys.readouterr().err
    out = tmp_path / "out"
    assert main(["evaluate", *arguments, "--eval_out_dir", str(out), "--vis_dir", str(tmp_path / "seen")]) == 0
    assert "2 images predicted" in capsys.readouterr().out
    near, far = (
        cv2.imread(str(out / "benchmark_predictions" / f"{number:010d}.png"), cv2.IMREAD_UNCHANGED) for number in (0, 1)
    )
    assert (near.dtype, near.shape) == (np.uint16, (35, 121))
    assert (near == 12.5 * 256).all()
    assert (far == 80 * 256).all()
    assert len(list((tmp_path / "seen").iterdir())) == 2
    assert main(["evaluate", *arguments, "--eval_out_dir", str(out), "--eval_stereo"]) == 0
    scaled = cv2.imread(str(out / "benchmark_predictions" / "0000000000.png"), cv2.IMREAD_UNCHANGED)
    assert (scaled == round(5.4 * 12.5 * 256)).all()


# MATLAB's files


def element(kind: int, content: bytes, order: str = "<") -> bytes:
    """An element of a .mat file; of up to four bytes, in the short form."""
    if 0 < len(content) <= 4:
        words = (len(content), kind) if order == ">" else (kind, len(content))
        return struct.pack(f"{order}HH", *words) + content.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def mat_bytes(arrays: dict[str, np.ndarray], packed: bool = False, order: str = "<") -> bytes:
    """A .mat file of level 5 by MathWorks' description."""
    kinds = {"float64": (6, 9), "uint8": (9, 2), "uint16": (11, 4), "float32": (7, 7)}
    endian = struct.pack(f"{order}H", 0x4D49)
    parts = [b"MATLAB 5.0 MAT-file".ljust(124), struct.pack(f"{order}H", 0x0100), endian]
    for name, array in arrays.items():
        class_number, kind = kinds[str(array.dtype)]
        matrix = element(6, struct.pack(f"{order}II", class_number, 0), order)
        matrix += element(5, np.array(array.shape, f"{order}i4").tobytes(), order)
        matrix += element(1, name.encode(), order)
        matrix += element(kind, array.astype(array.dtype.newbyteorder(order)).tobytes(order="F"), order)
        whole = element(14, matrix, order)
        if packed:
            content = zlib.compress(whole)
            whole = struct.pack(f"{order}II", 15, len(content)) + content
        parts.append(whole)
    return b"".join(parts)


ARRAYS = {
    "Position3DGrid": np.random.default_rng(0).random((5, 7, 4)),
    "testNdxs": np.array([[1], [3]], np.uint16),
    "x": np.array([[7]], np.uint8),
    "wide": np.arange(6, dtype=np.float32).reshape(2, 3),
}


@pytest.mark.parametrize(("packed", "order"), [(False, "<"), (True, "<"), (False, ">"), (True, ">")])
def test_arrays_of_mat_files(tmp_path: Path, packed: bool, order: str) -> None:
    (tmp_path / "a.mat").write_bytes(mat_bytes(ARRAYS, packed, order))
    for name, array in ARRAYS.items():
        assert np.array_equal(read_mat(tmp_path / "a.mat", name), array)


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_that_scipy_wrote(tmp_path: Path, packed: bool) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    more = {"text": "words", "z": np.array([1j]), "cells": np.array([1, "a"], dtype=object), "s": {"field": 1}}
    scipy_io.savemat(tmp_path / "a.mat", ARRAYS | more, do_compression=packed)
    for name, array in ARRAYS.items():
        assert np.array_equal(read_mat(tmp_path / "a.mat", name), array)
    with pytest.raises(UserError, match="no array z"):
        read_mat(tmp_path / "a.mat", "z")


def test_damaged_mat_files_are_named(tmp_path: Path) -> None:
    file, whole = tmp_path / "a.mat", mat_bytes(ARRAYS)
    hdf5 = b"MATLAB 7.3".ljust(512) + b"\x89HDF\r\n\x1a\n"
    for content, message in (
        (whole[:700], "cut off"),
        (mat_bytes(ARRAYS, packed=True)[:300], "cut off"),
        (hdf5, "version 7.3"),
        (b"", "no header"),
        (whole[:128] + b"\x0e\0\0\0\xff\xff\xff\x7f" + whole[136:], "cut off"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=rf"a\.mat cannot be read as a \.mat file: .*{message}"):
            read_mat(file, "Position3DGrid")
    draw = np.random.default_rng(1)
    for _ in range(200):
        broken = bytearray(whole)
        for place in draw.integers(0, len(whole), 3):
            broken[place] = draw.integers(256)
        file.write_bytes(broken)
        with contextlib.suppress(UserError):  # any other error is a fault
            read_mat(file, "Position3DGrid")


# Make3D and NYU


def test_make3d(tmp_path: Path) -> None:
    """Depth that rises with the row: what the model sees and what counts is the same middle of the image."""
    grid = np.zeros((55, 305, 4))
    grid[..., 3] = np.linspace(5, 75, 55)[:, None]
    grid[20, 3, 3] = np.nan
    (tmp_path / "Gridlaserdata").mkdir()
    image = np.zeros((568, 426, 3), np.uint8)
    image[:] = np.linspace(0, 255, 568)[:, None, None]
    for name in ("9", "10"):
        write_png(tmp_path / "Test134" / f"img-{name}.png", image)
        (tmp_path / "Gridlaserdata" / f"depth_sph_corr-{name}.mat").write_bytes(mat_bytes({"Position3DGrid": grid}))
    data = Make3D(tmp_path)
    assert [data.name(index) for index in range(len(data))] == ["img-9.png", "img-10.png"]
    seen, depth = data.read(0), data.depth(0)
    assert (seen.shape, depth.shape) == ((213, 426, 3), (21, 305))
    assert np.array_equal(seen, image[177:390])
    assert depth[:, 0] == pytest.approx(np.linspace(5, 75, 55)[17:38])
    assert depth[3, 3] == 0
    options = EvaluateOptions(weights="-", dataset="make3d", data_path=tmp_path)  # type: ignore[arg-type]
    assert (options.far_limit, chosen_crop(options)) == (70.0, None)
    assert len(evaluate(options, RowModel()).rows) == 2
    (tmp_path / "Gridlaserdata" / "depth_sph_corr-9.mat").write_bytes(mat_bytes({"Position3DGrid": grid[:4]}))
    with pytest.raises(UserError, match=r"expected \(55, 305, 4\)"):
        Make3D(tmp_path).depth(0)
    (tmp_path / "Gridlaserdata" / "depth_sph_corr-9.mat").unlink()
    with pytest.raises(UserError, match=r"no depth at .*corr-9\.mat"):
        Make3D(tmp_path)
    with pytest.raises(UserError, match="Test134"):
        Make3D(tmp_path / "Test134")


def test_nyu_as_folders_of_images(tmp_path: Path) -> None:
    depth = random_depth(0, (120, 160), 9.0)
    for scene in ("bathroom", "kitchen"):
        write_png(tmp_path / scene / "rgb_00045.png", np.full((120, 160, 3), 70, np.uint8))
        write_png(tmp_path / scene / "sync_depth_00045.png", np.round(1000 * depth).astype(np.uint16))
    data = open_nyu(tmp_path)
    assert isinstance(data, NyuFolders)
    assert [data.name(index) for index in range(len(data))] == ["bathroom/rgb_00045.png", "kitchen/rgb_00045.png"]
    assert data.depth(1) == pytest.approx(depth, abs=6e-4)
    options = EvaluateOptions(weights="-", dataset="nyu", data_path=tmp_path)  # type: ignore[arg-type]
    assert (options.far_limit, chosen_crop(options)) == (10.0, "nyu")
    assert len(evaluate(options, RowModel()).rows) == 2
    (tmp_path / "kitchen" / "sync_depth_00045.png").unlink()
    with pytest.raises(UserError, match=r"no depth at .*kitchen"):
        open_nyu(tmp_path)
    with pytest.raises(UserError, match=r"nyu_depth_v2_labeled\.mat and splits\.mat, or folders"):
        open_nyu(tmp_path / "none")


def test_nyus_crop_has_the_published_corners() -> None:
    mask = crop_mask(480, 640, "nyu")
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (45, 471, 41, 601)


def test_nyu_as_published(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (3, 3, 640, 480), dtype=np.uint8)
    depths = draw.uniform(1, 9, (3, 640, 480)).astype(np.float32)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"], file["depths"] = images, depths
    (tmp_path / "splits.mat").write_bytes(mat_bytes({"testNdxs": np.array([[1.0], [3.0]])}))
    data = open_nyu(tmp_path)
    assert isinstance(data, NyuFile)
    assert (len(data), data.name(1)) == (2, "NYU image 3")
    assert np.array_equal(data.depth(1), depths[2].T)
    assert np.array_equal(data.read(1)[100, 200], images[2, :, 200, 100])
    (tmp_path / "splits.mat").write_bytes(mat_bytes({"testNdxs": np.array([[4.0]])}))
    with pytest.raises(UserError, match="names other images than the 3"):
        open_nyu(tmp_path)


def test_depth_pngs_hold_at_most_what_sixteen_bits_can(tmp_path: Path) -> None:
    write_depth_png(tmp_path / "d.png", np.array([[0.0, 1.5, 300.0]]))
    assert read_depth(tmp_path / "d.png", 256.0)[0] == pytest.approx([0, 1.5, 65535 / 256])
