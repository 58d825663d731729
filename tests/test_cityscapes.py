"""Cityscapes' layouts, on generated files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybrid_encoder import DepthModel, DPTDecoder, create_encoder
from hybrid_encoder.cli import main
from hybrid_encoder.data.cityscapes import (
    CityscapesSequenceSource,
    CityscapesSource,
    evaluated_part,
    read_cityscapes_split,
    read_published_depth,
)
from hybrid_encoder.data.dataset import SelfSupervisedDataset
from hybrid_encoder.errors import UserError
from hybrid_encoder.two_frame.frames import open_lookup_source
from hybrid_encoder.two_frame.options import ManydepthOptions

FRAME = "aachen_000000_000019"


@pytest.fixture
def triples(tmp_path: Path) -> Path:
    """Two samples of three 8x32 frames, of brightness 50, 100 and 150 (frames -1, 0, 1)."""
    folder = tmp_path / "preprocessed" / "aachen"
    folder.mkdir(parents=True)
    triple = np.repeat(np.array([50, 100, 150], np.uint8), 32)[None, :, None].repeat(8, 0).repeat(3, 2)
    for name in (FRAME, "aachen_000001_000019"):
        cv2.imwrite(str(folder / f"{name}.jpg"), triple)
        (folder / f"{name}_cam.txt").write_text("35.0,0.,15.5,0.,35.5,5.5,0.,0.,1.")
    split = tmp_path / "preprocessed" / "splits" / "cityscapes_preprocessed"
    split.mkdir(parents=True)
    (split / "train_files.txt").write_text(f"aachen {FRAME}\naachen aachen_000001_000019\n")
    return tmp_path / "preprocessed"


def test_triples(triples: Path) -> None:
    source = CityscapesSource(triples, triples / "splits/cityscapes_preprocessed/train_files.txt")
    assert len(source) == 2
    assert source.name(0) == f"aachen {FRAME}"
    for frame_id, brightness in ((-1, 50), (0, 100), (1, 150)):
        image = source.read(0, frame_id)
        assert image.shape == (8, 32, 3)
        assert abs(float(image.mean()) - brightness) < 2
    np.testing.assert_allclose(source.intrinsics(0), [[35, 0, 15.5], [0, 35.5, 5.5], [0, 0, 1]])


def test_triples_as_training_samples(triples: Path) -> None:
    options = ManydepthOptions(
        dataset="cityscapes_preprocessed", data_path=triples, split="cityscapes_preprocessed", height=32, width=64
    )
    source = open_lookup_source(options, "train", (0, -1, 1), ())
    sample = SelfSupervisedDataset(source, 32, 64, (0, -1, 1), train=False)[1]
    assert sample["frames"].shape == (3, 3, 32, 64)
    assert [round(float(frame.float().mean()) / 50) for frame in sample["frames"]] == [2, 1, 3]
    np.testing.assert_allclose(sample["K"][:2].numpy(), [[70, 0, 31], [0, 142, 22]])


def test_triples_hold_three_frames_only(triples: Path) -> None:
    split = triples / "splits/cityscapes_preprocessed/train_files.txt"
    with pytest.raises(UserError, match="frame -2"):
        CityscapesSource(triples, split, (0, -1, 1, -2))
    with pytest.raises(UserError, match="frame s"):
        CityscapesSource(triples, split, (0, "s"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("aachen/{}.jpg", b"", "empty"),
        ("aachen/{}_cam.txt", b"1,2,3", "nine numbers"),
        ("aachen/{}_cam.txt", b"a,b", "cannot read the camera file"),
    ],
)
def test_damaged_files_are_named(triples: Path, name: str, content: bytes, message: str) -> None:
    path = triples / name.format(FRAME)
    path.write_bytes(content)
    source = CityscapesSource(triples, triples / "splits/cityscapes_preprocessed/train_files.txt")
    read = source.intrinsics if "cam" in name else lambda index: source.read(index, 0)
    with pytest.raises(UserError, match=message) as error:
        read(0)
    assert path.name in str(error.value)


def test_a_picture_that_is_no_triple(triples: Path) -> None:
    path = triples / "aachen" / f"{FRAME}.jpg"
    cv2.imwrite(str(path), np.zeros((8, 32, 3), np.uint8))
    source = CityscapesSource(triples, triples / "splits/cityscapes_preprocessed/train_files.txt")
    with pytest.raises(UserError, match="three frames"):
        source.read(0, 0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "lists no frame"),
        ("aachen\n", "line 1"),
        ("a b c\n", "line 1"),
        ("../x y\n", "line 1"),
        (". y\n", "line 1"),
    ],
)
def test_split_lines(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "train_files.txt"
    path.write_text(lines)
    with pytest.raises(UserError, match=message):
        read_cityscapes_split(path)


def test_missing_files_are_counted(triples: Path) -> None:
    split = triples / "splits/cityscapes_preprocessed/train_files.txt"
    split.write_text(f"aachen {FRAME}\nbremen bremen_000000_000019\n")
    with pytest.raises(UserError, match="2 files"):
        CityscapesSource(triples, split)
    with pytest.raises(UserError, match="no such folder"):
        CityscapesSource(triples / "nowhere", split)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """One sequence with frames 17 and 19; the frame itself is measured 209.3 m / disparity away on its right half."""
    root = tmp_path / "cityscapes"
    for part in ("leftImg8bit_sequence", "camera", "disparity"):
        (root / part / "test" / "aachen").mkdir(parents=True)
    for number, brightness in ((17, 40), (19, 80)):
        image = np.full((1024, 2048, 3), brightness, np.uint8)
        image[768:] = 255
        name = f"aachen_000000_{number:06d}_leftImg8bit.png"
        cv2.imwrite(str(root / "leftImg8bit_sequence/test/aachen" / name), image)
    camera = {"intrinsic": {"fx": 2262.52, "fy": 2265.3, "u0": 1096.98, "v0": 513.137}, "extrinsic": {}}
    (root / f"camera/test/aachen/{FRAME}_camera.json").write_text(json.dumps(camera))
    disparity = np.zeros((1024, 2048), np.uint16)
    disparity[:, 1024:] = 1 + 256 * 47
    cv2.imwrite(str(root / f"disparity/test/aachen/{FRAME}_disparity.png"), disparity)
    (tmp_path / "test_files.txt").write_text(f"aachen {FRAME}_leftImg8bit\n")
    return root


def test_published_sequences(published: Path) -> None:
    source = CityscapesSequenceSource(published, published.parent / "test_files.txt")
    assert source.read(0, 0).shape == (768, 2048, 3)
    assert source.read(0, 0).max() == 80, "the bonnet is cut off"
    assert source.read(0, -1).mean() == 40, "two published frames before"
    assert not source.read(0, -2).any(), "there is none"
    assert source.intrinsics(0)[0, 0] == np.float32(2262.52)
    depth = source.depth(0)
    assert depth.shape == (768, 2048)
    known = np.argwhere(depth > 0)
    assert known.min(0).tolist() == [256, 1024]
    assert known.max(0).tolist() == [767, 1855]
    np.testing.assert_allclose(depth[300, 1100], 0.209313 * 2262.52 / 47, rtol=1e-5)


def test_single_frame_weights_are_evaluated_on_them(published: Path, capsys: pytest.CaptureFixture) -> None:
    encoder = create_encoder("tiny", pyramid=False)
    DepthModel(encoder, DPTDecoder(encoder), 64, 96).save_pretrained(published.parent / "weights")
    base = ["evaluate", "--weights", str(published.parent / "weights"), "--device", "cpu", "--dataset", "cityscapes"]
    base += ["--data_path", str(published), "--split", str(published.parent)]
    assert main(base) == 0
    assert "1 images" in capsys.readouterr().out
    assert main([*base, "--intrinsics", "9,9,9,9"]) == 2
    assert "--intrinsics" in capsys.readouterr().err


def test_evaluated_part_needs_the_published_size() -> None:
    assert evaluated_part(np.ones((1024, 2048), np.float32)).sum() == 512 * 1664
    with pytest.raises(UserError, match="1024x2048"):
        evaluated_part(np.ones((375, 1242), np.float32))


@pytest.mark.parametrize("content", ["{", "[]", '{"intrinsic": {"fx": 0, "fy": 1, "u0": 1, "v0": 1}}'])
def test_bad_cameras_are_named(published: Path, content: str) -> None:
    path = published / f"camera/test/aachen/{FRAME}_camera.json"
    path.write_text(content)
    source = CityscapesSequenceSource(published, published.parent / "test_files.txt")
    with pytest.raises(UserError, match="_camera"):
        source.intrinsics(0)


def test_missing_disparity_is_named(published: Path) -> None:
    source = CityscapesSequenceSource(published, published.parent / "test_files.txt")
    source.disparity_path(source.entries[0]).unlink()
    with pytest.raises(UserError, match="disparity"):
        source.depth(0)


def test_files_of_a_windows_editor(triples: Path, published: Path) -> None:
    split = triples / "splits/cityscapes_preprocessed/train_files.txt"
    camera = published / f"camera/test/aachen/{FRAME}_camera.json"
    for path in (split, triples / f"aachen/{FRAME}_cam.txt", camera):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    source = CityscapesSource(triples, split)
    np.testing.assert_allclose(source.intrinsics(0), [[35, 0, 15.5], [0, 35.5, 5.5], [0, 0, 1]])
    assert CityscapesSequenceSource(published, published.parent / "test_files.txt").intrinsics(0)[0, 0] > 2262


def test_samples_without_files_are_left_out_where_that_is_allowed(triples: Path) -> None:
    split = triples / "splits/cityscapes_preprocessed/train_files.txt"
    (triples / f"aachen/{FRAME}_cam.txt").unlink()
    assert CityscapesSource(triples, split, skip_bad=1).name(0) == "aachen aachen_000001_000019"
    with pytest.raises(UserError, match=r"1 files .*1 of 2 samples"):
        CityscapesSource(triples, split)


def test_published_images_of_another_size_are_refused(published: Path) -> None:
    path = published / "leftImg8bit_sequence/test/aachen" / f"{FRAME}_leftImg8bit.png"
    cv2.imwrite(str(path), np.zeros((512, 1024, 3), np.uint8))
    with pytest.raises(UserError, match="1024x512: expected Cityscapes as published"):
        CityscapesSequenceSource(published, published.parent / "test_files.txt").read(0, 0)


def test_depth_maps_of_the_authors_are_checked_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "000_depth.npy"
    np.save(path, np.ones((1024, 2048), np.float64))
    assert read_published_depth(path).dtype == np.float32
    np.save(path, np.ones((375, 1242), np.float32))
    with pytest.raises(UserError, match=r"000_depth\.npy: a depth map of 375x1242: Cityscapes"):
        read_published_depth(path)
