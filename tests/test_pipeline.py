"""The command line end to end on small inputs: both stages, resuming, evaluation, prediction, and what bad input
ends in."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hybrid_encoder import UserError, create_encoder
from hybrid_encoder.cli import main
from hybrid_encoder.data.ground_truth import export_ground_truth
from hybrid_encoder.data.splits import read_split
from hybrid_encoder.data.velodyne import improved_depth_path
from hybrid_encoder.engine.record import read_metrics
from hybrid_encoder.prediction.pictures import write_depth_png
from hybrid_encoder.stage2.evaluate import chosen_crop
from hybrid_encoder.stage2.options import EvaluateOptions

SMALL = ["--height", "64", "--width", "96", "--batch_size", "2", "--num_workers", "0", "--device", "cpu"]
TINY = ["--preset", "tiny"]


def pretrain(data: str, out: Path, *more: str) -> int:
    return main(["pretrain", "--data", data, "--out", str(out), "--epochs", "1", *TINY, *SMALL, *more])


def train(data: Path, runs: Path, *more: str) -> int:
    """Poses come from class tokens unless told otherwise: the weights and optimiser of a pose ResNet, saved three times
    a run, are 400 MB."""
    arguments = ["--data_path", str(data), "--split", "synthetic", "--log_dir", str(runs), "--num_epochs", "1"]
    arguments += ["--weights_init", "scratch", "--pose_model_type", "class_token"]
    return main(["train", "monodepth2", *arguments, *TINY, *SMALL, *more])


def evaluate(data: Path, weights: Path, *more: str) -> int:
    arguments = ["--weights", str(weights), "--data_path", str(data), "--split", "synthetic", "--device", "cpu"]
    return main(["evaluate", *arguments, *more])


@pytest.fixture(scope="module")
def stage1(scenes: Path, module_path: Path) -> Path:
    out = module_path / "stage1"
    assert pretrain(f"tusimple:{scenes / 'tusimple'}", out) == 0
    return out


@pytest.fixture(scope="module")
def run(scenes: Path, stage1: Path, module_path: Path) -> Path:
    more = ["--stage1", str(stage1 / "stage1.pth"), "--pose_model_type", "separate_resnet"]
    assert train(scenes / "kitti", module_path, *more) == 0
    return module_path / "mdp"


def test_stage1_leaves_weights_figures_and_pictures(stage1: Path) -> None:
    content = torch.load(stage1 / "stage1.pth", weights_only=True)
    assert json.loads(content["config"])["clip"] == "tiny"
    metrics = json.loads((stage1 / "metrics.json").read_text())
    assert 0 <= metrics["ranking_accuracy"] <= 1
    assert metrics["kendall_tau"] == pytest.approx(2 * metrics["ranking_accuracy"] - 1)
    assert np.array(metrics["confusion"]).shape == (7, 7)
    assert {line["kind"] for line in read_metrics(stage1)} == {"train", "val"}
    picture = cv2.imread(str(stage1 / "pictures" / "closeness_0.jpg"))
    assert picture.shape == (277, 3 * 384, 3)
    assert list((stage1 / "tensorboard").glob("events*"))


@pytest.mark.parametrize("source", ["kitti:{}/kitti", "synthetic:{}"])
def test_stage1_from_depth(source: str, scenes: Path, tmp_path: Path) -> None:
    assert pretrain(source.format(scenes), tmp_path / "out", "--bidirectional", "--region", "--margin", "1") == 0


def test_stage1_of_fewer_images_than_a_batch(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert pretrain(f"tusimple:{scenes / 'tusimple'}", tmp_path / "out", "--batch_size", "1000") == 0
    assert "in place of 1000" in capsys.readouterr().out


def test_stage2_writes_the_originals_layout(run: Path) -> None:
    folder = run / "models" / "weights_0"
    names = ("encoder", "depth", "pose_encoder", "pose", "adam")
    assert {f.name for f in folder.iterdir()} == {f"{name}.pth" for name in names}
    encoder = torch.load(folder / "encoder.pth", weights_only=True)
    assert (encoder["height"], encoder["width"], encoder["use_stereo"]) == (64, 96, False)
    assert (run / "models" / "opt.json").exists()
    assert (run / "models" / "weights_best" / "encoder.pth").exists()


def test_stage2_starts_from_stage1(stage1: Path, scenes: Path, tmp_path: Path) -> None:
    assert train(scenes / "kitti", tmp_path, "--stage1", str(stage1 / "stage1.pth"), "--learning_rate", "0") == 0
    trained = torch.load(stage1 / "stage1.pth", weights_only=True)["encoder"]
    started = torch.load(tmp_path / "mdp/models/weights_0/encoder.pth", weights_only=True)
    assert torch.equal(started["fusion.project.1.weight"], trained["fusion.project.1.weight"])
    assert torch.equal(started["image_tower.layer4.0.conv3.weight"], trained["image_tower.layer4.0.conv3.weight"])
    assert _pictures(stage1) == ["patches_and_closeness"]
    assert "closeness_by_language" in _pictures(tmp_path / "mdp"), "stage 1 says how its patches were ranked"


def _pictures(run: Path) -> list[str]:
    """The names of the pictures that TensorBoard shows of a run."""
    events = EventAccumulator(str(run / "tensorboard" / "pictures"))
    events.Reload()
    names: list[str] = events.Tags()["images"]
    return names


def test_evaluate_prints_the_seven_metrics(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table = tmp_path / "rows.csv"
    assert evaluate(scenes / "kitti", run, "--csv", str(table), "--post_process") == 0
    out = capsys.readouterr().out
    assert "abs_rel" in out
    assert "a3" in out
    assert len(table.read_text().splitlines()) > 1
    truth = tmp_path / "gt.npz"
    common = ["--data_path", str(scenes / "kitti"), "--split", "synthetic"]
    assert main(["export-gt", *common, "--out", str(truth)]) == 0
    capsys.readouterr()
    assert evaluate(scenes / "kitti", run) == 0
    direct = capsys.readouterr().out
    assert evaluate(scenes / "kitti", run, "--truth", str(truth)) == 0
    assert capsys.readouterr().out == direct


def test_predict_keeps_the_inputs_size(run: Path, scenes: Path, tmp_path: Path) -> None:
    image = next((scenes / "kitti").rglob("image_02/data/*.jpg"))
    assert main(["predict", str(image), "--weights", str(run), "--out", str(tmp_path), "--npy", "--device", "cpu"]) == 0
    assert cv2.imread(str(next(tmp_path.glob("*_disp.png")))).shape == (96, 320, 3)
    depth = np.load(next(tmp_path.glob("*.npy")))
    assert depth.shape == (96, 320)
    assert 0.1 <= depth.min() <= depth.max() <= 100


def test_convert_and_load_from_python(run: Path, tmp_path: Path) -> None:
    from hybrid_encoder import DepthModel

    assert main(["convert", str(run), "--out", str(tmp_path / "hub")]) == 0
    image = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    depth = DepthModel.from_pretrained(tmp_path / "hub").predict(image)
    assert depth.shape == (80, 120)


@pytest.mark.parametrize(
    "options",
    [
        ["--encoder", "resnet", "--pose_model_type", "shared", "--scales", "0", "2"],
        ["--decoder", "unet", "--pose_model_type", "shared"],
        ["--pose_model_type", "class_token", "--scales", "0", "1", "2", "3", "--text_weight", "0.01"],
        ["--pose_model_type", "posecnn", "--encoder_option", "stride4_skip=false"],
        ["--head", "relu", "--avg_reprojection", "--disable_automasking", "--no_ssim", "--crop_bottom", "0.1"],
        ["--precision", "bf16", "--accumulate", "2", "--clip_grad", "1", "--encoder_lr", "1e-5", "--height", "32"],
        ["--encoder_option", "alignment=replace", "--encoder_option", "train_dino_blocks=1", "--frame_ids", "0", "1"],
    ],
    ids=" ".join,
)
def test_every_mode_trains_loads_and_evaluates(options: list[str], scenes: Path, tmp_path: Path) -> None:
    """Plain ResNets with a pose ResNet are in test_scale.py and test_gpu.py."""
    assert train(scenes / "kitti", tmp_path, *options) == 0
    assert evaluate(scenes / "kitti", tmp_path / "mdp") == 0
    again = ["--model_name", "again", "--load_weights_folder", str(tmp_path / "mdp/models/weights_0"), "--dry_run"]
    assert train(scenes / "kitti", tmp_path, *options, *again) == 0


def test_stereo_trains(tmp_path: Path) -> None:
    arguments = ["--dataset", "synthetic", "--scenes", "2", "--use_stereo", "--log_dir", str(tmp_path)]
    modes = (["--frame_ids", "0"], ["--frame_ids", "0", "-1", "1", "--pose_model_type", "class_token"])
    for i, mode in enumerate(modes):
        name = ["--model_name", f"stereo{i}", "--num_epochs", "1", "--weights_init", "scratch"]
        assert main(["train", "monodepth2", *arguments, *mode, *name, *TINY, *SMALL]) == 0


def test_video_trains(tmp_path: Path) -> None:
    path = tmp_path / "drive.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (160, 96))
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(0, 255, (24, 60, 3), dtype=np.uint8), (480, 96))
    for i in range(24):
        writer.write(texture[:, 3 * i : 3 * i + 160])
    writer.release()
    more = ["--dataset", "video", "--intrinsics", "120,120,80,48", "--data_path", str(path), "--log_dir", str(tmp_path)]
    common = ["--num_epochs", "1", "--weights_init", "scratch", "--pose_model_type", "class_token", *TINY, *SMALL]
    assert main(["train", "monodepth2", *more, *common]) == 0
    assert main(["predict", str(path), "--weights", str(tmp_path / "mdp"), "--out", str(tmp_path / "out")]) == 0
    assert cv2.VideoCapture(str(next((tmp_path / "out").glob("*.mp4")))).get(cv2.CAP_PROP_FRAME_COUNT) == 24


def _error(capsys: pytest.CaptureFixture, arguments: list[str]) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_bad_options_are_found_before_anything_is_written(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = ["train", "monodepth2", "--log_dir", str(tmp_path / "runs"), "--split", "synthetic"]
    base += ["--weights_init", "scratch"]
    data = ["--data_path", str(scenes / "kitti")]
    small = [*base, *data, *SMALL, *TINY]
    out = ["--out", str(tmp_path / "runs")]
    for arguments, message in [
        ([*base, *TINY, "--data_path", "/nowhere"], "/nowhere: no such"),
        ([*base, *TINY], "needs --data_path"),
        ([*small, "--height", "200"], "height 200 is not a multiple of 32: use 192 or 224"),
        ([*small, "--preset", "huge"], "unknown preset 'huge'"),
        ([*small, "--split", "none"], "no split 'none'"),
        ([*small, "--encoder", "resnet", "--decoder", "dpt"], "--decoder dpt"),
        ([*small, "--encoder", "resnet", "--pose_model_type", "class_token"], "class_token"),
        ([*small, "--frame_ids", "0"], "nothing to compare with"),
        ([*small, "--use_stereo"], "image_03"),
        ([*small, "--min_depth", "5", "--max_depth", "1"], "0 < min < max"),
        ([*small, "--max_depth", "inf"], "0 < min < max"),
        ([*small, "--encoder_lr", "-1"], "--encoder_lr -1"),
        ([*small, "--encoder", "resnet", "--clip_weights", "x.pt"], "--clip_weights is for the hybrid encoder"),
        ([*small, "--encoder", "resnet", "--text_weight", "1"], "--text_weight needs"),
        ([*small, "--text_weight", "1", "--encoder_option", "alignment=none"], "alignment=none"),
        ([*small, "--pose_model_type", "class_token", "--encoder_option", "dino=null"], "dino is null"),
        ([*base, *SMALL, *TINY, "--dataset", "synthetic", "--intrinsics", "9,9,9,9"], "--intrinsics"),
        ([*small, "--intrinsics", "1,2,3"], "1,2,3"),
        ([*small, "--stage1", "/nowhere.pth"], "/nowhere.pth"),
        ([*small, "--device", "cuda:9" if torch.cuda.is_available() else "cuda"], "--device cuda"),
        ([*small, "--batch_size", "1000"], "lower it"),
        ([*base, *TINY, "--dataset", "video", "--data_path", str(scenes)], "--intrinsics"),
        ([*small, "--encoder_option", "fusion"], "expected NAME=VALUE"),
        (["predict", str(scenes), "--weights", str(tmp_path), *out], "holds no encoder.pth"),
        (["pretrain", "--data", "lanes:x", *out], "expected tusimple:FOLDER"),
        (["pretrain", "--data", "tusimple:/nowhere", *out], "/nowhere: no such folder"),
    ]:
        assert message in _error(capsys, arguments), arguments
    assert not (tmp_path / "runs").exists()


def test_bad_data_is_named(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / "kitti"
    shutil.copytree(scenes / "kitti", data)
    split = data / "splits" / "synthetic" / "train_files.txt"
    lines = split.read_text().splitlines()
    base = ["train", "monodepth2", "--data_path", str(data), "--split", "synthetic"]
    base += ["--log_dir", str(tmp_path / "runs"), "--weights_init", "scratch"]
    arguments = [*base, "--num_epochs", "1", *SMALL, *TINY]

    split.write_text("")
    assert "train_files.txt" in _error(capsys, arguments)
    split.write_text(lines[0] + "\nnot a line\n")
    assert "line 2" in _error(capsys, arguments)
    folder, frame, side = lines[0].split()
    split.write_text(f"{folder} 0 {side}\n{lines[0]}\n")
    assert "-1" in _error(capsys, arguments)

    split.write_text("\n".join(lines) + "\n")
    image = data / folder / "image_02" / "data" / f"{int(frame):010d}.jpg"
    image.write_bytes(image.read_bytes()[:2000])
    assert str(image) in _error(capsys, arguments)


def test_lanes_with_too_few_points_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    label = {"raw_file": "a.jpg", "lanes": [[-2, 5, 6, 7, 8, 9, 10]], "h_samples": [10, 20, 30, 40, 50, 60, 70]}
    (tmp_path / "label_data_0.json").write_text(json.dumps(label) + "\n")
    arguments = ["pretrain", "--data", f"tusimple:{tmp_path}", "--out", str(tmp_path / "out"), *TINY]
    assert "no lane with 7 points" in _error(capsys, arguments)


def test_weights_of_another_architecture_are_refused(
    stage1: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = ["train", "monodepth2", "--data_path", str(scenes / "kitti"), "--split", "synthetic", *SMALL, *TINY]
    other = ["--encoder_option", "fusion_channels=32", "--log_dir", str(tmp_path), "--weights_init", "scratch"]
    message = _error(capsys, [*base, *other, "--stage1", str(stage1 / "stage1.pth")])
    assert "stage1.pth" in message
    assert "fusion.project" in message


def test_evaluation_options_that_cannot_be_meant(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    kitti = ["--data_path", str(scenes / "kitti"), "--split", "synthetic"]
    rendered = ["--dataset", "synthetic", "--scenes", "4", "--height", "64", "--width", "96"]
    for arguments, message in [
        ([*kitti, "--batch_size", "0"], "--batch_size 0"),
        ([*kitti, "--pred_depth_scale_factor", "0"], "--pred_depth_scale_factor"),
        ([*kitti, "--static_camera"], "--static_camera is for two-frame weights"),
        ([*kitti, "--matching_memory", "-5"], "--matching_memory -5"),
        ([*kitti, "--csv", str(tmp_path)], f"--csv {tmp_path} is a folder"),
        ([*rendered, "--truth", "improved"], "--truth improved is KITTI's"),
        ([*rendered, *kitti], "--dataset kitti --data_path OUT/kitti"),
    ]:
        assert message in _error(capsys, ["evaluate", "--weights", str(run), *arguments]), arguments
    inputs = ["predict", str(scenes / "kitti"), "--weights", str(run), "--out", str(tmp_path), "--sequence"]
    assert "--sequence is for two-frame weights" in _error(capsys, inputs)


def test_a_table_that_cannot_be_written_is_printed_first(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert evaluate(scenes / "kitti", run, "--csv", str(tmp_path / "file" / "x.csv")) == 2
    found = capsys.readouterr()
    assert "abs_rel" in found.out
    assert str(tmp_path / "file") in found.err


def test_files_in_the_way_end_in_a_message(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "file"
    file.touch()
    assert str(file) in _error(capsys, ["patch", "monodepth2", str(file)])
    assert "expected a clone" in _error(capsys, ["patch", "monodepth2", str(tmp_path / "absent"), "--revert"])
    assert str(file) in _error(capsys, ["demo", "--out", str(file)])
    assert "--batch_size" in _error(capsys, ["demo", "--out", str(tmp_path / "demo"), "--batch_size", "0"])
    assert "--num_epochs 0" in _error(capsys, ["demo", "--out", str(tmp_path / "demo"), "--num_epochs", "0"])
    assert "--repeats 0" in _error(capsys, ["bench", "encoder", "--repeats", "0"])
    assert not (tmp_path / "demo").exists()


def test_a_folder_with_a_run_of_another_trainer(run: Path, stage1: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["train", "manydepth", "--dataset", "synthetic", "--scenes", "4", *SMALL, "--weights_init", "scratch"]
    arguments += [*TINY, "--encoder", "hybrid", "--teacher_encoder", "hybrid", "--pose_model_type", "class_token"]
    arguments += ["--log_dir", str(run.parent), "--model_name", run.name]
    assert "a run of another trainer" in _error(capsys, arguments)


def test_stage_1_converts_to_an_encoder_of_the_hub(stage1: Path, tmp_path: Path) -> None:
    assert main(["convert", str(stage1 / "stage1.pth"), "--out", str(tmp_path / "hub")]) == 0
    encoder = create_encoder(str(tmp_path / "hub"))
    tensors = torch.load(stage1 / "stage1.pth", weights_only=True)["encoder"]
    assert torch.equal(encoder.state_dict()["fusion.project.1.weight"], tensors["fusion.project.1.weight"])
    image = torch.rand(1, 1, 64, 96)
    with pytest.raises(UserError, match=r"\(1, 1, 64, 96\)"):
        encoder(image)


def test_truth_of_other_frames_is_refused_and_improved_truth_is_not_cropped(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = scenes / "kitti"
    base = ["--data_path", str(data), "--split", "synthetic"]
    assert main(["export-gt", *base, "--part", "val", "--out", str(tmp_path / "val.npz")]) == 0
    lines = (data / "splits" / "synthetic" / "val_files.txt").read_text().splitlines()
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "test_files.txt").write_text("\n".join(lines[::-1]))
    arguments = ["evaluate", "--weights", str(run), "--data_path", str(data), "--split", str(tmp_path / "split")]
    assert "holds depth of" in _error(capsys, [*arguments, "--truth", str(tmp_path / "val.npz"), "--device", "cpu"])
    for source, crop in (("velodyne", "garg"), ("improved", None)):
        entries = read_split(tmp_path / "split" / "test_files.txt")[:1]
        path = improved_depth_path(data, entries[0].folder, entries[0].frame, entries[0].side)
        if not path.exists():
            write_depth_png(path, np.full((96, 320), 7, np.float32))
        export_ground_truth(data, entries, tmp_path / f"{source}.npz", source, progress=False)  # type: ignore[arg-type]
        options = EvaluateOptions(weights=str(run), truth=str(tmp_path / f"{source}.npz"))
        assert chosen_crop(options) == crop
        assert chosen_crop(dataclasses.replace(options, dataset="kitti_odom")) is None


def test_weights_that_mean_other_depths_are_refused(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["train", "monodepth2", "--data_path", str(scenes / "kitti"), "--split", "synthetic", *SMALL, *TINY]
    arguments += ["--log_dir", str(tmp_path), "--load_weights_folder", str(run)]
    assert "was trained with --max_depth 100.0" in _error(capsys, [*arguments, "--max_depth", "20"])
    assert "was trained with --head sigmoid" in _error(capsys, [*arguments, "--head", "relu"])


def test_an_encoder_rate_of_nothing_leaves_the_encoder(scenes: Path, stage1: Path, tmp_path: Path) -> None:
    given = ["--stage1", str(stage1 / "stage1.pth"), "--encoder_lr", "0"]
    assert train(scenes / "kitti", tmp_path, *given) == 0
    trained = torch.load(stage1 / "stage1.pth", weights_only=True)["encoder"]
    after = torch.load(tmp_path / "mdp/models/weights_0/encoder.pth", weights_only=True)
    assert torch.equal(after["fusion.project.1.weight"], trained["fusion.project.1.weight"])


def test_a_users_own_readme_is_not_replaced(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "README.md").write_text("my notes")
    assert "README.md" in _error(capsys, ["convert", str(run), "--out", str(tmp_path)])
    assert (tmp_path / "README.md").read_text() == "my notes"
    (tmp_path / "README.md").unlink()
    for _ in range(2):
        assert main(["convert", str(run), "--out", str(tmp_path)]) == 0


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more = ["--learning_rate", "1e30", "--max_bad_steps", "1", "--num_epochs", "4"]
    assert train(scenes / "kitti", tmp_path, *more) == 2
    error = capsys.readouterr().err
    assert "not finite" in error
    assert "drive" in error
    states = list((tmp_path / "mdp").glob("state_*.pt"))
    for state in states:
        assert all(torch.isfinite(v).all() for v in torch.load(state, weights_only=True)["model"].values())


def test_one_cycle_warms_up_and_belongs_to_its_number_of_epochs(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one_cycle = ["--lr_schedule", "one_cycle", "--learning_rate", "1e-3", "--log_frequency", "1"]
    one_cycle += ["--save_frequency", "9"]
    assert train(scenes / "kitti", tmp_path, *one_cycle, "--num_epochs", "4") == 0
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "mdp") if line["kind"] == "train"]
    assert rates[-1] < 1e-4 < max(rates) <= 1e-3
    assert train(scenes / "kitti", tmp_path, *one_cycle, "--num_epochs", "3") == 2
    assert "num_epochs was 4, is 3" in capsys.readouterr().err


def test_evaluate_prints_what_no_image_gives(run: Path, capsys: pytest.CaptureFixture) -> None:
    size = ["--height", "64", "--width", "96"]
    arguments = ["evaluate", "--weights", str(run), "--dataset", "synthetic", "--scenes", "2", *size, "--device", "cpu"]
    assert main([*arguments, "--prior", "--precision", "bf16"]) == 0
    assert capsys.readouterr().out.count("abs_rel") == 2
    assert "--prior" in _error(capsys, ["evaluate", "--weights", str(run), "--data_path", str(run), "--prior"])
