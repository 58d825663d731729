"""Every parser of what comes from outside, on generated input: it returns values that make sense, or refuses with a
message that names the file (and the line, where there are lines); it never raises anything else, and never leaves the
data folder.

HYBRID_ENCODER_EXAMPLES sets the number of generated inputs per parser (100; a tenth where each builds a net).
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import open_clip
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as serialize_tensors
from torch import Tensor, nn

from hybrid_encoder.config import HybridEncoderConfig
from hybrid_encoder.data.calibration import Intrinsics, kitti_intrinsics, read_calibration, read_intrinsics
from hybrid_encoder.data.cityscapes import CityscapesSequenceSource, CityscapesSource, read_cityscapes_split
from hybrid_encoder.data.depth_files import read_depth
from hybrid_encoder.data.ground_truth import GroundTruth
from hybrid_encoder.data.splits import find_split, read_split
from hybrid_encoder.data.velodyne import project_scan, read_scan, velodyne_projection
from hybrid_encoder.data.video import VideoFrame, VideoInfo, read_video, video_info
from hybrid_encoder.engine.record import METRICS_FILE, Recorder, read_metrics
from hybrid_encoder.engine.state import load_state as load_run_state
from hybrid_encoder.engine.state import save_state, with_sum
from hybrid_encoder.errors import UserError
from hybrid_encoder.images import read_image
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.depth_model import DepthModel
from hybrid_encoder.model.encoder import HybridEncoder, create_encoder
from hybrid_encoder.model.nets import DepthNets
from hybrid_encoder.options import EncoderOptions
from hybrid_encoder.released.names import encoder_tensors, read_alignment, read_config
from hybrid_encoder.stage1.checkpoint import load_stage1, save_stage1
from hybrid_encoder.stage1.lanes import TuSimpleSource, read_labels
from hybrid_encoder.stage1.ordered_points import open_sources
from hybrid_encoder.stage1.sequences import NUM_POINTS
from hybrid_encoder.stage2.checkpoint import described_nets, encoder_extras, load_depth_model
from hybrid_encoder.two_frame.checkpoint import is_two_frame, load_two_frame_model
from hybrid_encoder.weights.reading import load_state, read_checkpoint, read_tensors, stated_bins, stated_size

from .released_files import TINY_RELEASED, tiny_decoder, tiny_encoder

T = TypeVar("T")
EXAMPLES = int(os.environ.get("HYBRID_ENCODER_EXAMPLES", 100))


def examples(share: float = 1.0) -> settings:
    return settings(
        max_examples=max(1, int(share * EXAMPLES)),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


hostile = examples()
building = examples(0.1)
WHOLE_FILE = ("cannot read", "lists no frame", "holds no pose")
"""What is wrong with a file of lines as a whole."""


def read_or_refuse(parse: Callable[[], T], *names: str, lines: bool = False) -> T | None:
    """What a parser reads; None where it refuses with a message that has one of the names, and a line's number."""
    try:
        return parse()
    except UserError as error:
        message = str(error)
    assert any(name in message for name in names), message
    assert not lines or re.search(r", line \d+: ", message) or any(part in message for part in WHOLE_FILE), message
    return None


# --- inputs

WORDS = [
    *(b"", b" ", b"\n", b"\r\n", b"\t", b"\0", b"\xff", b"..", b"../x", b"/", b"/etc", b"C:", b"\\", b"l", b"r"),
    *(b"0", b"1", b"-1", b"7.5", b"1e3", b"1e999", b"-1e30", b"1e-320", b"nan", b"inf", b"1_0", b"true", b"null"),
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", "é".encode(), "²".encode(), "٣".encode(), b"9" * 400, b"x" * 300),
]


@st.composite
def edited(draw: st.DrawFn, *valid: bytes) -> bytes:
    """A valid file with up to three edits: bits flipped, parts cut out, doubled or zeroed, words put in or over."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        size = draw(st.sampled_from([1, 1, 2, 4, 8, 30, len(data)]))
        kind = draw(st.sampled_from(["flip", "put", "over", "drop", "double", "zero"]))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind in ("put", "over"):
            word = draw(st.sampled_from(WORDS))
            data[at : at + (len(word) if kind == "over" else 0)] = word
        elif kind == "drop":
            del data[at : at + size]
        elif kind == "double" and len(data) < 1 << 16:
            data[at:at] = data[at : at + size]
        elif kind == "zero":
            data[at : at + size] = bytes(len(data[at : at + size]))
    return bytes(data)


def text_like(*valid: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of any kind, words in any order, and edited valid files."""
    soup = st.lists(st.sampled_from(WORDS), max_size=30).map(b" ".join)
    return st.one_of(st.binary(max_size=200), soup, edited(*valid), edited(*valid))


numbers = st.floats() | st.integers(-5, 2000) | st.sampled_from([0, 1, 700, 10**30, 10**400, 1e-320, -1.0, 0.5, 64])
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5) | st.sampled_from(["tiny", "../x", "1", "\0", "dpt"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn, *valid: Any) -> Any:
    """A valid JSON value in which up to two places hold something else, or nothing."""
    value = json.loads(json.dumps(draw(st.sampled_from(valid))))
    for _ in range(draw(st.integers(0, 2))):
        inside, key = {"": value}, ""
        for _ in range(draw(st.integers(0, 4))):
            found: Any = inside[key]
            keys = (
                list(found) if isinstance(found, dict) else list(range(len(found))) if isinstance(found, list) else []
            )
            if not keys:
                break
            inside, key = found, draw(st.sampled_from(keys))
        if draw(st.booleans()) and key != "":
            del inside[key]
        else:
            inside[key] = draw(json_values)
            value = inside[""] if key == "" else value
    return value


def json_like(*valid: Any) -> st.SearchStrategy[bytes]:
    """Changed values, and edited texts."""
    whole = [json.dumps(value).encode() for value in valid]
    return st.one_of(changed(*valid).map(lambda value: json.dumps(value).encode()), text_like(*whole))


def textured(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 255, (max(height // 4, 1), max(width // 4, 1), 3), np.uint8), (width, height))


def encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


@st.composite
def repacked(draw: st.DrawFn, *valid: bytes) -> bytes:
    """A zip archive with one member edited, its sums right."""
    members = members_of(draw(st.sampled_from(valid)))
    name = draw(st.sampled_from(sorted(members)))
    return zipped({**members, name: draw(edited(members[name]))})


def archive_like(*valid: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=100), edited(*valid), repacked(*valid), repacked(*valid))


# --- images

IMAGES = [encoded(suffix, textured(24, 40)) for suffix in (".png", ".jpg", ".bmp", ".webp")]
STARTS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF"]


@hostile
@given(st.tuples(st.sampled_from(STARTS), st.binary(max_size=300)).map(b"".join))
def test_bytes_that_are_no_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.png").write_bytes(data)
    assert read_or_refuse(lambda: read_image(tmp_path / "x.png"), "x.png") is None


@hostile
@given(edited(*IMAGES))
def test_any_image_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(data)
    image = read_or_refuse(lambda: read_image(tmp_path / "x.jpg"), "x.jpg")
    assert image is None or (image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size)


DEPTH = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40)


@hostile
@given(edited(encoded(".png", DEPTH), encoded(".png", textured(24, 40))))
def test_any_depth_image_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.png").write_bytes(data)
    depth = read_or_refuse(lambda: read_depth(tmp_path / "x.png"), "x.png")
    assert depth is None or (depth.dtype == np.float32 and depth.ndim == 2 and 0 <= depth.min() <= depth.max() < 256)


# --- splits

SPLIT = b"2011_09_26/2011_09_26_drive_0001_sync 17 l\nday/drive 0000000003 r\n9 12\n"


@hostile
@given(text_like(SPLIT))
def test_any_split_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(content)
    for entry in read_or_refuse(lambda: read_split(file), "x.txt", lines=True) or []:
        assert (tmp_path / entry.folder).resolve().is_relative_to(tmp_path)
        assert entry.folder not in ("", ".")
        assert not (tmp_path / entry.folder).exists()  # a question that every file system can answer
        assert entry.side in ("l", "r")
        assert 0 <= entry.frame < 10**10


@hostile
@given(st.text(max_size=20) | st.sampled_from(WORDS).map(lambda word: word.decode(errors="surrogateescape")))
def test_any_name_of_a_split_is_found_or_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no split"):
        find_split(name, tmp_path / "nowhere")


@hostile
@given(text_like(b"aachen aachen_000000_000004\nulm ulm_000001_000019_leftImg8bit\n"))
def test_any_cityscapes_split_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(content)
    for entry in read_or_refuse(lambda: read_cityscapes_split(file), "x.txt", lines=True) or []:
        path = tmp_path / entry.city / f"{entry.frame}.jpg"
        assert path.resolve().is_relative_to(tmp_path)
        assert entry.frame
        assert not path.exists()
    # As a list of published frames: the source itself finds that none of them is there.
    with pytest.raises(UserError):
        CityscapesSequenceSource(tmp_path, file)


# --- calibration

KITTI_CAMERA = b"calib_time: 09-Jan-2012\nR_rect_00: 1 0 0 0 1 0 0 0 1\nS_rect_02: 1242 375\n"
KITTI_CAMERA += b"P_rect_02: 700 0 600 45 0 710 170 0.2 0 0 1 0.003\n"
SCANNER = b"calib_time: 15-Mar-2012\nR: 0 -1 0 0 0 -1 1 0 0\nT: -0.004 -0.076 -0.27\ndelta_f: 0 0\n"
ODOMETRY = b"P0: 700 0 600 0 0 710 170 0 0 0 1 0\nP2: 700 0 600 45 0 710 170 0.2 0 0 1 0\nTr: 1 0 0 0 0 1 0 0 0 0 1 0\n"
CAMERA = {
    "K": [[700, 0, 600], [0, 700, 170], [0, 0, 1]],
    "image_size": [1242, 375],
    "dist_k1k2p1p2k3": [-0.2] + [0] * 4,
}


def sane(K: np.ndarray) -> bool:
    fx, fy, cx, cy = K[(0, 1, 0, 1), (0, 1, 2, 2)]
    form = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return bool(np.isfinite(K).all() and min(fx, fy) > 1 and np.abs(K).max() < 1e8 and np.allclose(K, form, atol=1e-5))


def fits_its_images(camera: Intrinsics) -> bool:
    assert camera.image_size is not None
    (width, height), (cx, cy) = camera.image_size, camera.K[:2, 2]
    lens = camera.distortion is None or bool(np.isfinite(camera.distortion).all())
    return sane(camera.K) and 0 <= cx <= width <= 1e5 and 0 <= cy <= height <= 1e5 and lens


@hostile
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(st.floats(), min_size=3, max_size=5).map(lambda v: ",".join(map(str, v))),
        edited(b"700, 710.5,6e2,170").map(lambda text: text.decode(errors="replace")),
    )
)
def test_any_intrinsics_string_is_read_or_refused(text: str) -> None:
    assume(not os.path.isfile(text))
    camera = read_or_refuse(lambda: read_intrinsics(text), "intrinsics")
    assert camera is None or sane(camera.K)
    fitting = camera and read_or_refuse(lambda: camera.for_image(1242, 375), "intrinsics")
    assert not fitting or fits_its_images(fitting)


@hostile
@given(json_like(CAMERA))
def test_any_intrinsics_file_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "camera.json"
    file.write_bytes(content)
    camera = read_or_refuse(lambda: read_intrinsics(file), "camera.json")
    assert camera is None or fits_its_images(camera)


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 100_000)
    for parse in (read_intrinsics, read_labels):
        with pytest.raises(UserError, match=r"x\.json"):
            parse(tmp_path / "x.json")


@hostile
@given(text_like(KITTI_CAMERA, ODOMETRY))
def test_any_calibration_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "calib.txt"
    file.write_bytes(content)
    entries = read_or_refuse(lambda: read_calibration(file), "calib.txt", lines=True)
    assert entries is None or all(np.isfinite(values).all() for values in entries.values())
    raw = read_or_refuse(lambda: kitti_intrinsics(file, "P_rect_02", "S_rect_02"), "calib.txt")
    assert raw is None or fits_its_images(raw)
    odometry = read_or_refuse(lambda: kitti_intrinsics(file, "P2"), "calib.txt")
    assert odometry is None or sane(odometry.K)


@hostile
@given(edited(KITTI_CAMERA), edited(SCANNER))
def test_any_scanner_calibration_is_read_or_refused(tmp_path: Path, cameras: bytes, scanner: bytes) -> None:
    (tmp_path / "calib_cam_to_cam.txt").write_bytes(cameras)
    (tmp_path / "calib_velo_to_cam.txt").write_bytes(scanner)
    found = read_or_refuse(lambda: velodyne_projection(tmp_path), "calib_cam_to_cam.txt", "calib_velo_to_cam.txt")
    if found is not None:
        projection, (height, width) = found
        assert np.isfinite(projection).all()
        assert np.linalg.norm(projection[2, :3]) == pytest.approx(1, abs=0.05)  # the camera's axis, in metres
        assert 1 <= height <= 1e5
        assert 1 <= width <= 1e5


points = st.lists(st.floats(width=32) | st.floats(-80, 80, width=32), max_size=24)


@hostile
@given(st.binary(max_size=100) | points.map(lambda v: np.array(v, "<f4").tobytes()) | edited(bytes(64)))
def test_any_scan_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "scan.bin"
    file.write_bytes(content)
    scan = read_or_refuse(lambda: read_scan(file), "scan.bin")
    if scan is not None:
        assert scan.shape == (len(content) // 16, 4)
        assert np.abs(scan[:, :3]).max() <= 1000
        to_camera = np.array([[60.0, -70, 0, 4], [17, 0, -71, 0], [1, 0, 0, 0]])
        depth = project_scan(scan, to_camera, (38, 124))
        assert depth.shape == (38, 124)
        assert (np.isfinite(depth) & (depth >= 0)).all()


# --- Cityscapes

FRAME = "aachen_000000_000019"
PUBLISHED_CAMERA = {
    "extrinsic": {"baseline": 0.209313, "pitch": 0.038, "roll": 0.0, "x": 1.7, "y": 0.1, "yaw": -0.02, "z": 1.18},
    "intrinsic": {"fx": 2262.52, "fy": 2265.3017905988554, "u0": 1096.98, "v0": 513.137},
}


@hostile
@given(text_like(b"550.1,0.,500.5,0.,551,180,0.,0.,1."))
def test_any_cityscapes_camera_text_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "aachen"
    folder.mkdir(exist_ok=True)
    if not (folder / f"{FRAME}.jpg").exists():
        (folder / f"{FRAME}.jpg").write_bytes(encoded(".jpg", textured(384, 3072)))
        (tmp_path / "split.txt").write_text(f"aachen {FRAME}\n")
    (folder / f"{FRAME}_cam.txt").write_bytes(content)
    source = CityscapesSource(tmp_path, tmp_path / "split.txt")
    source._sizes["aachen"] = (1024, 384)  # as of the image, which need not be read every time
    K = read_or_refuse(lambda: source.intrinsics(0), f"{FRAME}_cam.txt")
    assert K is None or (sane(K) and 0 <= K[0, 2] <= 1024 and 0 <= K[1, 2] <= 384)


def published(root: Path) -> CityscapesSequenceSource:
    image = root / "leftImg8bit_sequence" / "test" / "aachen" / f"{FRAME}_leftImg8bit.png"
    for folder in ("leftImg8bit_sequence", "camera", "disparity"):
        (root / folder / "test" / "aachen").mkdir(parents=True, exist_ok=True)
    image.touch()
    (root / "camera" / "test" / "aachen" / f"{FRAME}_camera.json").write_text(json.dumps(PUBLISHED_CAMERA))
    (root / "split.txt").write_text(f"aachen {FRAME}\n")
    return CityscapesSequenceSource(root, root / "split.txt")


@hostile
@given(json_like(PUBLISHED_CAMERA))
def test_any_cityscapes_camera_json_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    source = published(tmp_path)
    source.camera_path(source.entries[0]).write_bytes(content)
    K = read_or_refuse(lambda: source.intrinsics(0), f"{FRAME}_camera.json")
    assert K is None or (sane(K) and 0 <= K[0, 2] <= 2048 and 0 <= K[1, 2] <= 1024)


DISPARITY = encoded(".png", np.full((1024, 2048), 47 * 256 + 1, np.uint16))


@examples(0.3)
@given(edited(DISPARITY, encoded(".png", DEPTH)))
def test_any_disparity_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    source = published(tmp_path)
    path = source.disparity_path(source.entries[0])
    path.write_bytes(content)
    depth = read_or_refuse(lambda: source.depth(0), path.name)
    assert depth is None or (depth.shape == (768, 2048) and bool((np.isfinite(depth) & (depth >= 0)).all()))


# --- ground truth


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def ragged(*maps: np.ndarray) -> np.ndarray:
    array = np.empty(len(maps), dtype=object)
    array[:] = maps
    return array


MAP = np.linspace(0, 80, 12, dtype=np.float32).reshape(3, 4)
OURS = {"depth_000000.npy": npy(MAP), "depth_000001.npy": npy(MAP[:2]), "names.npy": npy(np.array(["a 1 l", "a 2 l"]))}
THEIRS = {"data.npy": npy(ragged(MAP, MAP[:2]))}
arrays = st.sampled_from(
    [
        *(MAP * np.nan, -MAP, MAP * 1e30, MAP[0], MAP[None], MAP[:0], MAP > 3, MAP.astype(complex), MAP.astype("U5")),
        *(np.float32(3), np.array("a"), np.array(["a", "b"]), ragged(MAP, MAP), ragged(MAP[0]), MAP.astype(np.uint8)),
        *(MAP.astype(object), MAP.astype("f2"), np.full((2, 2), 1e300), np.array([3, 4]), np.zeros((2, 0))),
    ]
)
truths = st.one_of(
    archive_like(zipped(OURS), zipped(THEIRS)),
    st.dictionaries(st.sampled_from([*OURS, *THEIRS, "names", "data"]), arrays.map(npy)).map(
        lambda members: zipped({**OURS, **members})
    ),
    arrays.map(lambda array: zipped({"data.npy": npy(array)})),
)


@hostile
@given(truths)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_ground_truth_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "gt.npz"
    file.write_bytes(content)

    def parse() -> tuple[int, list[np.ndarray]]:
        truth = GroundTruth(file)
        assert truth.names is None or len(truth) == len(truth.names)
        return len(truth), list(truth)

    found = read_or_refuse(parse, "gt.npz")
    if found is not None:
        count, maps = found
        assert len(maps) == count
        for depth in maps:
            assert depth.dtype == np.float32
            assert depth.ndim == 2
            assert depth.size
            assert 0 <= depth.min() <= depth.max() <= 1e5


def test_a_small_pickle_cannot_take_all_memory(tmp_path: Path) -> None:
    """`r` remembers an object under any number: pickle's reader in C makes room for as many."""
    import resource

    header = npy(THEIRS_HEADER := ragged(MAP))[: -len(pickle.dumps(THEIRS_HEADER, 3))]
    bomb = b"\x80\x02}r\xff\xff\xff\x07."
    (tmp_path / "gt.npz").write_bytes(zipped({"data.npy": header + bomb}))
    torch.save({"model": {"w": torch.ones(2)}}, tmp_path / "x.pth")
    members = members_of((tmp_path / "x.pth").read_bytes())
    more = {name: bomb if name.endswith("data.pkl") else content for name, content in members.items()}
    (tmp_path / "x.pth").write_bytes(zipped({**more, "x/constants.pkl": b""}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"gt\.npz"):
        GroundTruth(tmp_path / "gt.npz")
    with pytest.raises(UserError, match=r"x\.pth"):
        read_tensors(tmp_path / "x.pth")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB; the one in C takes 2 GiB


# --- stage 1

LABEL = {
    "raw_file": "clips/a/20.png",
    "lanes": [[-2, -2, *range(30, 38)], [9.5] * 10, [-2] * 10],
    "h_samples": list(range(2, 22, 2)),
}
LANES = json.dumps(LABEL).encode() + b"\n" + json.dumps({**LABEL, "lanes": []}).encode() + b"\n"


def lane_folder(root: Path) -> Path:
    image = root / "clips" / "a" / "20.png"
    if not image.exists():
        image.parent.mkdir(parents=True)
        image.write_bytes(encoded(".png", textured(24, 40)))
    return root


@hostile
@given(text_like(LANES) | changed(LABEL).map(lambda value: json.dumps(value).encode()))
def test_any_lane_labels_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    root = lane_folder(tmp_path)
    file = root / "label_data_1.json"
    file.write_bytes(content)
    for name, lanes in read_or_refuse(lambda: read_labels(file), "label_data_1.json", lines=True) or []:
        assert (root / name).resolve().is_relative_to(root)
        assert lanes.shape == (len(lanes), NUM_POINTS, 2)
        assert np.isfinite(lanes).all()
        assert (np.diff(lanes[..., 1]) < 0).all()  # near, below, to far, above
        assert lanes.min(initial=0) >= 0
    source = read_or_refuse(lambda: TuSimpleSource(root, "train", "label_data_1"), "label_data_1.json")
    for index in range(len(source or [])):
        assert source is not None
        read = read_or_refuse(partial(source.read, index, np.random.default_rng(0)), source.name(index))
        assert read is None or (read[1].max() < 40 and read[1][..., 1].max() < 24)


WAYS = ["tusimple:", "kitti:", "synthetic:", "lanes:", ":", ".", "..", "/", "*", "?", "label_data_1", "/etc/passwd"]
WAYS += ["7", "²", "٣", "-1", "9" * 5000, "x" * 300, "[", "**", "nowhere", "kitti", "\u0000", "é", "{root}", "../x"]


@hostile
@given(st.lists(st.sampled_from(WAYS), max_size=6).map("".join) | st.text(max_size=10))
def test_any_source_of_stage_1_is_opened_or_refused(tmp_path: Path, spec: str) -> None:
    root = lane_folder(tmp_path / "data")
    (root / "label_data_1.json").write_bytes(LANES)
    (tmp_path / "x.json").write_bytes(LANES)  # outside
    spec = spec.replace("{root}", str(root))
    path = spec.partition(":")[2].partition(":")[0]
    names = (spec, str(Path(path)) if path else spec, str(root))  # a message writes ./ as .
    source = read_or_refuse(lambda: open_sources([spec], "train", (32, 32)), *names)
    assert source is None or len(source) > 0
    kind, _, rest = spec.partition(":")
    if source is not None and kind != "synthetic":
        assert kind == "tusimple"
        assert Path(path).resolve() == root.resolve()
        assert rest.partition(":")[2] in ("", "label_data_1")


OPTIONS = [name.encode() + b"=" for name in HybridEncoderConfig.__dataclass_fields__] + [
    b"=",
    b"x=1",
    b"dino_blocks=[0,1,2,3]",
]


@hostile
@given(st.lists(st.tuples(st.sampled_from(OPTIONS), st.sampled_from(WORDS) | json_like(7)).map(b"".join), max_size=2))
def test_any_encoder_option_is_taken_or_refused(texts: list[bytes]) -> None:
    given_texts = tuple(text.decode(errors="replace") for text in texts)
    options = EncoderOptions(preset="tiny", encoder_option=given_texts)
    names = [text.partition("=")[0] for text in given_texts]
    config = read_or_refuse(options.config, *filter(None, names), "encoder option", "--encoder_option")
    assert config is None or well_formed(config)


def well_formed(config: HybridEncoderConfig) -> bool:
    """Whether a config survives being saved, which checks all types."""
    saved = json.loads(json.dumps(config.without_downloads().to_dict()))
    named = {name: "x" for name in ("clip", "image_tower", "dino") if saved[name] is not None}
    return HybridEncoderConfig.from_dict(saved | named) is not None and 1 <= config.num_tokens <= 65536


# --- video


def video(suffix: str, code: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"x{suffix}")
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10, (64, 48))
        for i in range(6):
            writer.write(np.roll(textured(48, 64), 4 * i, axis=1))
        writer.release()
        return path.read_bytes()


VIDEOS = [video(".mp4", "mp4v"), video(".avi", "MJPG")]
PLAYLISTS = [
    b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    b"ffconcat version 1.0\nfile secret.mp4\n",
    b'<?xml version="1.0"?>\n<MPD profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"/>\n',
    b"v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
]


@hostile
@given(edited(*VIDEOS) | edited(*PLAYLISTS))
def test_any_video_is_read_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    """An announced number of frames proves nothing, so pictures may be fewer; where they also end early, it is told."""
    caplog.clear()
    file = tmp_path / "x.mp4"
    file.write_bytes(content)

    def parse() -> tuple[VideoInfo, list[VideoFrame]]:
        return video_info(file), list(read_video(file))

    found = read_or_refuse(parse, "x.mp4")
    if found is not None:
        info, frames = found
        told = "but its pictures end at" in caplog.text
        assert 0.1 <= info.fps <= 1e4
        assert 0 <= info.frames <= 1e8
        assert {frame.image.shape for frame in frames} == {(info.height, info.width, 3)}
        reached = frames[-1].seconds + 1 / info.fps
        assert len(frames) >= 0.9 * info.frames or reached >= 0.9 * info.frames / info.fps or told


@pytest.mark.parametrize("text", PLAYLISTS)
def test_a_playlist_is_no_video(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "secret.mp4").write_bytes(VIDEOS[0])
    (tmp_path / "x.mp4").write_bytes(text)
    with pytest.raises(UserError, match=r"x\.mp4 is a text that names other files"):
        video_info(tmp_path / "x.mp4")


# --- weights


class Foreign:
    """An object such as Lightning checkpoints are full of, and one that would run something."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


MARKER = str(Path(tempfile.gettempdir(), f"hybrid_encoder_executed_{os.getpid()}"))
TENSORS = {"w": torch.arange(12.0).view(3, 4), "b": torch.arange(3), "low": torch.ones(2, dtype=torch.bfloat16)}


def saved(content: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


LIGHTNING = saved({"state_dict": TENSORS, "hyper_parameters": Foreign(MARKER)})
ARCHIVES = [
    saved(TENSORS),
    saved({"model": TENSORS, "step": 3}),
    LIGHTNING,
    zipped({**members_of(LIGHTNING), "archive/constants.pkl": b""}),
]
OTHERS = [saved(TENSORS, legacy=True), saved({"x": Foreign(MARKER)}, legacy=True), serialize_tensors(TENSORS)]
odd = st.sampled_from(
    [
        *(
            torch.tensor(torch.nan),
            torch.full((3, 4), torch.inf),
            torch.zeros(4, 3),
            torch.zeros(3, 4, dtype=torch.long),
        ),
        *(torch.zeros(3, 4).to_sparse(), torch.empty(3, 4, device="meta"), torch.zeros(3, 4).to(torch.float8_e4m3fn)),
        *(torch.quantize_per_tensor(torch.zeros(3, 4), 1.0, 0, torch.qint8), torch.zeros(3, 4, dtype=torch.complex64)),
        *(torch.zeros(1).expand(3, 4), torch.zeros(()), torch.zeros(0), "text", 7, None, {"w": torch.zeros(1)}, [1]),
    ]
)
contents = st.dictionaries(
    st.sampled_from(["w", "b", "low", "module.w", "", 1, "model", "state_dict"]), odd, max_size=4
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3, 4))
        self.register_buffer("b", torch.zeros(3, dtype=torch.long))
        self.low = nn.Parameter(torch.zeros(2))


@hostile
@given(
    st.one_of(
        archive_like(*ARCHIVES),
        edited(*OTHERS),
        contents.map(lambda more: saved({**TENSORS, **more})),
        contents.map(lambda more: saved({"model": {**TENSORS, **more}, "epoch": 3})),
    )
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_weights_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.pth"
    file.unlink(missing_ok=True)  # mapped by tensors of the example before
    file.write_bytes(content)
    for entries in (read_or_refuse(lambda: read_checkpoint(file), "x.pth"), tensors_of(file)):
        for name, value in (entries or {}).items():
            assert isinstance(name, str)
            if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta:
                assert value.untyped_storage().nbytes() <= len(content)
    net, tensors = Net(), tensors_of(file)
    if tensors is not None and read_or_refuse(lambda: load_state(net, tensors, "x.pth") or net, "x.pth") is None:
        assert not any(value.any() for value in net.state_dict().values()), "half filled"
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())
    assert not Path(MARKER).exists()


def tensors_of(file: Path) -> dict[str, Tensor] | None:
    tensors = read_or_refuse(lambda: read_tensors(file), file.name)
    assert tensors is None or all(isinstance(value, Tensor) for value in tensors.values())
    return tensors


# --- saved models


@pytest.fixture(scope="module", autouse=True)
def one_tokenizer() -> Any:
    """A net is built in a tenth of the time where CLIP's vocabulary is not read anew."""
    make, made = open_clip.SimpleTokenizer, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            open_clip,
            "SimpleTokenizer",
            lambda context_length: made.setdefault(context_length, make(context_length=context_length)),
        )
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """save_pretrained's folder of a tiny model, its encoder.pth and depth.pth beside it."""
    torch.manual_seed(0)
    encoder = create_encoder("tiny")
    return DepthModel(encoder, DPTDecoder(encoder), 64, 96).save_pretrained(tmp_path_factory.mktemp("m") / "saved")


CONFIG = {
    "kind": "DepthModel",
    "encoder": {"kind": "hybrid", "config": EncoderOptions(preset="tiny").config().to_dict()},
    "decoder": {"kind": "dpt", "scales": [0], "head": "sigmoid"},
    "height": 64,
    "width": 96,
    "min_depth": 0.1,
    "max_depth": 100.0,
    "about": {"towers": "-"},
}


def sensible(height: int, width: int, near: float, far: float) -> bool:
    sides = all(type(n) is int and 0 < n <= 16384 and n % 32 == 0 for n in (height, width))
    return sides and 0 < near < far < float("inf")


@building
@given(json_like(CONFIG))
def test_any_saved_config_is_built_or_refused(model: Path, content: bytes) -> None:
    (model / "config.json").write_bytes(content)
    built = read_or_refuse(lambda: DepthModel.from_pretrained(model), str(model))
    assert built is None or sensible(built.height, built.width, built.min_depth, built.max_depth)
    encoder = read_or_refuse(lambda: create_encoder(model), str(model))
    assert built is None or encoder is not None


@hostile
@given(changed(CONFIG["encoder"]["config"]))  # type: ignore[index]
def test_any_encoder_config_is_taken_or_refused(values: Any) -> None:
    assume(isinstance(values, dict))
    config = read_or_refuse(lambda: HybridEncoderConfig.from_dict(values), "")
    assert config is None or well_formed(config)


DESCRIBED = {"kind": "dpt", "scales": [0, 1], "head": "relu", "min_depth": 0.1, "max_depth": 100.0}
extras = st.fixed_dictionaries(
    {},
    optional={
        "decoder_config": json_like(DESCRIBED).map(lambda text: text.decode(errors="replace")) | json_values | odd,
        "hybrid_config": json_like(CONFIG["encoder"]["config"]).map(lambda text: text.decode(errors="replace")) | odd,  # type: ignore[index]
        "matching_config": json_like({"binning": "inverse", "frames": [-1, -2]}).map(
            lambda t: t.decode(errors="replace")
        ),
        "height": json_values | odd | st.just(64),
        "width": json_values | odd | st.just(96),
        "min_depth_bin": json_values | odd,
        "max_depth_bin": json_values | odd,
    },
)


@hostile
@given(extras)
def test_any_description_in_encoder_pth_is_taken_or_refused(entries: dict[str, Any]) -> None:
    from hybrid_encoder.two_frame.checkpoint import _matching

    found = read_or_refuse(lambda: described_nets(entries, "encoder.pth"), "encoder.pth")
    if found is not None:
        assert found.decoder in ("dpt", "unet")
        assert found.head in ("sigmoid", "relu")
        assert 0 in found.scales
        assert set(found.scales) <= {0, 1, 2, 3}
        assert 0 < found.min_depth < found.max_depth < float("inf")
        assert found.config is None or well_formed(found.config)
    size = read_or_refuse(lambda: stated_size(entries, "encoder.pth"), "encoder.pth")
    assert size is None or sensible(*size, 1, 2)
    bins = read_or_refuse(lambda: stated_bins(entries, "encoder.pth"), "encoder.pth")
    assert bins is None or 0 < bins[0] < bins[1] < float("inf")
    matching = read_or_refuse(lambda: _matching(entries, "encoder.pth"), "encoder.pth")
    assert matching is None or (matching[0] in ("linear", "inverse") and all(-100 <= i <= 1 for i in matching[1]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A trainer's folder, and the content of its encoder.pth."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights")
    encoder = create_encoder("tiny", pyramid=False)
    decoder = DPTDecoder(encoder)
    torch.save(decoder.state_dict(), path / "depth.pth")
    return path, {**encoder.state_dict(), **encoder_extras(DepthNets.of(encoder, decoder, 0.1, 100.0), 64, 96)}


UNKNOWN_TOWER = json.dumps({**CONFIG["encoder"]["config"], "image_tower": "blip"})  # type: ignore[dict-item]
"""What generated descriptions hit upon once in thousands: an architecture that this timm does not have."""


@building
@given(extras)
@example({"hybrid_config": UNKNOWN_TOWER})
def test_any_folder_of_weights_is_opened_or_refused(folder: tuple[Path, dict[str, Any]], more: dict[str, Any]) -> None:
    path, content = folder
    (path / "encoder.pth").unlink(missing_ok=True)
    torch.save({**content, **more}, path / "encoder.pth")
    built = read_or_refuse(lambda: load_depth_model(path), str(path))
    assert built is None or sensible(built.height, built.width, built.min_depth, built.max_depth)
    if read_or_refuse(lambda: is_two_frame(path), str(path)):
        assert read_or_refuse(lambda: load_two_frame_model(path), str(path)) is None  # it has no cost volume


@pytest.fixture(scope="module")
def stage1(tmp_path_factory: pytest.TempPathFactory) -> tuple[HybridEncoder, Path]:
    """A stage-1 encoder and its file."""
    torch.manual_seed(0)
    encoder = create_encoder("tiny", alignment="none", pyramid=False)
    path = tmp_path_factory.mktemp("stage1") / "stage1.pth"
    save_stage1(path, encoder, encoder.config, {"ranking_accuracy": 0.5})
    return encoder, path


@hostile
@given(st.dictionaries(st.sampled_from(["encoder", "config", "figures", ""]), odd), contents)
def test_any_stage_1_file_is_taken_or_refused(
    stage1: tuple[HybridEncoder, Path], outer: dict[str, Any], inner: dict[Any, Any]
) -> None:
    encoder, path = stage1
    tensors = {name: value for name, value in encoder.state_dict().items() if name != "language.tokens"}
    other = path.with_name("other.pth")
    other.unlink(missing_ok=True)
    torch.save({"encoder": {**tensors, **inner}, **outer}, other)
    read_or_refuse(lambda: load_stage1(encoder, other), "other.pth")
    assert all(torch.isfinite(value).all() for value in encoder.state_dict().values())


AUTHORS = {**tiny_encoder(), "clip.token_embedding.weight": torch.zeros(49408, 8)}
AUTHORS_DECODER = tiny_decoder(TINY_RELEASED.replace(num_tokens=5, pyramid=False))
authors_names = st.sampled_from(
    ["clip.token_embedding.weight", "clip.positional_embedding", "dinov2.cls_token", "clip_align_conv.1.weight"]
    + [f"extra_tkns_learnables_depth.{i}" for i in (0, 1, 3, 7, 10**5)]
    + ["extra_tkns_learnables_depth.²", "x", ""]
)
shapes = st.lists(st.sampled_from([0, 1, 2, 5, 32, 64, 69]), max_size=4)


@hostile
@given(st.dictionaries(authors_names, shapes, max_size=3), shapes, st.sets(authors_names, max_size=2))
def test_any_tensors_of_the_authors_are_taken_or_refused(
    changes: dict[str, list[int]], projection: list[int], dropped: set[str]
) -> None:
    tensors = {name: value for name, value in AUTHORS.items() if name not in dropped}
    tensors |= {name: torch.zeros(shape) for name, shape in changes.items()}
    decoder = {**AUTHORS_DECODER}
    if projection:
        decoder["depth_head.projects.0.weight"] = torch.zeros(projection)

    def parse() -> HybridEncoderConfig:
        return read_alignment(read_config(tensors, TINY_RELEASED, "x.pth"), tensors, decoder, "x.pth")

    config = read_or_refuse(parse, "x.pth")
    assert config is None or well_formed(config)
    encoder = _authors_encoder()
    ours = read_or_refuse(lambda: encoder_tensors(tensors, encoder, "x.pth"), "x.pth")
    if ours is not None and "language.tokens" in ours:
        assert ours["language.tokens"].ndim == 2


_encoders: list[HybridEncoder] = []


def _authors_encoder() -> HybridEncoder:
    if not _encoders:
        _encoders.append(HybridEncoder(TINY_RELEASED.replace(num_tokens=5, pyramid=False)))
    return _encoders[0]


# --- runs

STATE = {"step": 2, "epoch": 0, "model": {"w": torch.arange(4.0)}, "identity": {"seed": 0}}


@hostile
@given(
    st.one_of(
        archive_like(saved(STATE), LIGHTNING).map(with_sum),
        edited(with_sum(saved(STATE))),
        odd.map(lambda value: with_sum(saved(value))),
    )
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_state_of_a_run_gives_way_to_the_one_before(tmp_path: Path, content: bytes) -> None:
    if not list(tmp_path.glob("state_*1.pt")):
        save_state(tmp_path, {**STATE, "step": 1}, 1)
    (tmp_path / "state_000000002.pt").write_bytes(content)
    state = load_run_state(tmp_path)
    assert isinstance(state, dict)
    whole = content == with_sum(content[: -len(with_sum(b""))])
    assert whole or state["step"] == 1
    assert not Path(MARKER).exists()


LINE = {"kind": "train", "step": 20, "epoch": 0, "loss": 0.1, "learning_rate": 1e-4, "samples": ["a"], "time": 1.7e9}


@hostile
@given(json_like(LINE))
def test_any_record_of_a_run_is_read_or_left_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / METRICS_FILE).write_bytes(json.dumps(LINE).encode() + b"\n" + content)
    lines = list(read_metrics(tmp_path))
    assert lines[0] == LINE
    for line in lines:
        assert line["step"] >= 0
        assert isinstance(line["kind"], str)


@building
@given(json_like(LINE))
def test_any_record_of_a_run_goes_on(tmp_path: Path, content: bytes) -> None:
    (tmp_path / METRICS_FILE).write_bytes(json.dumps(LINE).encode() + b"\n" + content)
    recorder = Recorder(tmp_path, lines=9)
    recorder.scalars("train", 21, 0, {"loss": 0.2})
    recorder.close()
    assert list(read_metrics(tmp_path))[-1]["step"] == 21
