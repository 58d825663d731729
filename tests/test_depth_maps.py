"""Stage 1 from depth maps of any model: what their numbers mean, which files they are, and their share beside lanes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from hybrid_encoder.cli import main
from hybrid_encoder.errors import UserError
from hybrid_encoder.stage1.depth_maps import DepthMapSource
from hybrid_encoder.stage1.lanes import TuSimpleSource
from hybrid_encoder.stage1.mixing import MixedSource
from hybrid_encoder.stage1.ordered_points import open_sources

HEIGHT, WIDTH = 60, 90


def metres() -> np.ndarray:
    """(60, 90) depth that ascends from below to above, 4 to 60 m."""
    depth = np.geomspace(60, 4, HEIGHT)[:, None] * np.ones(WIDTH)
    return depth.astype(np.float32)


def write(root: Path, name: str, depth: np.ndarray, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """An image and its depth map below images and depths; the end of `name` is the map's kind of file."""
    image, target = root / "images" / Path(name).with_suffix(".jpg"), root / "depths" / name
    image.parent.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(image), np.full((*size[::-1], 3), 90, np.uint8))
    if target.suffix == ".npy":
        np.save(target, depth)
    else:
        cv2.imwrite(str(target), depth)


def of_kind(kind: str) -> np.ndarray:
    """`metres` as a model of this kind predicts it, with the sky unknown or at infinity."""
    depth = metres()
    if kind == "metric":
        depth[:6] = 0
    elif kind == "relative":
        depth = 0.01 * depth - 0.3  # the nearest are negative
    else:
        depth = 100 / depth - 1
        depth[:6] = 0
    return depth


def as_png(kind: str) -> np.ndarray:
    depth = of_kind(kind)
    if kind == "metric":
        return (depth * 256).astype(np.uint16)
    return ((depth - depth.min()) / (depth.max() - depth.min()) * 65535).astype(np.uint16)


@pytest.mark.parametrize("end", [".npy", ".png"])
@pytest.mark.parametrize("kind", ["metric", "relative", "inverse"])
def test_points_run_from_near_to_far_whatever_the_numbers_mean(kind: str, end: str, tmp_path: Path) -> None:
    write(tmp_path, f"drive/a{end}", as_png(kind) if end == ".png" else of_kind(kind), (2 * WIDTH, 2 * HEIGHT))
    source = open_sources([f"depth:{tmp_path}/images:{tmp_path}/depths:{kind}"], "train", (64, 96))
    assert source.name(0) == "drive/a.jpg"
    image, points = source.read(0, np.random.default_rng(0))
    assert image.shape == (2 * HEIGHT, 2 * WIDTH, 3)
    assert len(points) > 3
    assert (np.diff(points[..., 1]) < 0).all(), "below is near"
    assert points[:, 0, 1].min() > HEIGHT, "the nearest points lie in the lower half of the larger image"
    if kind == "metric":
        assert points[..., 1].min() >= 2 * 6, "the sky is unknown"


def test_wild_and_missing_numbers_do_not_decide(tmp_path: Path) -> None:
    depth = of_kind("relative")
    depth[30, :5] = 1e9
    depth[31, :5] = [np.nan, np.inf, -np.inf, -1e9, np.nan]
    write(tmp_path, "a.npy", depth)
    source = DepthMapSource(tmp_path / "images", tmp_path / "depths", "relative", "train")
    points = source.read(0, np.random.default_rng(0))[1]
    assert len(points) > 3
    unknown = {(0, 31), (1, 31), (2, 31), (4, 31)}
    assert not unknown & {(int(x), int(y)) for x, y in points.reshape(-1, 2)}
    write(tmp_path, "a.npy", np.ones((HEIGHT, WIDTH)))
    assert not len(source.read(0, np.random.default_rng(0))[1]), "a flat map orders nothing"


@pytest.mark.parametrize(
    ("name", "depth", "message"),
    [
        ("a.png", np.zeros((HEIGHT, WIDTH), np.uint8), r"8 bits and 1 channels, expected 16-bit grey"),
        ("a.png", np.zeros((HEIGHT, WIDTH, 3), np.uint16), r"16 bits and 3 channels, .* numpy\.save"),
        ("a.npy", np.zeros((3, HEIGHT, WIDTH)), r"it holds float64 \(3, 60, 90\); expected numbers of shape \(H, W\)"),
        ("a.npy", np.array([[None]]), "it holds object"),
        ("a.npy", np.zeros((HEIGHT, HEIGHT)), "made for images of 60x60, but these are 90x60"),
    ],
)
def test_files_that_are_no_depth_map_are_named(name: str, depth: np.ndarray, message: str, tmp_path: Path) -> None:
    write(tmp_path, name, depth)
    with pytest.raises(UserError, match=message) as raised:
        DepthMapSource(tmp_path / "images", tmp_path / "depths", "metric", "train").read(0, np.random.default_rng(0))
    assert str(tmp_path / "depths" / name) in str(raised.value)


def test_what_the_numbers_mean_has_to_be_said(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, f"{name}.npy", metres())
    for spec in (
        f"depth:{tmp_path}/images:{tmp_path}/depths",
        "depth:",
        f"depth:{tmp_path}/images:{tmp_path}/depths:x",
    ):
        with pytest.raises(UserError, match=r"metric .*, relative .* or inverse"):
            open_sources([spec], "train", (64, 96))
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        open_sources([f"depth:{tmp_path}/images:{tmp_path}/nowhere:metric"], "train", (64, 96))
    (tmp_path / "depths" / "a.npy").rename(tmp_path / "depths" / "a_depth.npy")  # as `predict` calls it
    assert len(open_sources([f"depth:{tmp_path}/images:{tmp_path}/depths:metric"], "train", (64, 96))) == 2
    (tmp_path / "depths" / "a_depth.npy").unlink()
    with pytest.raises(UserError, match=r"(?s)1 depth maps are missing.*a\.npy \(depth of .*a\.jpg\).*--skip_bad 1"):
        open_sources([f"depth:{tmp_path}/images:{tmp_path}/depths:metric"], "train", (64, 96))


def mixed(tmp_path: Path, mix_ratio: float | None) -> MixedSource:
    (tmp_path / "lanes").mkdir(exist_ok=True)
    (tmp_path / "lanes" / "label_data_1.json").write_text(
        "\n".join(f'{{"raw_file": "{i}.jpg", "lanes": [{[9] * 8}], "h_samples": {[*range(8)]}}}' for i in range(4))
    )
    for number in range(21):
        write(tmp_path, f"{number}.npy", metres())
    lanes = TuSimpleSource(tmp_path / "lanes", "train")
    return MixedSource([lanes, DepthMapSource(tmp_path / "images", tmp_path / "depths", "metric", "train")], mix_ratio)


@pytest.mark.parametrize(("ratio", "lanes"), [(None, 3), (0.5, 19), (0.9, 3), (0.2, 76)])
def test_lanes_and_depth_maps_have_their_share(ratio: float | None, lanes: int, tmp_path: Path) -> None:
    """Of 3 images with lanes and 19 with depth; every image is seen, the smaller group several times."""
    source = mixed(tmp_path, ratio)
    found = [source._locate(index) for index in range(len(source))]
    of_lanes = [inner for one, inner in found if isinstance(one, TuSimpleSource)]
    of_depth = [inner for one, inner in found if not isinstance(one, TuSimpleSource)]
    assert (len(of_lanes), set(of_lanes), set(of_depth)) == (lanes, set(range(3)), set(range(19)))
    if ratio:
        assert len(of_depth) / len(found) == pytest.approx(ratio, abs=0.05)


def test_there_has_to_be_something_to_mix(tmp_path: Path) -> None:
    mixed(tmp_path, None)
    depth = f"depth:{tmp_path}/images:{tmp_path}/depths:metric"
    with pytest.raises(UserError, match="nothing to mix, add --data of lanes: tusimple:FOLDER"):
        open_sources([depth], "train", (64, 96), mix_ratio=0.5)
    assert len(open_sources([depth], "val", (64, 96), mix_ratio=0.5)) == 2, "validation sees each image once"


def test_the_command_trains_from_depth_maps_and_lanes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed(tmp_path, None)
    for number in range(4):
        cv2.imwrite(str(tmp_path / "lanes" / f"{number}.jpg"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    depth = f"depth:{tmp_path}/images:{tmp_path}/depths:metric"
    command = ["pretrain", "--preset", "tiny", "--data", depth, "--data", f"tusimple:{tmp_path}/lanes"]
    command += ["--mix_ratio", "0.5", "--height", "32", "--width", "64", "--epochs", "1", "--num_workers", "0"]
    assert main([*command, "--batch_size", "19", "--device", "cpu", "--out", str(tmp_path / "run")]) == 0
    assert "found 38 images to train on, 3 to validate on" in capsys.readouterr().out
    assert (tmp_path / "run" / "stage1.pth").is_file()
