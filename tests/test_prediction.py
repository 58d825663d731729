"""Prediction: which files inputs stand for, what is written for them, and that nothing is written half or twice."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hybrid_encoder.colormap import colorize_depth, colorize_disparity, labelled, side_by_side, tile_grid
from hybrid_encoder.data.calibration import Intrinsics
from hybrid_encoder.data.velodyne import read_depth_png
from hybrid_encoder.data.video import iterate_video, video_info
from hybrid_encoder.errors import UserError
from hybrid_encoder.images import read_image
from hybrid_encoder.model.predictor import predict_disparities
from hybrid_encoder.prediction.inputs import find_inputs, output_stems
from hybrid_encoder.prediction.paths import predict_paths
from hybrid_encoder.prediction.pictures import write_png

UDACITY = Path(__file__).resolve().parents[2] / "shared" / "data" / "udacity"


class GreenModel:
    """Green is near: inverse depth 0.1 + 0.4 x green."""

    height, width, min_depth, max_depth = 32, 64, 0.1, 100.0

    def disparity(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape[1:] == (3, self.height, self.width)
        assert image.dtype == torch.float32
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        return 0.1 + 0.4 * image[:, 1:2]


def write_image(path: Path, height: int = 40, width: int = 90, green: int = 255) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :, 1] = green
    write_png(path, image) if path.suffix == ".png" else cv2.imwrite(str(path), image)
    return path


def write_video(path: Path, frames: int = 12, height: int = 48, width: int = 96) -> Path:
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (width, height))
    assert writer.isOpened()
    for index in range(frames):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[:, width // 2 :, 1] = 100 + 3 * index
        writer.write(frame)
    writer.release()
    return path


def predict(inputs: list[str | Path], out: Path, **options: bool | float | int) -> list[str]:
    return [path.name for path in predict_paths(GreenModel(), inputs, out, progress=False, **options)]  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Images


def test_an_image_gives_colours_depth_and_array_at_its_own_size(tmp_path: Path) -> None:
    image = write_image(tmp_path / "street.png")
    written = predict([image], tmp_path / "out", save_npy=True)
    assert written == ["street_disp.png", "street_depth.png", "street.npy"]
    assert names(tmp_path / "out") == sorted(written)
    colours = read_image(tmp_path / "out" / "street_disp.png")
    assert colours.shape == (40, 90, 3)
    assert colours[:, -1].mean() > 150 > 40 > colours[:, 0].mean()
    depth = np.load(tmp_path / "out" / "street.npy")
    assert (depth.shape, depth.dtype) == ((40, 90), np.float32)
    assert depth[20, 5] == pytest.approx(10, rel=1e-4)
    assert depth[20, 85] == pytest.approx(2, rel=1e-4)
    assert np.abs(read_depth_png(tmp_path / "out" / "street_depth.png") - depth).max() <= 1 / 512 + 1e-6


def test_coarse_depth_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Steps of 1/256 are much where depth ends at a third of a unit."""
    image = write_image(tmp_path / "a.png")
    small = {"scale_factor": 1e-4}
    for settings, told in ((small, True), ({**small, "save_npy": True}, False), ({"scale_factor": 5.4}, False)):
        predict([image], tmp_path / "out", **settings)
        assert ("--npy" in capsys.readouterr().err) == told
    for factor in (-1.0, 0.0, float("nan")):
        with pytest.raises(UserError, match="--scale_factor"):
            predict([image], tmp_path / "out", scale_factor=factor)


def test_scale_factor_multiplies_depth(tmp_path: Path) -> None:
    predict([write_image(tmp_path / "a.png")], tmp_path / "out", scale_factor=5.4)
    assert read_depth_png(tmp_path / "out" / "a_depth.png")[20, 5] == pytest.approx(54, abs=0.01)


def test_crop_bottom_leaves_the_rows_above(tmp_path: Path) -> None:
    """A bonnet that is as near as can be changes nothing above it, and is not written."""
    street, bonnet = np.zeros((40, 90, 3), np.uint8), np.full((10, 90, 3), 255, np.uint8)
    write_png(tmp_path / "a.png", np.concatenate([street, bonnet]))
    predict([tmp_path / "a.png"], tmp_path / "out", save_npy=True, crop_bottom=0.2)
    depth = np.load(tmp_path / "out" / "a.npy")
    assert depth.shape == (40, 90)
    assert np.allclose(depth, 10)
    with pytest.raises(UserError, match="crop_bottom 7: expected a part of the height"):
        predict([tmp_path / "a.png"], tmp_path / "out", crop_bottom=7)
    with pytest.raises(UserError, match=r"^crop_bottom 7"):  # no fault of the folder's files
        predict([tmp_path], tmp_path / "out", crop_bottom=7)


def test_images_of_different_sizes_share_batches() -> None:
    images = [np.full((h, w, 3), 255, np.uint8) for h, w in ((32, 64), (100, 30), (375, 1242))]
    disparities = predict_disparities(GreenModel(), images)
    assert disparities.shape == (3, 32, 64)
    assert np.allclose(disparities, 0.5)


def test_a_model_of_another_shape_is_noticed() -> None:
    class Half(GreenModel):
        def disparity(self, image: torch.Tensor) -> torch.Tensor:
            return image[:, :1, ::2, ::2]

    with pytest.raises(ValueError, match="disparity of shape"):
        predict_disparities(Half(), [np.zeros((9, 9, 3), np.uint8)])


def test_folders_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        write_image(tmp_path / f"frame_{number}.png")
    for given in (tmp_path, str(tmp_path / "*.png")):
        assert [file.path.stem for file in find_inputs([given])] == ["frame_1", "frame_9", "frame_10"]


def test_lens_distortion_is_taken_out(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    ramp = np.arange(96, dtype=np.uint8)[None, :, None] * np.array([0, 2, 0], np.uint8)
    write_png(image, np.repeat(ramp, 64, axis=0))
    K = np.array([[90.0, 0, 48], [0, 90, 32], [0, 0, 1]])
    camera = Intrinsics(K, (96, 64), np.array([-0.3, 0, 0, 0, 0]))
    predict_paths(GreenModel(), [image], tmp_path / "out", save_npy=True, camera=camera, progress=False)
    straight = cv2.undistort(read_image(image), K, camera.distortion)
    write_png(tmp_path / "b.png", straight)
    predict([tmp_path / "b.png"], tmp_path / "out", save_npy=True)
    depths = [np.load(tmp_path / "out" / f"{name}.npy") for name in "ab"]
    assert np.abs(depths[0] / depths[1] - 1).max() < 0.02
    predict([image], tmp_path / "as_is", save_npy=True)
    assert np.abs(np.load(tmp_path / "as_is" / "a.npy") / depths[1] - 1).max() > 0.05
    with pytest.raises(UserError, match="other proportions"):
        predict_paths(GreenModel(), [write_image(tmp_path / "c.png", 64, 80)], tmp_path, camera=camera, progress=False)


def test_weights_that_are_spoilt_are_noticed(tmp_path: Path) -> None:
    class Spoilt(GreenModel):
        def disparity(self, image: torch.Tensor) -> torch.Tensor:
            return super().disparity(image) * float("nan")

    for given in (write_image(tmp_path / "a.png"), write_video(tmp_path / "v.mp4")):
        with pytest.raises(UserError, match="not finite"):
            predict_paths(Spoilt(), [given], tmp_path / "out", progress=False)
    assert not any((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_holds_an_image(size: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--batch_size"):
        predict([write_image(tmp_path / "a.png")], tmp_path / "out", batch_size=size)


def test_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "sub/c.png"):
        write_image(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    (tmp_path / "in" / ".hidden.png").write_bytes(b"")
    found = find_inputs([tmp_path / "in", tmp_path / "in" / "a.jpg"])
    assert [(file.path.name, file.named) for file in found] == [("a.jpg", False), ("b.png", False)]
    assert [file.path.name for file in find_inputs([str(tmp_path / "in" / "**" / "*.png")])] == ["b.png", "c.png"]
    assert predict([tmp_path / "in"], tmp_path / "out") == [
        "a_disp.png",
        "a_depth.png",
        "b_disp.png",
        "b_depth.png",
    ]


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path: Path) -> None:
    image = write_image(tmp_path / "frame[1].png")
    assert [file.path for file in find_inputs([image])] == [image]


@pytest.mark.parametrize(
    ("given", "message"),
    [("nowhere.jpg", "no such file"), ("*.jpg", "no image or video"), ("empty", "no image"), ("notes.txt", "no image")],
)
def test_inputs_that_give_nothing(tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=message):
        predict([tmp_path / given], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_input_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to predict"):
        predict([], tmp_path / "out")


def test_output_names_never_collide() -> None:
    def stems(*paths: str) -> list[str]:
        return output_stems([Path(path) for path in paths])

    assert stems("/d/a.png", "/d/b.png") == ["a", "b"]
    assert stems("/d/a.png", "/d/a.jpg") == ["a_png", "a_jpg"]
    assert stems("/d/x/0.png", "/d/y/0.png") == ["x_0", "y_0"]
    assert stems("/x/data/0.png", "/y/data/0.png", "/y/data/1.png") == ["x_data_0", "y_data_0", "1"]
    assert stems("/d/a.png", "/e/A.png") == ["d_a", "e_A"]
    assert stems("/d/x/0.png", "/d/y/0.png", "/d/x_0.png") == ["x_0", "y_0", "x_0_2"]
    many = stems("/d/x/0.png", "/d/x/0.jpg", "/d/y/0.png", "/x/0.png", "/x_0.png", "/x_0_2.png")
    assert len({stem.casefold() for stem in many}) == 6


def test_same_stems_are_all_written(tmp_path: Path) -> None:
    paths: list[str | Path] = [
        write_image(tmp_path / folder / "0.png", green=g) for folder, g in (("x", 255), ("y", 50))
    ]
    predict(paths, tmp_path / "out")
    assert names(tmp_path / "out") == ["x_0_depth.png", "x_0_disp.png", "y_0_depth.png", "y_0_disp.png"]
    near = [read_depth_png(tmp_path / "out" / f"{folder}_0_depth.png")[20, 85] for folder in "xy"]
    assert near == pytest.approx([2, 1 / (0.1 + 0.4 * 50 / 255)], abs=0.01)


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    predict([tmp_path], tmp_path)
    before = (tmp_path / "a_disp.png").read_bytes()
    with pytest.raises(UserError, match=r"a_disp\.png would overwrite an input"):
        predict([tmp_path], tmp_path)
    assert (tmp_path / "a_disp.png").read_bytes() == before


def test_an_unreadable_named_image_stops_the_run(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(write_image(tmp_path / "whole.jpg").read_bytes()[:300])
    with pytest.raises(UserError, match=r"broken\.jpg"):
        predict([broken], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unreadable_images_of_a_folder_are_named_after_the_others_are_done(tmp_path: Path) -> None:
    whole = write_image(tmp_path / "in" / "b.jpg")
    (tmp_path / "in" / "a.jpg").write_bytes(whole.read_bytes()[:300])
    with pytest.raises(UserError, match=r"(?s)1 of 2 files could not be read.*a\.jpg"):
        predict([tmp_path / "in"], tmp_path / "out")
    assert names(tmp_path / "out") == ["b_depth.png", "b_disp.png"]


def test_an_output_folder_that_is_a_file(tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png")
    with pytest.raises(UserError, match="cannot make the folder"):
        predict([image], image)


# Videos


def test_a_video_keeps_its_frames_and_doubles_its_width(tmp_path: Path) -> None:
    video = write_video(tmp_path / "drive.mp4")
    assert predict([video], tmp_path / "out", batch_size=5) == ["drive_depth.mp4"]
    assert names(tmp_path / "out") == ["drive_depth.mp4"]
    frames = list(iterate_video(tmp_path / "out" / "drive_depth.mp4"))
    assert len(frames) == 12
    assert frames[0].shape == (48, 192, 3)
    assert video_info(tmp_path / "out" / "drive_depth.mp4").fps == pytest.approx(10)
    source = list(iterate_video(video))
    assert np.abs(frames[3][:, :96].astype(int) - source[3].astype(int)).mean() < 12
    assert frames[3][:, 100:130].mean() < 60 < 120 < frames[3][:, 160:].mean()


def test_crop_bottom_of_a_video(tmp_path: Path) -> None:
    predict([write_video(tmp_path / "drive.mp4")], tmp_path / "out", crop_bottom=0.25)
    assert next(iterate_video(tmp_path / "out" / "drive_depth.mp4")).shape == (36, 192, 3)


@pytest.mark.parametrize("name", ["drive.mp4", "drive.avi"])  # one fails at the start, the other half-way
def test_a_damaged_video_leaves_nothing(tmp_path: Path, name: str) -> None:
    video = write_video(tmp_path / name, frames=40)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(UserError, match=name):
        predict([video], tmp_path / "out")
    assert not (tmp_path / "out").exists() or names(tmp_path / "out") == []


def test_an_older_output_survives_a_failure(tmp_path: Path) -> None:
    class Failing(GreenModel):
        def disparity(self, image: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of memory")

    video = write_video(tmp_path / "drive.mp4")
    predict([video], tmp_path / "out")
    before = (tmp_path / "out" / "drive_depth.mp4").read_bytes()
    with pytest.raises(RuntimeError, match="out of memory"):
        predict_paths(Failing(), [video], tmp_path / "out", progress=False)
    assert names(tmp_path / "out") == ["drive_depth.mp4"]
    assert (tmp_path / "out" / "drive_depth.mp4").read_bytes() == before


@pytest.mark.skipif(not UDACITY.is_dir(), reason="the Udacity videos of shared/data are not on this machine")
def test_a_real_video(tmp_path: Path) -> None:
    predict([UDACITY / "test_small1.mp4"], tmp_path)
    frames = 0
    for frame in iterate_video(tmp_path / "test_small1_depth.mp4"):
        assert frame.shape == (720, 2560, 3)
        frames += 1
    assert frames == 88


# Pictures


def test_colours_run_from_dark_far_to_bright_near() -> None:
    ramp = np.linspace(0.01, 1, 256, dtype=np.float32)[None].repeat(4, 0)
    picture = colorize_disparity(ramp)
    assert picture.dtype == np.uint8
    assert np.all(np.diff(picture[0].astype(int).sum(-1)) >= -2)
    assert picture[0, -1, 0] > picture[0, -1, 2], "RGB: magma ends in yellow"
    assert np.array_equal(colorize_disparity(ramp, (0.0, 2.0))[:, 0], colorize_disparity(ramp, (0.0, 3.0))[:, 0])
    assert colorize_disparity(np.full((2, 2), 0.3)).shape == (2, 2, 3)


def test_depth_pictures_share_the_scale_of_disparity_and_leave_unknown_black() -> None:
    depth = np.array([[0.0, 2.0, 50.0]], np.float32)
    picture = colorize_depth(depth, (0.02, 0.5))
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert np.array_equal(picture[:, 1:], colorize_disparity(1 / depth[:, 1:], (0.02, 0.5)))
    assert not colorize_depth(np.zeros((3, 3))).any()


def test_tiles() -> None:
    image = np.full((20, 40, 3), 100, np.uint8)
    assert side_by_side(image, np.zeros((40, 80, 3), np.uint8)).shape == (20, 80, 3)
    assert labelled(image, "left").shape == (38, 40, 3)
    assert labelled(image, "left")[:18].max() > 100, "the label is legible"
    assert tile_grid([("a", image), ("b", image[:10]), ("c", image)], columns=2).shape == (76, 80, 3)
    with pytest.raises(ValueError, match="at least one"):
        tile_grid([], columns=2)
