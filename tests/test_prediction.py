"""Prediction: which files inputs stand for, what is written for them, and that nothing is written half or twice."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from hybrid_encoder.colormap import (
    colorize_depth,
    colorize_disparity,
    labelled,
    side_by_side,
    tile_grid,
    write_picture,
)
from hybrid_encoder.data.calibration import Intrinsics
from hybrid_encoder.data.depth_files import read_depth
from hybrid_encoder.data.video import iterate_video, video_info
from hybrid_encoder.errors import UserError
from hybrid_encoder.images import read_image
from hybrid_encoder.model.predictor import predict_disparities
from hybrid_encoder.prediction.inputs import find_inputs, output_stems
from hybrid_encoder.prediction.paths import predict_paths
from hybrid_encoder.prediction.settings import PredictionSettings
from hybrid_encoder.prediction.video import bounded_rate, usable_codec

from .videos import announce_longer, pause, trim, write_video

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
    write_picture(path, image) if path.suffix == ".png" else cv2.imwrite(str(path), image)
    return path


QUIET = PredictionSettings(progress=False, pairs=False)


def predict(inputs: list[str | Path], out: Path, **options: Any) -> list[str]:
    return [path.name for path in predict_paths(GreenModel(), inputs, out, replace(QUIET, **options))]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Images


def test_flat_depth_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    images = [write_image(tmp_path / "in" / "black.png", green=0), write_image(tmp_path / "in" / "street.png")]
    predict(images, tmp_path / "out")
    assert "flat depth maps, with one depth everywhere: 1. " in capsys.readouterr().err
    predict(images[1:], tmp_path / "out")
    assert "flat" not in capsys.readouterr().err


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
    assert np.abs(read_depth(tmp_path / "out" / "street_depth.png") - depth).max() <= 1 / 512 + 1e-6


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
    assert read_depth(tmp_path / "out" / "a_depth.png")[20, 5] == pytest.approx(54, abs=0.01)


def test_crop_bottom_leaves_the_rows_above(tmp_path: Path) -> None:
    """A bonnet that is as near as can be changes nothing above it, and is not written."""
    street, bonnet = np.zeros((40, 90, 3), np.uint8), np.full((10, 90, 3), 255, np.uint8)
    write_picture(tmp_path / "a.png", np.concatenate([street, bonnet]))
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
    write_picture(image, np.repeat(ramp, 64, axis=0))
    K = np.array([[90.0, 0, 48], [0, 90, 32], [0, 0, 1]])
    camera = Intrinsics(K, (96, 64), np.array([-0.3, 0, 0, 0, 0]))
    predict_paths(GreenModel(), [image], tmp_path / "out", replace(QUIET, save_npy=True, camera=camera))
    straight = cv2.undistort(read_image(image), K, camera.distortion)
    write_picture(tmp_path / "b.png", straight)
    predict([tmp_path / "b.png"], tmp_path / "out", save_npy=True)
    depths = [np.load(tmp_path / "out" / f"{name}.npy") for name in "ab"]
    assert np.abs(depths[0] / depths[1] - 1).max() < 0.02
    predict([image], tmp_path / "as_is", save_npy=True)
    assert np.abs(np.load(tmp_path / "as_is" / "a.npy") / depths[1] - 1).max() > 0.05
    with pytest.raises(UserError, match="other proportions"):
        predict_paths(GreenModel(), [write_image(tmp_path / "c.png", 64, 80)], tmp_path, replace(QUIET, camera=camera))


def test_weights_that_are_spoilt_are_noticed(tmp_path: Path) -> None:
    class Spoilt(GreenModel):
        def disparity(self, image: torch.Tensor) -> torch.Tensor:
            return super().disparity(image) * float("nan")

    for given in (write_image(tmp_path / "a.png"), write_video(tmp_path / "v.mp4")):
        with pytest.raises(UserError, match="not finite"):
            predict_paths(Spoilt(), [given], tmp_path / "out", QUIET)
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
    near = [read_depth(tmp_path / "out" / f"{folder}_0_depth.png")[20, 85] for folder in "xy"]
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
    for out in (image, image / "out"):
        with pytest.raises(UserError, match=r"cannot make the folder .*a\.png is a file. Choose another"):
            predict([image], out)


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


def test_a_video_that_cannot_be_opened_leaves_nothing(tmp_path: Path) -> None:
    video = write_video(tmp_path / "drive.mp4", frames=40)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(UserError, match=r"drive\.mp4 cannot be opened"):
        predict([video], tmp_path / "out")
    assert not (tmp_path / "out").exists() or names(tmp_path / "out") == []


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_of_a_video_that_is_cut_off_the_frames_that_are_there_are_kept(tmp_path: Path, suffix: str) -> None:
    video = write_video(tmp_path / f"drive{suffix}", frames=40)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(
        UserError, match=r"(?s)drive\.\w+ ends after \d+ of 40 frames.*before that are in .*drive_depth"
    ) as told:
        predict([video], tmp_path / "out")
    count = int(str(told.value).split("ends after ")[1].split()[0])
    assert 5 < count < 30
    assert names(tmp_path / "out") == ["drive_depth.mp4"]
    assert len(list(iterate_video(tmp_path / "out" / "drive_depth.mp4"))) == count


def test_announced_lengths_are_estimates(tmp_path: Path) -> None:
    """MKV and WebM hold no number of frames, and a trimmed MP4 counts frames that are not shown."""
    whole = {
        write_video(tmp_path / "plain.webm"): 12,
        announce_longer(write_video(tmp_path / "longer.mkv"), 3): 12,
        trim(write_video(tmp_path / "trimmed.mp4", frames=40), 1500): 15,
    }
    for video, frames in whole.items():
        predict([video], tmp_path / "out")
        assert len(list(iterate_video(tmp_path / "out" / f"{video.stem}_depth.mp4"))) == frames


def test_a_pause_lasts_as_long_as_in_the_source(tmp_path: Path) -> None:
    """The output has one rate: a frame is repeated until the next one is due."""
    predict([pause(write_video(tmp_path / "drive.mkv"), 6, 12, 2000)], tmp_path / "out")
    info = video_info(tmp_path / "out" / "drive_depth.mp4")
    assert info.fps == pytest.approx(10)
    frames = [frame[:, 50:94].astype(int) for frame in iterate_video(tmp_path / "out" / "drive_depth.mp4")]
    assert len(frames) == 12 + 20
    assert np.abs(frames[6] - frames[25]).mean() < 1 < np.abs(frames[25] - frames[31]).mean()


@pytest.mark.parametrize("fps", [230.562, 23.976, 1000 / 7])
@pytest.mark.parametrize("codec", ["browser", "mpeg4"])
def test_any_rate_is_written(tmp_path: Path, fps: float, codec: str) -> None:
    """MPEG-4 stores a rate as a fraction of numbers below 65536."""
    predict([write_video(tmp_path / "drive.avi", fps=fps)], tmp_path / "out", video_codec=codec)
    info = video_info(tmp_path / "out" / "drive_depth.mp4")
    assert (info.frames, info.fps) == (12, pytest.approx(fps, rel=1e-3))
    assert bounded_rate(fps) == pytest.approx(fps, rel=1e-4)


def test_wide_and_tiny_frames(tmp_path: Path) -> None:
    """Two frames of 4096 columns side by side are wider than MPEG-4 can be."""
    for size, expected in (((64, 4096), (63, 8190)), ((2, 16), (2, 32))):
        video = write_video(tmp_path / f"{size[1]}.mp4", 3, size)
        predict([video], tmp_path / "out", crop_bottom=0.6 if size[0] == 2 else 0.0, video_codec="mpeg4")
        frames = list(iterate_video(tmp_path / "out" / f"{size[1]}_depth.mp4"))
        assert len(frames) == 3
        assert frames[0].shape[1] == expected[1]
        assert frames[0].shape[0] in (expected[0], expected[0] - 1)


def test_videos_open_in_a_browser_where_opencv_can_write_them(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    trial = cv2.VideoWriter(str(tmp_path / "trial.mp4"), cv2.VideoWriter.fourcc(*"vp09"), 10, (64, 48))
    can, _ = trial.isOpened(), trial.release()
    video = write_video(tmp_path / "drive.mp4")
    capfd.readouterr()
    predict([video], tmp_path / "out")
    assert capfd.readouterr().err == "", "codecs that this OpenCV lacks are tried without a word"
    code = round(cv2.VideoCapture(str(tmp_path / "out" / "drive_depth.mp4")).get(cv2.CAP_PROP_FOURCC))
    name = code.to_bytes(4, "little").decode().lower()
    assert name in (("avc1", "h264", "vp09", "vp90") if can else ("avc1", "h264", "fmp4", "mp4v"))
    assert usable_codec(("none", "mp4v"), 10.0, (64, 48)) == "mp4v"


class FullDisk:
    """A `cv2.VideoWriter` whose pictures do not arrive; like the true one it says nothing."""

    fourcc = cv2.VideoWriter.fourcc

    def __init__(self, *arguments: Any) -> None:
        self.opened = arguments

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def write(self, picture: np.ndarray) -> None:
        self.lost = picture

    def release(self) -> None:
        self.opened = ()


def test_a_video_that_is_not_written_whole_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV's writer says nothing of a full disk."""
    video = write_video(tmp_path / "drive.mp4")
    monkeypatch.setattr(cv2, "VideoWriter", FullDisk)
    with pytest.raises(UserError, match=r"drive_depth\.mp4 could not be written .* free some space"):
        predict([video], tmp_path / "out", video_codec="mpeg4")
    assert names(tmp_path / "out") == []


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """OpenCV crashes on them."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    write_picture(folder / os.fsdecode(b"\xfc.png"), np.zeros((20, 30, 3), np.uint8))
    write_video(tmp_path / "drive.mp4").rename(folder / os.fsdecode(b"\xff.mp4"))
    written = predict([folder], folder / "out")
    assert sorted(map(os.fsencode, written)) == [b"\xfc_depth.png", b"\xfc_disp.png", b"\xff_depth.mp4"]
    assert len(list(iterate_video(folder / "out" / os.fsdecode(b"\xff_depth.mp4")))) == 12


def test_a_colon_in_the_name_of_a_video_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "drive.mp4").rename(tmp_path / "12:30.mp4")
    monkeypatch.chdir(tmp_path)
    assert predict(["12:30.mp4"], Path("out:1")) == ["12:30_depth.mp4"]


def test_outputs_that_cannot_be_written_are_named_after_the_others_are_done(tmp_path: Path) -> None:
    long = "b" * 250  # legal with .png, but not with _depth.png
    for name in "abcd":
        write_image(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "b.png").rename(tmp_path / "in" / f"{long}.png")
    for name in ("v.mp4", "w.mp4"):
        write_video(tmp_path / "in" / name)
    for folder in ("c_disp.png", "v_depth.mp4"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    with pytest.raises(UserError, match=r"(?s)3 of 6 files could not be .*bbb.*c_disp\.png.*v_depth\.mp4"):
        predict([tmp_path / "in"], tmp_path / "out", batch_size=2, video_codec="mpeg4")
    written = [name for name in names(tmp_path / "out") if (tmp_path / "out" / name).is_file()]
    assert written == ["a_depth.png", "a_disp.png", "d_depth.png", "d_disp.png", "w_depth.mp4"]


def test_a_full_disk_stops_the_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        write_image(tmp_path / "in" / f"{name}.png")
    tried = []

    def full(path: Path, data: object) -> None:
        tried.append(path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"a_disp\.png could not be written .* free some space"):
        predict([tmp_path / "in"], tmp_path / "out", batch_size=1)
    assert len(tried) == 1
    assert names(tmp_path / "out") == []


def test_an_older_output_survives_a_failure(tmp_path: Path) -> None:
    class Failing(GreenModel):
        def disparity(self, image: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of memory")

    video = write_video(tmp_path / "drive.mp4")
    predict([video], tmp_path / "out")
    before = (tmp_path / "out" / "drive_depth.mp4").read_bytes()
    with pytest.raises(RuntimeError, match="out of memory"):
        predict_paths(Failing(), [video], tmp_path / "out", QUIET)
    assert names(tmp_path / "out") == ["drive_depth.mp4"]
    assert (tmp_path / "out" / "drive_depth.mp4").read_bytes() == before


@pytest.mark.skipif(not UDACITY.is_dir(), reason="the Udacity videos of shared/data are not on this machine")
def test_a_real_video(tmp_path: Path) -> None:
    predict([UDACITY / "test_small1.mp4"], tmp_path, video_codec="mpeg4")  # VP9 takes a second for each frame
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
