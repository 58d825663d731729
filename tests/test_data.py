"""The data room of self-supervised depth: images, splits, calibration, KITTI, video, samples, loader, colours."""

from __future__ import annotations

import contextlib
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from hybrid_encoder.colormap import write_picture
from hybrid_encoder.data.augment import color_jitter
from hybrid_encoder.data.calibration import (
    Intrinsics,
    default_kitti_intrinsics,
    kitti_intrinsics,
    read_calibration,
    read_intrinsics,
)
from hybrid_encoder.data.containers import read_container
from hybrid_encoder.data.dataset import SelfSupervisedDataset
from hybrid_encoder.data.kitti import KittiOdometrySource, KittiRawSource
from hybrid_encoder.data.loader import EpochSampler, LoaderOptions, make_loader
from hybrid_encoder.data.splits import SplitEntry, find_split, read_split
from hybrid_encoder.data.still_frames import moving_frames
from hybrid_encoder.data.video import iterate_video, read_video, video_info
from hybrid_encoder.data.video_source import VideoSource, runs_without_gap
from hybrid_encoder.errors import UserError
from hybrid_encoder.images import read_image, resize_image
from hybrid_encoder.prediction.inputs import find_inputs
from hybrid_encoder.stage2.frames import open_source
from hybrid_encoder.stage2.options import DataOptions

from .videos import announce_longer, pause, trim
from .videos import write_video as write_odd_video

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
KITTI = SHARED / "kitti_raw"
DRIVE = "2011_09_26/2011_09_26_drive_sfnd_sync"
UDACITY = SHARED / "udacity"
needs_kitti = pytest.mark.skipif(not KITTI.is_dir(), reason=f"no KITTI drive at {KITTI}")
needs_udacity = pytest.mark.skipif(not UDACITY.is_dir(), reason=f"no videos at {UDACITY}")
CALIBRATION = "calib_time: 09-Jan-2012 13:57:47\nS_rect_02: 1242 375\nP_rect_02: 700 0 600 45 0 710 170 0.2 0 0 1 0\n"


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture with detail at several sizes, uint8 RGB."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.uniform(0, 255, (max(2, height // n), max(2, width // n), 3)), (width, height))
        for n in (4, 16, 64)
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


def write_drive(root: Path, frames: int, stereo: bool = False, suffix: str = ".png") -> list[SplitEntry]:
    """A small KITTI drive; entries are the frames that have both neighbours."""
    for camera in (2, 3) if stereo else (2,):
        for frame in range(frames):
            image = textured(38, 124, 10 * frame + camera)
            write(root / "day" / "drive" / f"image_0{camera}" / "data" / f"{frame:010d}{suffix}", image)
    return [SplitEntry("day/drive", frame, "l") for frame in range(1, frames - 1)]


# --- images


def test_read_image_is_rgb(tmp_path: Path) -> None:
    image = textured(20, 30)
    image[0, 0] = [255, 0, 0]
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.png", image)), image)
    grey = write(tmp_path / "g.png", np.full((4, 5, 3), 7, np.uint8))
    cv2.imwrite(str(grey), np.full((4, 5), 7, np.uint8))
    assert read_image(grey).shape == (4, 5, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9, 0.999])
def test_cut_off_image_is_named(tmp_path: Path, suffix: str, kept: float) -> None:
    path = write(tmp_path / f"frame{suffix}", textured(60, 200))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(UserError, match=r"frame\."):
        read_image(path)


def test_cut_off_jpeg_is_seen_before_the_decoder(tmp_path: Path) -> None:
    """Decoders of OpenCV 4 fill the rest with grey; a thumbnail's end marker must not pass for the picture's own."""
    path = write(tmp_path / "x.jpg", textured(60, 200))
    data = path.read_bytes()
    thumbnail = cv2.imencode(".jpg", textured(8, 8))[1].tobytes()
    with_thumbnail = data[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]
    path.write_bytes(with_thumbnail + b"appended by the camera")
    assert read_image(path).shape == (60, 200, 3)
    for cut in (1, 2, 100, len(data) // 2):
        path.write_bytes(with_thumbnail[:-cut])
        with pytest.raises(UserError, match="cut off"):
            read_image(path)


JPEG_SETTINGS = [
    [],
    [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
    [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
    [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
    [cv2.IMWRITE_JPEG_QUALITY, 20, cv2.IMWRITE_JPEG_OPTIMIZE, 1],
]


@pytest.mark.parametrize("settings", JPEG_SETTINGS)
@pytest.mark.parametrize("picture", ["textured", "black", "grey", "noise", "one pixel"])
def test_sound_jpegs_of_all_kinds_are_read(tmp_path: Path, settings: list[int], picture: str) -> None:
    images = {
        "textured": textured(60, 200),
        "black": np.zeros((375, 1242), np.uint8),  # optimised, its data are zeros only
        "grey": np.full((64, 64), 128, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8),
        "one pixel": np.full((1, 1, 3), 7, np.uint8),
    }
    path = tmp_path / "x.jpg"
    data = cv2.imencode(".jpg", images[picture], settings)[1].tobytes()
    for ending in (b"", b"\0" * 9, b"appended by the camera"):
        path.write_bytes(data + ending)
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert expected is not None
        np.testing.assert_array_equal(read_image(path), expected[..., ::-1])
    if data[-4:-2] != b"\0\0" and not settings:
        path.write_bytes(data[:-2] + b"\0" * 40 + data[-2:])  # padding before the end marker, as of some webcams
        np.testing.assert_array_equal(read_image(path), expected[..., ::-1])


@pytest.mark.parametrize(
    ("kind", "size"), [("zeros", 64), ("zeros", 1024), ("noise", 256), ("noise", 1024), ("text", 1024), ("gone", 1024)]
)
def test_jpegs_damaged_in_the_middle_are_named(tmp_path: Path, kind: str, size: int) -> None:
    """OpenCV and libjpeg warn, and return a picture that is shifted after the damage."""
    rng = np.random.default_rng(0)
    data = cv2.imencode(".jpg", textured(375, 1242))[1].tobytes()
    path = tmp_path / "x.jpg"
    unnoticed = 0
    for at in rng.integers(1000, len(data) - 2000, 20).tolist():
        middle = {"zeros": bytes(size), "noise": rng.bytes(size), "text": b"<p>Not found.</p> " * 80, "gone": b""}[kind]
        path.write_bytes(data[:at] + middle[:size] + data[at + size :])
        with contextlib.suppress(UserError):
            read_image(path)
            unnoticed += 1
    assert unnoticed <= (0 if kind == "zeros" else 2)  # by chance, data may end where the picture does


def test_sixteen_bits_of_which_few_are_used_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    values = textured(20, 30).astype(np.uint16)
    for factor, bits in ((4, 10), (16, 12), (64, 14)):
        cv2.imwrite(str(path), values * factor)
        with pytest.raises(UserError, match=rf"x\.png has 16 bits a channel, of which it uses {bits}"):
            read_image(path)
    cv2.imwrite(str(path), values * 256 + 255)
    np.testing.assert_array_equal(read_image(path), values[..., ::-1])
    cv2.imwrite(str(path), np.zeros((4, 5), np.uint16))  # black in any scale
    assert not read_image(path).any()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_a_stated_size_is_checked_before_pixels_take_memory(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"x{suffix}", textured(16, 16))
    data = bytearray(path.read_bytes())
    if suffix == ".png":
        data[16:24] = (12_000).to_bytes(4, "big") * 2
    elif suffix == ".bmp":
        data[18:26] = (30_000).to_bytes(4, "little") + (-30_000).to_bytes(4, "little", signed=True)
    elif suffix == ".jpg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = (60_000).to_bytes(2, "big") * 2
    elif data[12:16] == b"VP8 ":
        data[26:30] = (16_000).to_bytes(2, "little") * 2
    else:
        assert data[12:16] == b"VP8L"
        data[21:25] = (15_999 | 15_999 << 14).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(UserError, match="states a size of"):
        read_image(path)


def test_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jpg.*No such file"):
        read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(UserError):
        read_image(tmp_path)


@pytest.mark.parametrize("size", [(192, 640), (96, 320), (224, 672), (700, 640), (192, 1500), (375, 1242)])
def test_resize_is_as_good_as_area_averaging(size: tuple[int, int]) -> None:
    height, width = size
    image = textured(375, 1242)
    resized = resize_image(image, height, width).astype(float)
    assert resized.shape == (height, width, 3)
    if height <= 375 and width <= 1242:
        reference = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        assert np.abs(resized - reference).mean() < 0.5


# --- splits


def test_read_split(tmp_path: Path) -> None:
    file = tmp_path / "train_files.txt"
    file.write_bytes(b"2011_09_26/drive_1 0000000017 l\r\n\n 9 3 r \n9 4\n")
    assert read_split(file) == [
        SplitEntry("2011_09_26/drive_1", 17, "l"),
        SplitEntry("9", 3, "r"),
        SplitEntry("9", 4, "l"),
    ]
    assert str(read_split(file)[0]) == "2011_09_26/drive_1 17 l"


def test_split_of_a_windows_editor_and_folders_with_spaces(tmp_path: Path) -> None:
    file = tmp_path / "train_files.txt"
    file.write_bytes("\ufeffday/my drive 17 l\r\nday/drive 3 r\r\n".encode())
    assert read_split(file) == [SplitEntry("day/my drive", 17, "l"), SplitEntry("day/drive", 3, "r")]


@pytest.mark.parametrize(
    "line",
    [
        "day/drive 1",
        "day/drive 1 l l",
        "day/drive one l",
        "day/drive -1 l",
        "day/drive 1 x",
        "day/drive 1.0 l",
        "../secret 1 l",
        "day/../../secret 1 l",
        "/etc 1 l",
        "day//drive 1 l",
        "..\\secret 1 l",
        "C:drive 1 l",
        "day/dri\0ve 1 l",
        "day/drive ٣ l",
        "day/drive 12345678901 l",
    ],
)
def test_wrong_split_line_is_named_by_number(tmp_path: Path, line: str) -> None:
    file = tmp_path / "val_files.txt"
    file.write_text(f"day/drive 1 l\n\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"val_files\.txt, line 3: "):
        read_split(file)


def test_empty_and_missing_split(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("\n  \n")
    with pytest.raises(UserError, match="lists no frame"):
        read_split(tmp_path / "x.txt")
    with pytest.raises(UserError, match="cannot read"):
        read_split(tmp_path / "y.txt")


def test_find_split_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data" / "kitti"
    data.mkdir(parents=True)
    beside, within, here = tmp_path / "data" / "splits" / "mine", data / "splits" / "mine", tmp_path / "mine"
    with pytest.raises(UserError) as raised:
        find_split("mine", data)
    assert str(beside) in str(raised.value)
    assert str(within) in str(raised.value)
    monkeypatch.chdir(tmp_path)
    here.mkdir()  # a folder without split files does not count
    for folder in (beside, within, here):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test_files.txt").write_text("a 1 l\n")
        assert find_split("mine", data).resolve() == folder
    monkeypatch.chdir(data)
    assert find_split("mine", Path(".")).resolve() == within


# --- calibration


@needs_kitti
def test_kitti_intrinsics() -> None:
    file = KITTI / "2011_09_26" / "calib_cam_to_cam.txt"
    camera = kitti_intrinsics(file, "P_rect_02", "S_rect_02")
    np.testing.assert_allclose(camera.K, [[721.5377, 0, 609.5593], [0, 721.5377, 172.854], [0, 0, 1]])
    half = camera.for_image(621, 188).K
    down = 188 / 375
    np.testing.assert_allclose(half[:2].ravel(), [360.76885, 0, 304.77965, 0, 721.5377 * down, 172.854 * down])
    with pytest.raises(UserError, match="P_rect_03: no such entry"):
        kitti_intrinsics(file, "P_rect_03", "S_rect_03")


def test_default_intrinsics_are_the_originals() -> None:
    np.testing.assert_allclose(default_kitti_intrinsics(1242, 375).K, [[720.36, 0, 621], [0, 720, 187.5], [0, 0, 1]])


def test_intrinsics_string() -> None:
    np.testing.assert_allclose(read_intrinsics("700, 710.5,6e2,170").K, [[700, 0, 600], [0, 710.5, 170], [0, 0, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("700,700,600", "3 numbers"),
        ("0.58,1.92,0.5,0.5", "fractions of width and height"),
        ("-700,700,600,170", "too short"),
        ("inf,700,600,170", "cannot be read"),
        ("1e999,700,600,170", "no pixels"),
        ("nowhere.json", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_wrong_intrinsics_string(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_intrinsics(text)


def test_intrinsics_are_checked_against_the_images() -> None:
    camera = read_intrinsics("700,700,600,170")
    assert camera.for_image(1242, 375).image_size == (1242, 375)
    with pytest.raises(UserError, match="principal point 600, 170 lies outside"):
        camera.for_image(500, 375)
    with pytest.raises(UserError, match="focal lengths"):
        camera.for_image(100_000, 375)


@needs_udacity
def test_intrinsics_file() -> None:
    camera = read_intrinsics(UDACITY / "estimated_intrinsics.json")
    assert camera.image_size == (1280, 720)
    assert camera.distortion is not None
    np.testing.assert_allclose(camera.distortion[0], -0.24667, atol=1e-5)
    np.testing.assert_allclose(camera.for_image(640, 360).K[:2], camera.K[:2] / 2)
    with pytest.raises(UserError, match="other proportions"):
        camera.for_image(640, 320)


GOOD_FILE = {"K": [[700, 0, 600], [0, 700, 170], [0, 0, 1]], "image_size": [1242, 375]}


@pytest.mark.parametrize(
    "change",
    [
        {"K": None},
        {"K": [[700, 0, 600], [0, 700, 170]]},
        {"K": [[700, 5, 600], [0, 700, 170], [0, 0, 1]]},
        {"K": [[700, 0, 600], [0, 700, 170], [0, 0, True]]},
        {"K": [["700", 0, 600], [0, 700, 170], [0, 0, 1]]},
        {"K": [[float("nan"), 0, 600], [0, 700, 170], [0, 0, 1]]},
        {"K": [[10**400, 0, 600], [0, 700, 170], [0, 0, 1]]},
        {"image_size": [375, 1242]},
        {"image_size": [1242.5, 375]},
        {"image_size": [-1242, 375]},
        {"image_size": 1242},
        {"dist_k1k2p1p2k3": [0.1] * 4},
        {"dist_k1k2p1p2k3": [0.1, 0, 0, 0, float("inf")]},
        {"dist_k1k2p1p2k3": [-2.0, 0, 0, 0, 0]},
    ],
)
def test_wrong_intrinsics_file(tmp_path: Path, change: dict[str, object]) -> None:
    file = tmp_path / "camera.json"
    file.write_text(json.dumps(GOOD_FILE | {"dist_k1k2p1p2k3": [-0.2, 0, 0, 0, 0]}))
    assert read_intrinsics(file).image_size == (1242, 375)
    file.write_text(json.dumps(GOOD_FILE | change))
    with pytest.raises(UserError, match=r"camera\.json"):
        read_intrinsics(file)


def test_wrong_calibration_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "calib.txt").write_text(CALIBRATION + "P_rect_03: 700 0 oops\n")
    with pytest.raises(UserError, match=r"calib\.txt, line 4: P_rect_03"):
        read_calibration(tmp_path / "calib.txt")


def test_calibration_of_a_windows_editor(tmp_path: Path) -> None:
    file = tmp_path / "calib.txt"
    file.write_bytes(b"\xef\xbb\xbfP2: 707.1 0 601.9 0 0 707.1 183.1 0 0 0 1 0\r\nTr: 1 0 0 0 0 1 0 0 0 0 1 0\r\n")
    np.testing.assert_array_equal(kitti_intrinsics(file, "P2").K, [[707.1, 0, 601.9], [0, 707.1, 183.1], [0, 0, 1]])
    camera = tmp_path / "camera.json"
    camera.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD_FILE).encode())
    assert read_intrinsics(camera).image_size == (1242, 375)


# --- KITTI


@needs_kitti
def test_neighbours_of_a_real_drive_in_order() -> None:
    source = KittiRawSource(KITTI, read_split(find_split("kitti_sample", KITTI) / "train_files.txt"))
    assert len(source) == 61
    dataset = SelfSupervisedDataset(source, 192, 640, (0, -1, 1), train=False)
    sample = dataset[4]
    assert sample["name"] == f"{DRIVE} 6 l"
    for i, number in enumerate((6, 5, 7)):
        image = read_image(KITTI / DRIVE / "image_02" / "data" / f"{number:010d}.jpg")
        expected = resize_image(image, 192, 640)
        np.testing.assert_array_equal(sample["frames"][i].permute(1, 2, 0).numpy(), expected)
    scale = np.array([[640 / 1242], [192 / 375], [1]])
    expected_K = scale * [[721.5377, 0, 609.5593], [0, 721.5377, 172.854], [0, 0, 1]]
    np.testing.assert_allclose(sample["K"].numpy(), expected_K, rtol=1e-6)
    assert torch.equal(sample["stereo_T"], torch.eye(4))
    assert sample["jitter"].tolist() == [1, 1, 1, 0]


def test_missing_frames_are_counted_and_named(tmp_path: Path) -> None:
    entries = write_drive(tmp_path, 6)
    entries.append(SplitEntry("day/drive", 0, "l"))
    with pytest.raises(UserError, match=r"(?s)1 images .*-000000001\.png \(frame -1 of 'day/drive 0 l'\).*neighbour"):
        KittiRawSource(tmp_path, entries, png=True)
    assert len(KittiRawSource(tmp_path, entries, (0, 1), png=True)) == 5
    with pytest.raises(UserError, match=r"6 images .*(?s:.)*add --png"):
        KittiRawSource(tmp_path, entries, (0, 1))
    with pytest.raises(UserError, match="there is no folder"):
        KittiRawSource(tmp_path, entries, (0, "s"), png=True)
    with pytest.raises(UserError, match="no such folder"):
        KittiRawSource(tmp_path / "nowhere", entries)


def test_frames_without_files_are_left_out_where_that_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [*write_drive(tmp_path, 6), SplitEntry("day/drive", 0, "l"), SplitEntry("day/drive", 8, "l")]
    source = KittiRawSource(tmp_path, entries, png=True, skip_bad=2)
    assert [entry.frame for entry in source.entries] == [1, 2, 3, 4]
    assert "4 images" in (told := capsys.readouterr().err)
    assert "2 of 6 samples" in told
    assert "-000000001.png" in told
    with pytest.raises(UserError, match="--skip_bad 2"):
        KittiRawSource(tmp_path, entries, png=True, skip_bad=1)
    with pytest.raises(UserError, match="2 of 6 samples") as raised:
        KittiRawSource(tmp_path, entries, png=True)
    assert "--skip_bad" not in str(raised.value), "evaluation has no such option"
    with pytest.raises(UserError, match="2 of 2 samples"):
        KittiRawSource(tmp_path, entries[4:], png=True, skip_bad=9)


@pytest.mark.parametrize("name", ["{:010d}.JPG", "{:010d}.jpeg", "{}.jpg"])
def test_images_called_otherwise_are_found_in_the_remedy(tmp_path: Path, name: str) -> None:
    write_drive(tmp_path, 4, suffix=".jpg")
    folder = tmp_path / "day" / "drive" / "image_02" / "data"
    for path in list(folder.iterdir()):
        path.rename(folder / name.format(int(path.stem)))
    with pytest.raises(UserError, match=rf"holds \.\w+ files: {name.format(1)} in place of 0000000001\.jpg"):
        KittiRawSource(tmp_path, [SplitEntry("day/drive", 1, "l")])


def test_stereo_pair_and_calibration_of_resized_images(tmp_path: Path) -> None:
    entries = [*write_drive(tmp_path, 3, stereo=True), SplitEntry("day/drive", 1, "r")]
    source = KittiRawSource(tmp_path, entries, (0, "s"), png=True)
    np.testing.assert_array_equal(source.read(0, "s"), source.read(1, 0))
    assert [source.stereo_sign(0), source.stereo_sign(1)] == [-1, 1]
    np.testing.assert_allclose(source.intrinsics(0), default_kitti_intrinsics(124, 38).K, rtol=1e-6)
    (tmp_path / "day" / "calib_cam_to_cam.txt").write_text(CALIBRATION.replace("1242 375", "1240 380"))
    source = KittiRawSource(tmp_path, entries[:1], png=True)
    np.testing.assert_allclose(source.intrinsics(0), [[70, 0, 60], [0, 71, 17], [0, 0, 1]], rtol=1e-6)


def test_odometry(tmp_path: Path) -> None:
    sequence = tmp_path / "sequences" / "09"
    images = [textured(38, 124, n) for n in range(3)]
    for n, image in enumerate(images):
        write(sequence / "image_2" / f"{n:06d}.png", image)
    (sequence / "calib.txt").write_text("P2: 70 0 60 4 0 71 17 0 0 0 1 0\nTr: 1 0 0 0 0 1 0 0 0 0 1 0\n")
    source = KittiOdometrySource(tmp_path, [SplitEntry("9", 1, "l")], png=True)
    for frame_id in (-1, 0, 1):
        np.testing.assert_array_equal(source.read(0, frame_id), images[1 + frame_id])
    np.testing.assert_allclose(source.intrinsics(0), [[70, 0, 60], [0, 71, 17], [0, 0, 1]])
    with pytest.raises(UserError, match="number of an odometry sequence"):
        KittiOdometrySource(tmp_path, [SplitEntry("day/drive", 1, "l")], png=True)


# --- samples and their order


def test_flip_moves_principal_point_and_turns_the_baseline(tmp_path: Path) -> None:
    source = KittiRawSource(tmp_path, write_drive(tmp_path, 3, stereo=True), (0, "s"), png=True)
    plain = SelfSupervisedDataset(source, 32, 96, (0, "s"), train=False)[0]
    dataset = SelfSupervisedDataset(source, 32, 96, (0, "s"), train=True, seed=3)
    seen = set()
    for epoch in range(40):
        sample = dataset[epoch, 0]
        flipped = sample["stereo_T"][0, 3].item() > 0
        seen.add(flipped)
        expected = plain["frames"].flip(-1) if flipped else plain["frames"]
        assert torch.equal(sample["frames"], expected)
        cx = plain["K"][0, 2].item()
        assert sample["K"][0, 2].item() == pytest.approx(96 - 1 - cx if flipped else cx, abs=1e-4)
        assert sample["stereo_T"][0, 3].item() == pytest.approx(0.1 if flipped else -0.1)
        assert torch.equal(sample["K"][:, :2], plain["K"][:, :2])
    assert seen == {True, False}


def test_draws_are_a_function_of_seed_epoch_and_index(tmp_path: Path) -> None:
    source = KittiRawSource(tmp_path, write_drive(tmp_path, 6), png=True)
    first, second, other = (SelfSupervisedDataset(source, 32, 96, (0, -1, 1), True, seed) for seed in (5, 5, 6))
    draws = {}
    for key in [(epoch, index) for epoch in range(12) for index in range(4)]:
        sample = first[key]
        draws[key] = tuple(sample["jitter"].tolist())
        again = second[key]
        assert torch.equal(sample["frames"], again["frames"])
        assert torch.equal(sample["jitter"], again["jitter"])
    jittered = {draw for draw in draws.values() if draw != (1, 1, 1, 0)}
    assert 10 < len(jittered) < 40  # about half of 48, no two alike
    assert len(jittered) == sum(draw != (1, 1, 1, 0) for draw in draws.values())
    values = np.array(sorted(jittered))
    assert (np.abs(values[:, :3] - 1) <= 0.2).all()
    assert (np.abs(values[:, 3]) <= 0.1).all()
    assert any(tuple(other[key]["jitter"].tolist()) != draw for key, draw in draws.items())


def test_crop_bottom_comes_before_resizing(tmp_path: Path) -> None:
    source = KittiRawSource(tmp_path, write_drive(tmp_path, 3), png=True)
    sample = SelfSupervisedDataset(source, 16, 64, (0, -1, 1), train=False, crop_bottom=0.25)[0]
    kept = source.read(0, 0)[:28]  # 0.75 x 38 = 28.5, rounded to even
    np.testing.assert_array_equal(sample["frames"][0].permute(1, 2, 0).numpy(), resize_image(kept, 16, 64))
    K = source.intrinsics(0)
    np.testing.assert_allclose(sample["K"].numpy(), K * [[64 / 124], [16 / 28], [1]], rtol=1e-6)


def test_wrong_dataset_options(tmp_path: Path) -> None:
    source = KittiRawSource(tmp_path, write_drive(tmp_path, 3), png=True)
    with pytest.raises(UserError, match="crop_bottom"):
        SelfSupervisedDataset(source, 32, 96, (0,), True, crop_bottom=7)
    with pytest.raises(UserError, match="0 first"):
        SelfSupervisedDataset(source, 32, 96, (-1, 0, 1), True)


def test_frames_of_two_sizes_are_refused(tmp_path: Path) -> None:
    source = KittiRawSource(tmp_path, write_drive(tmp_path, 3), png=True)
    write(tmp_path / "day" / "drive" / "image_02" / "data" / "0000000002.png", textured(30, 30))
    with pytest.raises(UserError, match="day/drive 1 l: frame 1 is 30x30"):
        SelfSupervisedDataset(source, 32, 96, (0, -1, 1), True)[0]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_shards_cover_every_index_once(world_size: int) -> None:
    length = 23
    plain = [list(EpochSampler(length, False, 0, rank, world_size)) for rank in range(world_size)]
    assert sorted(index for shard in plain for _, index in shard) == list(range(length))
    shuffled = [EpochSampler(length, True, 1, rank, world_size) for rank in range(world_size)]
    orders = []
    for epoch in range(3):
        shards = []
        for sampler in shuffled:
            sampler.set_epoch(epoch)
            shards.append(list(sampler))
            assert len(sampler) == len(shards[-1]) == length // world_size
            assert all(key[0] == epoch for key in shards[-1])
        indices = [index for shard in shards for _, index in shard]
        assert len(set(indices)) == len(indices) == length // world_size * world_size
        orders.append(tuple(indices))
    assert len(set(orders)) == 3
    with pytest.raises(UserError, match="too few"):
        EpochSampler(2, True, world_size=3)


def test_two_processes_see_the_batches_of_one() -> None:
    whole = [index for _, index in EpochSampler(24, True, 4)]
    shards = [[index for _, index in EpochSampler(24, True, 4, rank, 2)] for rank in range(2)]
    for batch in range(6):
        together = shards[0][2 * batch : 2 * batch + 2] + shards[1][2 * batch : 2 * batch + 2]
        assert sorted(together) == sorted(whole[4 * batch : 4 * batch + 4])


def test_an_epoch_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source = KittiRawSource(tmp_path, write_drive(tmp_path, 12), png=True)
    dataset = SelfSupervisedDataset(source, 32, 96, (0, -1, 1), True, seed=9)
    random_state = torch.get_rng_state()
    loader = make_loader(dataset, 3, True, LoaderOptions(seed=9))
    loader.sampler.set_epoch(2)  # type: ignore[attr-defined]
    assert len(loader) == 3
    whole = list(loader)
    loader = make_loader(dataset, 3, True, LoaderOptions(seed=9))
    loader.sampler.set_epoch(2, start=3)  # type: ignore[attr-defined]
    assert len(loader) == 2
    rest = list(loader)
    for expected, found in zip(whole[1:], rest, strict=True):
        assert expected["name"] == found["name"]
        for key in ("frames", "K", "jitter", "stereo_T"):
            assert torch.equal(expected[key], found[key])
    assert torch.equal(random_state, torch.get_rng_state())


def test_workers_give_the_same_and_pass_errors_on(tmp_path: Path) -> None:
    source = KittiRawSource(tmp_path, write_drive(tmp_path, 8, suffix=".jpg"))
    dataset = SelfSupervisedDataset(source, 32, 96, (0, -1, 1), True)
    alone, helped = make_loader(dataset, 2, train=True), make_loader(dataset, 2, True, LoaderOptions(num_workers=1))
    for epoch in range(2):
        for loader in (alone, helped):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for expected, found in zip(alone, helped, strict=True):
            assert expected["name"] == found["name"]
            assert torch.equal(expected["frames"], found["frames"])
    bad = tmp_path / "day" / "drive" / "image_02" / "data" / "0000000004.jpg"
    bad.write_bytes(bad.read_bytes()[:-40])
    for loader in (alone, helped):
        with pytest.raises(UserError) as raised:
            list(loader)
        assert str(raised.value).startswith(f"the image {bad} is cut off")
        assert "Traceback" not in str(raised.value)


def test_wrong_loader_options(tmp_path: Path) -> None:
    dataset = SelfSupervisedDataset(KittiRawSource(tmp_path, write_drive(tmp_path, 3), png=True), 32, 96, (0,), True)
    with pytest.raises(UserError, match="batch_size 0"):
        make_loader(dataset, 0, train=True)
    assert len(make_loader(dataset, 4, train=True)) == 0
    assert len(make_loader(dataset, 4, train=False)) == 1


# --- video


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYBRID_ENCODER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_video(path: Path, frames: int, size: tuple[int, int] = (64, 96)) -> list[np.ndarray]:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, size[::-1])
    assert writer.isOpened()
    for n in range(frames):
        writer.write(np.roll(textured(*size), 3 * n, axis=1))
    writer.release()
    return list(iterate_video(path))


def test_random_access_equals_sequential_decoding(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "drive.mp4"
    frames = write_video(path, 40)
    assert len(frames) == 40
    info = video_info(path)
    assert (info.width, info.height, info.frames, info.fps) == (96, 64, 40, 10)
    camera = read_intrinsics("90,90,48,32")
    train, val = (VideoSource(path, camera, part=part, progress=False) for part in ("train", "val"))
    assert len(list(cache.glob("*.rgb"))) == 1  # decoded once
    assert [train.name(0), train.name(len(train) - 1)] == ["drive.mp4 frame 1", "drive.mp4 frame 34"]
    assert [val.name(0), val.name(len(val) - 1)] == ["drive.mp4 frame 37", "drive.mp4 frame 38"]
    for index in np.random.default_rng(0).permutation(len(train)).tolist():
        for frame_id in (0, -1, 1):
            np.testing.assert_array_equal(train.read(index, frame_id), frames[index + 1 + frame_id])
    np.testing.assert_array_equal(val.read(1, 1), frames[39])
    np.testing.assert_allclose(train.intrinsics(0), [[90, 0, 48], [0, 90, 32], [0, 0, 1]])


def test_stored_frames_are_no_larger_than_needed(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "drive.mp4"
    frames = write_video(path, 12)
    source = VideoSource(path, read_intrinsics("90,90,48,32"), size=(16, 48), progress=False)
    np.testing.assert_array_equal(source.read(2, 0), resize_image(frames[3], 32, 48))
    np.testing.assert_allclose(source.intrinsics(0), [[45, 0, 24], [0, 45, 16], [0, 0, 1]])
    sample = default_collate([SelfSupervisedDataset(source, 16, 48, (0, -1, 1), False)[i] for i in (0, 1)])
    assert sample["frames"].shape == (2, 3, 3, 16, 48)
    assert sample["K"].dtype == torch.float32
    np.testing.assert_allclose(sample["K"][0].numpy(), [[45, 0, 24], [0, 22.5, 8], [0, 0, 1]])


def test_rows_that_are_cut_off_are_not_missed_in_what_is_stored(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "drive.mp4"
    write_video(path, 12)  # 96 x 64
    options = DataOptions(
        dataset="video", data_path=path, intrinsics="90,90,48,32", crop_bottom=0.5, height=32, width=32
    )
    source = open_source(options, "train", (0, -1, 1))
    assert source.read(0, 0).shape == (64, 96, 3)


def test_one_process_decodes_and_what_a_killed_one_left_is_cleared_away(tmp_path: Path, cache: Path) -> None:
    path, camera = tmp_path / "drive.mp4", read_intrinsics("90,90,48,32")
    write_video(path, 12)
    VideoSource(path, camera, progress=False)
    (stored,) = cache.glob("*.rgb")
    whole = stored.read_bytes()
    left = stored.with_name(f".{stored.stem}.123.partial.rgb")
    stored.rename(left)
    with ProcessPoolExecutor(2, get_context("fork"), cv2.setNumThreads, (0,)) as pool:
        both = [pool.submit(VideoSource, path, camera, progress=False) for _ in range(2)]
        assert [len(each.result()) for each in both] == [7, 7]
    assert stored.read_bytes() == whole
    assert not left.exists()


def test_a_given_camera_takes_the_place_of_calibration(tmp_path: Path) -> None:
    entries = write_drive(tmp_path, 3)  # 124 x 38
    (tmp_path / "day" / "calib_cam_to_cam.txt").write_text(CALIBRATION)
    K = np.array([[90.0, 0, 62], [0, 90, 19], [0, 0, 1]])
    source = KittiRawSource(tmp_path, entries, png=True, camera=Intrinsics(K, (124, 38)))
    np.testing.assert_allclose(source.intrinsics(0), K)
    bent = KittiRawSource(tmp_path, entries, (0,), True, Intrinsics(K, (124, 38), np.array([-0.3, 0, 0, 0, 0])))
    assert not np.array_equal(bent.read(0, 0), source.read(0, 0))


def test_wrong_videos(tmp_path: Path, cache: Path) -> None:
    path, camera = tmp_path / "drive.mp4", read_intrinsics("90,90,48,32")
    write_video(path, 5)
    with pytest.raises(UserError, match="5 frames, too few"):
        VideoSource(path, camera, progress=False)
    with pytest.raises(UserError, match="no second camera"):
        VideoSource(path, camera, (0, "s"), progress=False)
    with pytest.raises(UserError, match="principal point"):
        VideoSource(path, read_intrinsics("90,90,480,32"), progress=False)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"drive\.mp4 cannot be opened"):
        VideoSource(path, camera, progress=False)
    with pytest.raises(UserError, match="no video at"):
        list(iterate_video(tmp_path / "nowhere.mp4"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image"):
        VideoSource(tmp_path / "empty", camera)


@pytest.mark.parametrize(
    ("bad", "frames", "message"),
    [
        ((), 3, ""),
        ((0,), 2, ""),  # begins in the middle of a frame
        ((2,), 2, ""),
        ((1,), 1, "ends after 1 of 3 frames"),
        ((0, 1, 2), 0, "no frame that can be decoded"),
    ],
)
def test_frames_without_pixels_are_not_decoded(
    bad: tuple[int, ...], frames: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV 5 may make an image without pixels of a damaged JPEG, and say that it has decoded it."""
    opened = cv2.VideoCapture

    class Damaged:
        def __init__(self, name: str) -> None:
            self.capture, self.index = opened(name), -1

        def __getattr__(self, name: str) -> Any:
            return getattr(self.capture, name)

        def retrieve(self) -> tuple[bool, np.ndarray]:
            self.index += 1
            decoded, pixels = self.capture.retrieve()
            return decoded, pixels[:0] if self.index in bad else pixels

    monkeypatch.setattr(cv2, "VideoCapture", Damaged)
    found = []
    with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
        for frame in read_video(write_odd_video(tmp_path / "drive.avi", frames=3)):
            found.append(frame)
    assert len(found) == frames


@needs_udacity
def test_damaged_video_is_noticed(tmp_path: Path) -> None:
    data = bytearray((UDACITY / "test_small1.mp4").read_bytes())
    data[200_000:1_500_000] = bytes(1_300_000)
    path = tmp_path / "holes.mp4"
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"ends after \d+ of 91 frames"):
        for _ in iterate_video(path):
            pass


def test_folder_of_frames_in_natural_order(tmp_path: Path) -> None:
    images = {n: textured(64, 96, n) for n in (7, 8, 9, 10, 11, 12)}
    for n, image in images.items():
        write(tmp_path / f"frame_{n}.png", image)
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / "._frame_0.png").write_bytes(b"what macOS leaves beside files")
    source = VideoSource(tmp_path, read_intrinsics("90,90,48,32"))
    np.testing.assert_array_equal(source.read(0, 0), images[8])
    np.testing.assert_array_equal(source.read(0, 1), images[9])
    val = VideoSource(tmp_path, read_intrinsics("90,90,48,32"), part="val")
    np.testing.assert_array_equal(val.read(0, 1), images[12])
    write(tmp_path / "frame_9.png", textured(20, 20))
    with pytest.raises(UserError, match=r"frame_9\.png is 20x20"):
        source.read(0, 1)
    write(tmp_path / "frame_12.jpg", textured(64, 96))
    with pytest.raises(UserError, match="several kinds"):
        VideoSource(tmp_path, read_intrinsics("90,90,48,32"))


def numbers(source: VideoSource) -> list[int]:
    return [int(source.name(index).split()[-1]) for index in range(len(source))]


def test_a_gap_in_the_numbers_of_frames_ends_a_clip(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [*range(1, 11), *range(101, 121)]
    for n in names:
        write(tmp_path / f"frame_{n}.png", np.full((32, 48, 3), n, np.uint8))
    camera = read_intrinsics("45,45,24,16")
    train, val = (VideoSource(tmp_path, camera, part=part) for part in ("train", "val"))
    for source in (train, val):
        for index in range(len(source)):
            before, this, after = (int(source.read(index, i)[0, 0, 0]) for i in (-1, 0, 1))
            assert (this - before, after - this) == (1, 1)
    assert numbers(train) == [*range(1, 9), *range(11, 26)]
    assert numbers(val) == [28]
    assert "gaps in the numbers of its 30 frames make 2 clips" in caplog.text


def test_a_constant_step_is_no_gap(tmp_path: Path) -> None:
    for n in range(10):
        write(tmp_path / f"{5 * n:06d}.png", textured(32, 48, n))
    assert numbers(VideoSource(tmp_path, read_intrinsics("45,45,24,16"))) == [1, 2, 3, 4, 5]


def test_the_images_of_two_cameras_in_one_folder_are_two_clips(tmp_path: Path) -> None:
    for n in range(8):
        for offset, camera in ((0, "left"), (100, "right")):
            write(tmp_path / f"{n}_{camera}.png", np.full((32, 48, 3), n + offset, np.uint8))
    train = VideoSource(tmp_path, read_intrinsics("45,45,24,16"))
    seen = [[int(train.read(index, i)[0, 0, 0]) for i in (-1, 0, 1)] for index in range(len(train))]
    assert seen == [[n - 1, n, n + 1] for n in (1, 2, 3, 4, 5, 6, 101, 102, 103)]


def test_frames_by_name() -> None:
    def runs(*stems: str) -> list[list[int]]:
        return [list(run) for run in runs_without_gap(stems)]

    assert runs("a", "b", "c") == [[0, 1, 2]], "no numbers to read"
    assert runs("left_1", "left_2", "right_1", "right_2") == [[0, 1], [2, 3]]
    assert runs("2_1", "2_2", "3_1", "3_2") == [[0, 1], [2, 3]]
    assert runs("cam2_7", "cam2_8", "cam2_10") == [[0, 1], [2]]
    assert runs("1403636579763555584", "1403636579813555456", "1403636579863555584", "1403636580063555584") == [
        [0, 1, 2],
        [3],
    ], "times in nanoseconds, of which a few are missing"


def test_a_folder_of_clips_trains_each_as_a_sequence_of_its_own(tmp_path: Path, cache: Path) -> None:
    for name, size in (("b_9.mp4", (64, 96)), ("b_10.mp4", (32, 48)), ("a.avi", (64, 96))):
        write_odd_video(tmp_path / "clips" / name, 12, size)
    (tmp_path / "clips" / "notes.txt").write_text("no clip")
    camera = Intrinsics(np.array([[90.0, 0, 48], [0, 90, 32], [0, 0, 1]]), (96, 64))
    train, val = (VideoSource(tmp_path / "clips", camera, part=part, progress=False) for part in ("train", "val"))
    expected = [
        f"{name} frame {n}"
        for name, last in (("a.avi", 10), ("b_9.mp4", 10), ("b_10.mp4", 6))
        for n in range(1, last + 1)
    ]
    assert [train.name(index) for index in range(len(train))] == expected
    assert [val.name(index) for index in range(len(val))] == ["b_10.mp4 frame 9", "b_10.mp4 frame 10"]
    np.testing.assert_allclose(train.intrinsics(0), [[90, 0, 48], [0, 90, 32], [0, 0, 1]])
    np.testing.assert_allclose(val.intrinsics(0), [[45, 0, 24], [0, 45, 16], [0, 0, 1]])
    assert val.read(0, 1).shape == (32, 48, 3)
    with pytest.raises(UserError, match=r"clips has 36 frames in 3 clips .*the longest of 12, too few"):
        VideoSource(tmp_path / "clips", camera, (0, -9, 9), progress=False)


def test_the_last_clips_may_be_too_short_to_validate(tmp_path: Path) -> None:
    for n in (*range(20), 100, 200):
        write(tmp_path / f"{n}.png", textured(32, 48, n))
    train, val = (VideoSource(tmp_path, read_intrinsics("45,45,24,16"), part=part) for part in ("train", "val"))
    assert (numbers(train), numbers(val)) == ([*range(1, 16)], [18])


def test_announced_lengths_of_videos_are_estimates(tmp_path: Path, cache: Path) -> None:
    camera = read_intrinsics("90,90,48,24")
    videos = {
        write_odd_video(tmp_path / "plain.webm"): 12,
        announce_longer(write_odd_video(tmp_path / "longer.mkv"), 1e6): 12,
        trim(write_odd_video(tmp_path / "trimmed.mp4", 40), 1500): 15,
    }
    for video, frames in videos.items():
        assert len(list(iterate_video(video))) == frames
        assert len(VideoSource(video, camera, progress=False)) == frames - 5
    cut = write_odd_video(tmp_path / "cut.mkv", 40)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cut\.mkv ends after \d+ of 40 frames: it is cut off"):
        VideoSource(cut, camera, progress=False)


def test_the_rate_of_a_video_is_that_of_its_frames(tmp_path: Path) -> None:
    """An average over pauses, as MP4 announces it, would play everything else too slowly."""
    video = announce_longer(pause(write_odd_video(tmp_path / "drive.mkv"), 6, 12, 3000), 1)
    assert video_info(video).fps == pytest.approx(10)
    stamps = [frame.seconds for frame in read_video(video)]
    assert stamps == pytest.approx([n / 10 for n in range(6)] + [3 + n / 10 for n in range(6, 12)])


def test_what_containers_declare(tmp_path: Path) -> None:
    for suffix in (".mp4", ".avi", ".mkv", ".webm"):
        video = write_odd_video(tmp_path / f"whole{suffix}")
        declared = read_container(video)
        assert declared.bytes == video.stat().st_size
        assert declared.seconds == (pytest.approx(1.2) if suffix == ".mp4" else None)
    (tmp_path / "other.ts").write_bytes(b"\x47" * 400)
    assert read_container(tmp_path / "other.ts") == (None, None)


def test_training_and_prediction_know_the_same_kinds_of_videos(tmp_path: Path, cache: Path) -> None:
    camera = read_intrinsics("90,90,48,24")
    video = write_odd_video(tmp_path / "dash.ts")
    assert len(VideoSource(video, camera, progress=False)) == 7
    assert find_inputs([video])[0].is_video
    other = video.rename(tmp_path / "dash.txt")
    with pytest.raises(UserError, match=r"known kinds are \.3gp"):
        VideoSource(other, camera, progress=False)


def test_a_video_whose_name_is_no_utf8_trains(tmp_path: Path, cache: Path) -> None:
    """OpenCV crashes on such names."""
    video = tmp_path / os.fsdecode(b"\xff.mp4")
    try:
        write_odd_video(tmp_path / "drive.mp4").rename(video)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert len(VideoSource(video, read_intrinsics("90,90,48,24"), progress=False)) == 7


def line_columns(image: np.ndarray, near: int) -> np.ndarray:
    """Where, in every row, the dark vertical line near a column runs; sub-pixel."""
    darkness = 255.0 - image[:, near - 14 : near + 15, 0]
    return (darkness * np.arange(near - 14, near + 15)).sum(1) / darkness.sum(1)


def test_undistortion_makes_lines_straight(tmp_path: Path) -> None:
    height, width = 240, 400
    K, distortion = np.array([[300.0, 0, 210], [0, 300, 115], [0, 0, 1]]), np.array([-0.25, 0.03, 0.001, -0.0005, 0])
    # A camera with this distortion, looking at vertical lines, of which an ideal image has one every 40 pixels.
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 1, 2).astype(np.float64)
    ideal_x = cv2.undistortPoints(grid, K, distortion, P=K)[:, 0, 0].reshape(height, width)
    distance = np.abs((ideal_x - 210 + 20) % 40 - 20)
    picture = np.repeat((255 * np.clip(distance - 1, 0, 1)).astype(np.uint8)[..., None], 3, axis=2)
    for n in range(6):
        write(tmp_path / f"{n}.png", picture)
    file = tmp_path / "camera.json"
    content = {"K": K.tolist(), "image_size": [width, height], "dist_k1k2p1p2k3": distortion.tolist()}
    file.write_text(json.dumps(content))
    source = VideoSource(tmp_path, read_intrinsics(file))
    straight = source.read(0, 0)
    rows = slice(5, -5)
    for column in (90, 330):  # 210 less and more three times the spacing
        found = line_columns(straight, column)[rows]
        assert np.abs(found - column).max() < 0.3
    assert np.ptp(line_columns(picture, 95)[rows]) > 3
    np.testing.assert_allclose(source.intrinsics(0), K, rtol=1e-6)


@needs_udacity
def test_real_video_is_undistorted_when_stored(cache: Path) -> None:
    video = UDACITY / "test_small1.mp4"
    camera = read_intrinsics(UDACITY / "estimated_intrinsics.json")
    source = VideoSource(video, camera, size=(96, 320), progress=False)
    assert len(source) == 77  # 88 frames, of which 9 validate; the first and the last have one neighbour
    image = next(frame for number, frame in enumerate(iterate_video(video)) if number == 5)
    assert camera.distortion is not None
    expected = resize_image(cv2.undistort(image, camera.K, camera.distortion), 180, 320).astype(int)
    assert source.name(4) == "test_small1.mp4 frame 5"
    assert np.abs(source.read(4, 0) - expected).mean() < 0.5
    assert np.abs(resize_image(image, 180, 320) - expected).mean() > 3


# --- colours


def test_jitter_equals_torchvision_and_is_shared_by_a_samples_frames() -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    pictures = np.stack([textured(40, 60, seed) for seed in range(6)])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255).view(2, 3, 3, 40, 60).clone()
    images[0, 0] = images[0, 0, :1]  # grey
    images[0, 1, :, :9], images[0, 1, :, 9:18] = 0, 1
    jitter = torch.tensor([[1.2, 0.8, 1.17, 0.1], [0.83, 1.2, 0.8, -0.07]])
    result = color_jitter(images, jitter)
    for sample in range(2):
        brightness, contrast, saturation, hue = jitter[sample].tolist()
        for frame in range(3):
            expected = functional.adjust_brightness(images[sample, frame], brightness)
            expected = functional.adjust_contrast(expected, contrast)
            expected = functional.adjust_saturation(expected, saturation)
            expected = functional.adjust_hue(expected, hue)
            difference = (result[sample, frame] - expected).abs()
            assert difference.max() < 1e-4
            assert difference.mean() < 1e-6
    alike = color_jitter(images[:, :1].expand(-1, 3, -1, -1, -1), jitter)
    assert torch.equal(alike[:, 0], alike[:, 1])
    assert torch.equal(alike[:, 0], alike[:, 2])


def test_no_jitter_changes_nothing() -> None:
    images = torch.rand(3, 2, 3, 8, 8)
    before = images.clone()
    result = color_jitter(images, torch.tensor([[1, 1, 1, 0], [1.1, 1, 1, 0], [1, 1, 1, 0]]))
    assert torch.equal(images, before)
    assert torch.equal(result[[0, 2]], images[[0, 2]])
    assert not torch.equal(result[1], images[1])
    assert color_jitter(images, torch.tensor([[1.0, 1, 1, 0]]).expand(3, 4)).data_ptr() != images.data_ptr()


def sliding(tmp_path: Path, places: list[int]) -> Path:
    """A folder of frames, 80 x 160, that look at a wide random picture from so many pixels on."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 90, 3), dtype=np.uint8)
    wide = cv2.resize(noise, (360, 80), interpolation=cv2.INTER_CUBIC)
    for number, place in enumerate(places):
        write_picture(tmp_path / f"{number:03d}.png", np.ascontiguousarray(wide[:, place : place + 160]))
    return tmp_path


def test_frames_that_hardly_move_are_left_out_and_neighbours_are_those_that_stay(tmp_path: Path) -> None:
    """Two pixels of 160 are 1.25 %: after a stand, and of a crawl by one pixel every second frame, stays."""
    places = [0, 2, 4, 4, 4, 4, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22]
    path, camera = sliding(tmp_path, places), read_intrinsics("90,90,80,40")
    train = VideoSource(path, camera, min_motion=0.01)
    assert train.left_out == 5
    kept = [int(train.name(index).split()[-1]) for index in range(len(train))]
    assert kept == [1, 2, 6, 8, 10, 11, 12]
    after_stand = kept.index(2)
    expected = read_image(path / "006.png")
    np.testing.assert_array_equal(train.read(after_stand, 1), expected)
    assert [places[number] for number in kept] == [2, 4, 6, 8, 10, 12, 14]
    with pytest.raises(UserError, match=r"without 16 frames that hardly move, has 1 frames"):
        VideoSource(path, camera, min_motion=0.2)


def test_a_real_car_that_brakes_is_thinned_where_it_stands(real_data: Path) -> None:
    frames = sorted((real_data / "kitti_raw").glob("*/*/image_02/data/*.jpg"))
    small = [cv2.resize(read_image(file), (160, 48), interpolation=cv2.INTER_AREA) for file in frames]

    class Shown:
        def read(self, number: int) -> np.ndarray:
            return small[number]

    kept = list(moving_frames(Shown(), range(len(small)), 0.002))
    assert kept[:50] == list(range(50)), "it moves"
    assert sum(number >= 68 for number in kept) <= 1, "it stands"
