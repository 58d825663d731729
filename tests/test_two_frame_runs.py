"""Two-frame runs from end to end: train, freeze, resume, save in the original's layout, evaluate, predict."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from hybrid_encoder.commands.convert import convert
from hybrid_encoder.data.calibration import read_intrinsics
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.errors import UserError
from hybrid_encoder.prediction.settings import PredictionSettings
from hybrid_encoder.stage2.checkpoint import load_depth_model
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.stage2.training import build_model as build_single
from hybrid_encoder.stage2.training import train as train_monodepth2
from hybrid_encoder.two_frame.checkpoint import is_two_frame, load_two_frame_model, load_weights
from hybrid_encoder.two_frame.evaluate import evaluate_two_frame
from hybrid_encoder.two_frame.options import ManydepthOptions, TwoFrameEvaluateOptions
from hybrid_encoder.two_frame.predict import predict_two_frame
from hybrid_encoder.two_frame.predictor import TwoFrameModel
from hybrid_encoder.two_frame.training import build_model, train
from hybrid_encoder.weights.reading import read_checkpoint

from .oracle import Original, download

KITTI = Path(__file__).resolve().parents[2] / "shared" / "data" / "kitti_raw"
DRIVE = "2011_09_26/2011_09_26_drive_sfnd_sync"
HERE = Processes(torch.device("cpu"))
SETTINGS: dict[str, Any] = {
    "preset": "tiny",
    "weights_init": "scratch",
    "height": 64,
    "width": 96,
    "num_depth_bins": 8,
    "split": "synthetic",
    "num_workers": 0,
    "batch_size": 2,
    "log_frequency": 1,
    "freeze_teacher_epoch": 1,
    "num_epochs": 2,
}
HYBRID: dict[str, Any] = {"encoder": "hybrid", "teacher_encoder": "hybrid", "pose_model_type": "class_token"}


def options(folder: Path, name: str, **changes: Any) -> ManydepthOptions:
    return ManydepthOptions(log_dir=folder, model_name=name, **{**SETTINGS, **changes})


@pytest.fixture(scope="module")
def run(scenes: Path, module_path: Path) -> ManydepthOptions:
    """Two epochs of the hybrid pair on rendered drives, the teacher frozen in the second."""
    chosen = options(module_path, "hybrid", **HYBRID, data_path=scenes / "kitti")
    metrics = train(chosen, HERE)
    assert {"abs_rel", "teacher_abs_rel", "consistency_mask_share", "confident_share"} <= set(metrics)
    return chosen


@pytest.fixture(scope="module")
def resnets(scenes: Path, module_path: Path) -> ManydepthOptions:
    """One epoch of the ResNet pair, in which the teacher and its pose nets are frozen: the optimiser's state is less by
    200 MB."""
    nets: dict[str, Any] = {"encoder": "resnet", "teacher_encoder": "resnet", "freeze_teacher_epoch": 0}
    chosen = options(module_path, "resnet", **nets, num_epochs=1, data_path=scenes / "kitti")
    train(chosen, HERE)
    return chosen


def test_resumed_run_equals_an_unbroken_one(run: ManydepthOptions) -> None:
    first = dataclasses.replace(run, model_name="resumed", num_epochs=1)
    train(first, HERE)
    train(dataclasses.replace(first, num_epochs=2, resume=True), HERE)
    for name in ("encoder", "depth", "mono_encoder", "mono_depth", "pose"):
        whole, resumed = (read_checkpoint(o.folder / f"models/weights_1/{name}.pth") for o in (run, first))
        assert set(whole) == set(resumed)
        for key, value in whole.items():
            same = torch.equal(value, resumed[key]) if isinstance(value, Tensor) else value == resumed[key]
            assert same, f"{name}: {key}"


def test_teacher_is_frozen_in_the_second_epoch(run: ManydepthOptions) -> None:
    first, second = (run.folder / f"models/weights_{epoch}" for epoch in (0, 1))
    for name, moves in (("encoder", True), ("depth", True), ("mono_encoder", False), ("pose", False)):
        before, after = read_checkpoint(first / f"{name}.pth"), read_checkpoint(second / f"{name}.pth")
        tensors = [key for key, value in before.items() if isinstance(value, Tensor)]
        assert moves == any(not torch.equal(before[key], after[key]) for key in tensors), name


def test_files_are_the_originals(resnets: ManydepthOptions, tmp_path_factory: pytest.TempPathFactory) -> None:
    original = Original("manydepth", download("manydepth", tmp_path_factory.mktemp("manydepth")))
    networks, folder = original.networks, resnets.folder / "models/weights_0"
    entries = read_checkpoint(folder / "encoder.pth")
    assert {"height", "width", "min_depth_bin", "max_depth_bin"} <= set(entries)
    channels = np.array([64, 64, 128, 256, 512])
    theirs = {
        "encoder": networks.ResnetEncoderMatching(18, False, 64, 96, num_depth_bins=8, adaptive_bins=True),
        "depth": networks.DepthDecoder(channels),
        "mono_encoder": networks.ResnetEncoder(18, False),
        "mono_depth": networks.DepthDecoder(channels),
        "pose_encoder": networks.ResnetEncoder(18, False, num_input_images=2),
        "pose": networks.PoseDecoder(channels, num_input_features=1, num_frames_to_predict_for=2),
    }
    for name, net in theirs.items():
        tensors = {k: v for k, v in read_checkpoint(folder / f"{name}.pth").items() if isinstance(v, Tensor)}
        net.load_state_dict(tensors)
    assert (folder / "adam.pth").exists()
    assert (resnets.folder / "models/opt.json").exists()


def test_a_folder_of_the_original_opens(resnets: ManydepthOptions, tmp_path: Path) -> None:
    """It says nothing of decoders or bins but their range."""
    known = ("height", "width", "min_depth_bin", "max_depth_bin")
    source = resnets.folder / "models/weights_0"
    for path in source.glob("*.pth"):
        entries = {k: v for k, v in read_checkpoint(path).items() if isinstance(v, Tensor) or k in known}
        torch.save(entries, tmp_path / path.name)
    frames, K = pair()
    ours, theirs = load_two_frame_model(source), load_two_frame_model(tmp_path)
    assert torch.equal(ours(frames, K), theirs(frames, K))


def pair(count: int = 1) -> tuple[dict[int, Tensor], Tensor]:
    torch.manual_seed(0)
    K = torch.tensor([[56.0, 0, 48], [0, 123, 32], [0, 0, 1]]).repeat(count, 1, 1)
    return {0: torch.rand(count, 3, 64, 96), -1: torch.rand(count, 3, 64, 96)}, K


def test_weights_load_into_a_new_run(run: ManydepthOptions) -> None:
    model = build_model(dataclasses.replace(run, load_weights_folder=run.folder))
    again = build_model(dataclasses.replace(run, seed=5))
    load_weights(run.folder / "models/weights_1", again)
    for (name, value), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    assert float(model.bins.far) != 10
    teacher = build_model(dataclasses.replace(run, mono_weights_folder=run.folder, start_from_teacher=True))
    frames, K = pair()
    poses = torch.eye(4).repeat(1, 1, 1, 1)
    teacher.eval()
    with torch.no_grad():
        two = teacher.net(frames[0], frames[-1][:, None], poses, K)[0]["disp", 0]
        one = teacher.teacher.see(frames[0])[1]["disp", 0]
    torch.testing.assert_close(two, one)
    for (name, value), other in zip(
        teacher.teacher.state_dict().items(), model.teacher.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name


def test_teacher_from_a_single_frame_run(run: ManydepthOptions) -> None:
    shared = {k: v for k, v in SETTINGS.items() if k not in ("num_depth_bins", "freeze_teacher_epoch")}
    mono = Monodepth2Options(
        **{**shared, "num_epochs": 1}, pose_model_type="class_token", data_path=run.data_path, log_dir=run.log_dir,
        model_name="mono",
    )  # fmt: skip
    train_monodepth2(mono, HERE)
    taught = dataclasses.replace(
        run, model_name="taught", mono_weights_folder=mono.folder, freeze_teacher_and_pose=True, num_epochs=1
    )
    train(taught, HERE)
    before = read_checkpoint(mono.folder / "models/weights_0/encoder.pth")
    after = read_checkpoint(taught.folder / "models/weights_0/mono_encoder.pth")
    assert all(torch.equal(value, after[key]) for key, value in before.items() if isinstance(value, Tensor))
    with pytest.raises(UserError, match="does not fit"):
        build_model(dataclasses.replace(taught, teacher_encoder="resnet", pose_model_type="shared"))


def evaluation(run: ManydepthOptions, **changes: Any) -> TwoFrameEvaluateOptions:
    settings = {name: getattr(run, name) for name in ("dataset", "data_path", "split", "height", "width")}
    return TwoFrameEvaluateOptions(**{**settings, "weights": run.folder, "batch_size": 3, **changes})


def test_evaluation_sees_the_frames_before(run: ManydepthOptions) -> None:
    assert is_two_frame(run.folder)
    assert is_two_frame(run.folder / "models/weights_0")
    model = load_two_frame_model(run.folder)
    found = {
        name: evaluate_two_frame(evaluation(run, **changes), model)
        for name, changes in {
            "plain": {},
            "single": {"zero_cost_volume": True},
            "static": {"static_camera": True},
            "mirrored": {"post_process": True},
        }.items()
    }
    for result in found.values():
        assert len(result.rows) == 3
        assert np.isfinite(np.array(result.rows)).all()
    assert len({result.mean for result in found.values()}) == 4
    teacher = load_depth_model(run.folder, "mono_encoder", "mono_depth")
    assert evaluate_two_frame(evaluation(run), teacher).sample_names == found["plain"].sample_names


def test_single_image_has_no_cost_volume(run: ManydepthOptions) -> None:
    model = load_two_frame_model(run.folder)
    frames, K = pair(2)
    alone = model.disparity(frames[0])
    assert torch.equal(alone, model({0: frames[0]}, K))
    black = {0: frames[0], -1: torch.zeros_like(frames[0])}
    torch.testing.assert_close(alone, model(black, K))
    assert not torch.equal(alone, model(frames, K))
    assert alone.shape == (2, 1, 64, 96)


@pytest.mark.parametrize("ids", [(-1,), (-1, -2)])
def test_video_frames_follow_each_other(run: ManydepthOptions, ids: tuple[int, ...]) -> None:
    """In batches of any size."""
    model = load_two_frame_model(run.folder)
    model.matching_ids = ids
    torch.manual_seed(0)
    video = torch.rand(5, 3, 64, 96)
    intrinsics = np.array([[112.0, 0, 96], [0, 246, 64], [0, 0, 1]])
    K = pair()[1]
    frames = [{i: video[n + i : n + i + 1] for i in (0, *ids) if n + i >= 0} for n in range(5)]
    expected = torch.cat([model(each, K) for each in frames])
    for batch in (1, 2, 5):
        predictor = model.video(intrinsics, width=192, height=128)
        found = torch.cat([predictor.disparity(video[start : start + batch]) for start in range(0, 5, batch)])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_prediction(run: ManydepthOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load_two_frame_model(run.folder)
    rng = np.random.default_rng(0)
    pictures = [cv2.GaussianBlur(rng.integers(0, 255, (64, 96, 3), np.uint8), (9, 9), 0) for _ in range(3)]
    writer = cv2.VideoWriter(str(tmp_path / "drive.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 64))
    for n, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{n}.png"), picture)
        writer.write(picture)
    writer.release()
    images = [tmp_path / f"{n}.png" for n in range(3)]
    alone = predict_two_frame(model, images, tmp_path / "alone", PredictionSettings(save_npy=True, progress=False))
    camera = read_intrinsics("56,123,48,32")
    settings = PredictionSettings(save_npy=True, camera=camera, progress=False)
    together = predict_two_frame(model, images, tmp_path / "line", settings, sequence=True)
    assert not caplog.records
    assert len(alone) == len(together) == 12
    for n in range(3):
        depths = [np.load(tmp_path / folder / f"{n}.npy") for folder in ("alone", "line")]
        assert all(np.isfinite(depth).all() for depth in depths)
        difference = float(np.abs(depths[0] - depths[1]).max() / depths[0].max())
        # A net after two steps hardly uses what it matches; rounding alone stays below 1e-6.
        assert (difference < 1e-6) == (n == 0), f"picture {n}: {difference}; the first has none before it"
    tall = [tmp_path / "tall" / f"{n}.png" for n in range(3)]
    tall[0].parent.mkdir()
    for path, picture in zip(tall, pictures, strict=True):  # with a bonnet below, and the same camera
        cv2.imwrite(str(path), np.concatenate([picture, picture[:16]]))
    file = tmp_path / "camera.json"
    file.write_text('{"K": [[56, 0, 48], [0, 123, 32], [0, 0, 1]], "image_size": [96, 80]}')
    cut = dataclasses.replace(settings, camera=read_intrinsics(str(file)), crop_bottom=0.2)
    predict_two_frame(model, tall, tmp_path / "cut", cut, sequence=True)
    for n in range(3):
        np.testing.assert_array_equal(np.load(tmp_path / "cut" / f"{n}.npy"), np.load(tmp_path / "line" / f"{n}.npy"))
    (video,) = predict_two_frame(model, [tmp_path / "drive.mp4"], tmp_path / "video", settings)
    assert video.stat().st_size > 0
    with pytest.raises(UserError, match="--intrinsics"):
        predict_two_frame(model, [tmp_path / "drive.mp4"], tmp_path / "video", PredictionSettings(progress=False))
    images[2].rename(tmp_path / "101.png")
    predict_two_frame(model, [*images[:2], tmp_path / "101.png"], tmp_path / "gap", settings, sequence=True)
    assert [record.args for record in caplog.records] == [("1.png", "101.png")]


def test_no_input_of_a_prediction_is_overwritten(run: ManydepthOptions, tmp_path: Path) -> None:
    model = load_two_frame_model(run.folder)
    for name in ("x.avi", "x_depth.mp4"):
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 64))
        writer.write(np.zeros((64, 96, 3), np.uint8))
        writer.release()
    videos, camera = [tmp_path / "x.avi", tmp_path / "x_depth.mp4"], read_intrinsics("56,123,48,32")
    before = videos[1].read_bytes()
    with pytest.raises(UserError, match="would overwrite an input"):
        predict_two_frame(model, videos, tmp_path, PredictionSettings(camera=camera, progress=False))
    assert videos[1].read_bytes() == before


def test_a_bad_image_of_a_folder_is_named_after_the_others_are_done(run: ManydepthOptions, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "good.png"), np.full((64, 96, 3), 90, np.uint8))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    model = load_two_frame_model(run.folder)
    with pytest.raises(UserError, match=r"1 of 2 files could not be read.*\n.*bad\.png"):
        predict_two_frame(model, [tmp_path], tmp_path / "out", PredictionSettings(progress=False))
    assert (tmp_path / "out" / "good_depth.png").is_file()


@pytest.mark.parametrize(
    "changes",
    [
        {**HYBRID, "decoder": "unet", "teacher_encoder": "resnet", "pose_model_type": "shared"},
        {**HYBRID, "encoder": "resnet", "freeze_teacher_epoch": 0, "dataset": "synthetic", "scenes": 2},
    ],
)
def test_text_supervision_reaches_whatever_has_logits(changes: dict[str, Any], scenes: Path, tmp_path: Path) -> None:
    """A hybrid net with a U-Net; and a frozen hybrid teacher beside a ResNet, where nothing is left to teach."""
    data_path = None if "dataset" in changes else scenes / "kitti"
    metrics = train(options(tmp_path, "text", text_weight=0.1, num_epochs=1, data_path=data_path, **changes), HERE)
    assert np.isfinite(list(metrics.values())).all()
    assert ("text" in metrics) == (changes["encoder"] == "hybrid")


def test_weights_that_mean_other_depths_are_refused(run: ManydepthOptions, tmp_path: Path) -> None:
    other = dataclasses.replace(run, min_depth=0.02, max_depth=20.0)
    for name in ("load_weights_folder", "mono_weights_folder"):
        with pytest.raises(UserError, match=r"encoder\.pth was trained with --min_depth 0\.1"):
            build_model(dataclasses.replace(other, **{name: run.folder}))
    single = Monodepth2Options(**{k: v for k, v in SETTINGS.items() if k in Monodepth2Options.__dataclass_fields__})
    with pytest.raises(UserError, match=r"encoder\.pth is of a two-frame run"):
        build_single(dataclasses.replace(single, load_weights_folder=run.folder))
    with pytest.raises(UserError, match=r"encoder\.pth is of a two-frame run"):
        convert(run.folder, tmp_path / "hub")
    assert convert(run.folder, tmp_path / "hub", teacher=True)


def test_single_frame_weights_are_no_two_frame_ones(resnets: ManydepthOptions, tmp_path: Path) -> None:
    folder = resnets.folder / "models/weights_0"
    entries = read_checkpoint(folder / "encoder.pth")
    torch.save({k: v for k, v in entries.items() if not k.endswith("_bin")}, tmp_path / "encoder.pth")
    assert not is_two_frame(tmp_path)
    assert not is_two_frame("somebody/model")
    with pytest.raises(UserError, match="two-frame"):
        load_two_frame_model(tmp_path)
    with pytest.raises(UserError, match=r"encoder\.pth"):
        load_two_frame_model(tmp_path / "nothing")


@pytest.mark.skipif(not KITTI.is_dir(), reason=f"the real drive is not at {KITTI}")
def test_real_drive(tmp_path: Path) -> None:
    """Train, freeze, resume, evaluate (its first frame has none before it), predict."""
    split = tmp_path / "split"
    split.mkdir()
    for part, frames in {"train": (1, 9, 17, 25), "val": (33,), "test": (0, 40)}.items():
        (split / f"{part}_files.txt").write_text("".join(f"{DRIVE} {frame} l\n" for frame in frames))
    chosen = options(
        tmp_path,
        "kitti",
        **HYBRID,
        dataset="kitti",
        data_path=KITTI,
        split=str(split),
        num_matching_frames=2,
        num_epochs=1,
    )
    train(chosen, HERE)
    metrics = train(dataclasses.replace(chosen, num_epochs=2, resume=True), HERE)
    assert np.isfinite(list(metrics.values())).all()
    model = load_two_frame_model(chosen.folder)
    assert isinstance(model, TwoFrameModel)
    assert model.matching_ids == (-1, -2)
    result = evaluate_two_frame(evaluation(chosen), model)
    assert len(result.rows) == 2
    assert np.isfinite(np.array(result.rows)).all()
    image = KITTI / DRIVE / "image_02" / "data" / "0000000005.jpg"
    assert len(predict_two_frame(model, [image], tmp_path / "out", PredictionSettings(progress=False))) == 3
