"""The lift-splat model: its geometry, its images' augmentation, its metrics, its runs."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from hybrid_encoder.bev.checkpoint import LAST_FILE, load_bev, save_bev, weights_file
from hybrid_encoder.bev.dataset import RigDataset, mirrored, to_batch
from hybrid_encoder.bev.geometry import bin_depths, frustum_points
from hybrid_encoder.bev.grid import BevGrid
from hybrid_encoder.bev.maps import MapSettings
from hybrid_encoder.bev.model import BevBatch, BevModel
from hybrid_encoder.bev.nets import BevNets
from hybrid_encoder.bev.options import BevEvaluateOptions, BevOptions
from hybrid_encoder.bev.overlap import best_constant, iou, overlap, ring_masks
from hybrid_encoder.bev.start import open_run, starting_encoder
from hybrid_encoder.bev.training import BevTask, train
from hybrid_encoder.bev.views import ViewAugmentation, draw_view, plain_view
from hybrid_encoder.cli import main
from hybrid_encoder.config import preset
from hybrid_encoder.data.nuscenes import NuScenesSource
from hybrid_encoder.data.rig import RigCamera, RigSample
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.engine.record import read_metrics
from hybrid_encoder.engine.signals import Interrupted
from hybrid_encoder.errors import UserError
from hybrid_encoder.images import read_image
from hybrid_encoder.model.depth_model import DepthModel
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.model.nets import DepthNets
from hybrid_encoder.stage1.checkpoint import save_stage1
from hybrid_encoder.stage2.checkpoint import encoder_extras, save_weights, weights_folder
from hybrid_encoder.synthetic.nuscenes import write_rigs
from hybrid_encoder.synthetic.settings import RigSettings
from hybrid_encoder.weights.reading import read_checkpoint
from hybrid_encoder.weights.run_files import STAGE1_FILE

TINY = preset("tiny").replace(pyramid=False)
AHEAD = np.array([[0.0, 0, 1, 1.5], [-1, 0, 0, 0.2], [0, -1, 0, 1.6], [0, 0, 0, 1]])
"""A camera that looks ahead from 1.5 m in front of the rear axle, 0.2 m to the left, 1.6 m high."""
HERE = Processes(torch.device("cpu"))
GRID = BevGrid(-8, 8, -8, 8, 1.0)


@pytest.fixture(scope="module")
def rigs(module_path: Path) -> Path:
    """Six rendered rigs: four to train on, two to validate on."""
    write_rigs(module_path / "rigs", RigSettings(seed=0, scenes=3, frames=2, height=32, width=96, progress=False))
    return module_path / "rigs"


@pytest.fixture(scope="module")
def run(rigs: Path, module_path: Path) -> BevOptions:
    """A finished run of two epochs of two steps."""
    options = BevOptions(
        data_path=rigs, preset="tiny", weights_init="scratch", out=module_path / "run", epochs=2, batch_size=2,
        height=32, width=96, extent=16.0, cell=1.0, near=2.0, far=20.0, bins=6, channels=8, bev_channels=8,
        num_workers=0, device="cpu", log_frequency=1, lr=5e-3,
    )  # fmt: skip
    assert 0 <= train(options, HERE)["mean_iou"] <= 1
    return options


def nets(**changes: object) -> BevNets:
    plain = BevNets(TINY, 18, 64, 96, 16, 2.0, 10.0, 5, 8, 8, GRID, ("vehicle", "road"))
    return replace(plain, **changes)  # type: ignore[arg-type]


def batch(rigs: int = 2, cameras: int = 3, size: tuple[int, int] = (64, 96)) -> BevBatch:
    torch.manual_seed(1)
    K = torch.tensor([[60.0, 0, 47.5], [0, 60.0, 31.5], [0, 0, 1]]).expand(rigs, cameras, 3, 3)
    to_ego = torch.from_numpy(AHEAD).float().repeat(rigs, cameras, 1, 1)
    maps = (torch.rand(rigs, 2, *GRID.shape) > 0.5).float()
    return BevBatch(torch.rand(rigs, cameras, 3, *size), K, to_ego, maps, ["a", "b"][:rigs])


def test_points_of_a_camera_by_hand() -> None:
    K = torch.tensor([[10.0, 0, 3.5], [0, 10.0, 1.5], [0, 0, 1]])
    points = frustum_points(K, torch.from_numpy(AHEAD).float(), bin_depths(2, 4, 2), (2, 4), 2)
    # The map's cell [0, 3] covers the pixels 6 and 7 of the rows 0 and 1: its middle is u 6.5, v 0.5, so that the ray
    # goes 0.3 to the right and 0.1 up for each metre ahead.
    assert points.shape == (2, 2, 4, 3)
    assert torch.allclose(points[0, 0, 3], torch.tensor([1.5 + 2, 0.2 - 0.6, 1.6 + 0.2]), atol=1e-6)
    assert torch.allclose(points[1, 0, 3], torch.tensor([1.5 + 4, 0.2 - 1.2, 1.6 + 0.4]), atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_augmentation_follows_into_the_geometry(seed: int) -> None:
    """A spot painted where a point of the world projects to is found where the point projects to afterwards, and lifts
    back to the point."""
    rng = np.random.default_rng(seed)
    width, height, size, depth = 400, 225, (64, 96), 7.0
    K = np.array([[260.0, 0, 199.5], [0, 250.0, 112.0], [0, 0, 1]])
    in_camera = depth * np.linalg.inv(K) @ [rng.uniform(150, 250), rng.uniform(110, 160), 1]
    world = AHEAD[:3, :3] @ in_camera + AHEAD[:3, 3]
    u, v, _ = K @ in_camera / depth
    rows, columns = np.mgrid[:height, :width]
    spot = np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 4.0**2))
    image = np.repeat((255 * spot).astype(np.uint8)[..., None], 3, axis=2)

    augmentation = ViewAugmentation(scale=(0.9, 1.3), turn=20, mirror=0.5)
    view = plain_view(width, height, size) if seed == 0 else draw_view(width, height, size, augmentation, rng)
    seen = view.apply(image)[..., 0].astype(np.float64)
    assert seen.shape == size
    assert seen.max() > 150
    at = np.array([(seen * np.mgrid[: size[0], : size[1]][axis]).sum() / seen.sum() for axis in (1, 0)])
    new_K = view.matrix(width, height) @ K
    expected = new_K @ in_camera / depth
    assert np.abs(at - expected[:2]).max() < 0.3

    column, row = (round(value) for value in expected[:2])
    shifted = new_K.copy()
    shifted[:2, 2] -= expected[:2] - (column, row)  # so that the point's pixel is a whole one
    points = frustum_points(torch.from_numpy(shifted), torch.from_numpy(AHEAD), torch.tensor([depth]), size, 1)
    assert np.allclose(points[0, row, column].numpy(), world, atol=1e-5)


def test_a_mirrored_scene_falls_into_the_mirrored_cells() -> None:
    model = BevModel(nets(), HybridEncoder(TINY))
    given = batch(1, 2)
    turned = given.camera_to_ego.clone()
    turned[..., 1, 3] = 0.2137  # no point lies on a cell's border
    turned[:, 1, :3, :3] = torch.tensor([[0.6, 0, 0.8], [-0.8, 0, 0.6], [0, -1.0, 0]])
    maps = np.arange(2 * 16 * 16).reshape(2, 16, 16)
    other, flipped = mirrored(turned[0].numpy(), maps)
    before, after = (
        model.cells(given.intrinsics, torch.as_tensor(poses).float().view(1, 2, 4, 4), (4, 6))
        for poses in (turned, other)
    )
    inside = before >= 0
    assert inside.float().mean() > 0.3
    assert torch.equal(after >= 0, inside)
    assert torch.equal(after[inside] // 16, before[inside] // 16)
    assert torch.equal(after[inside] % 16, 15 - before[inside] % 16)
    assert flipped[1, 3, 2] == maps[1, 3, 13]


def test_rigs_of_a_batch_do_not_mix() -> None:
    model = BevModel(nets(), HybridEncoder(TINY)).eval()
    given = batch()
    with torch.no_grad():
        together = model.logits(given.images, given.intrinsics, given.camera_to_ego)
        alone = model.logits(given.images[1:], given.intrinsics[1:], given.camera_to_ego[1:])
    assert together.shape == (2, 2, 16, 16)
    assert torch.allclose(together[1:], alone, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["hybrid", "resnet", "frozen"])
def test_everything_that_trains_has_a_gradient(kind: str) -> None:
    described = nets(config=None if kind == "resnet" else TINY, stride=8)
    encoder = described.build_encoder()
    if kind == "frozen":
        encoder.freeze()
    model = BevModel(described, encoder).train()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # residual blocks start as their shortcut: nothing flows into them yet
                parameter.fill_(0.1)
    losses = model(batch(cameras=1))
    losses["loss"].backward()
    assert torch.isclose(losses["loss"], losses["vehicle_loss"] + losses["road_loss"])
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    without = {name for name, p in trained.items() if p.grad is None or not p.grad.any()}
    assert without == set()
    assert any(name.startswith("encoder.") for name in trained) == (kind != "frozen")


def test_a_cell_of_a_vehicle_counts_as_much_as_asked_for() -> None:
    torch.manual_seed(0)
    encoder = HybridEncoder(TINY)
    torch.manual_seed(0)
    weighted = BevModel(nets(), encoder, (3.0, 1.0)).eval()
    given = batch()
    logits = weighted.logits(given.images, given.intrinsics, given.camera_to_ego)
    p = logits.sigmoid()[:, 0]
    truth = given.maps[:, 0]
    expected = -(3 * truth * p.log() + (1 - truth) * (1 - p).log()).mean()
    assert torch.isclose(weighted(given)["vehicle_loss"], expected, rtol=1e-5)


def test_overlap_by_hand() -> None:
    grid = BevGrid(-2, 2, -2, 2, 1.0)
    truth, drawn = np.zeros((1, 1, 4, 4), bool), np.zeros((1, 1, 4, 4), bool)
    truth[0, 0, 1, 1], drawn[0, 0, 1, 1:3] = True, True  # near: one of two
    truth[0, 0, 0, :2], drawn[0, 0, 0, 1:] = True, True  # far: one of four
    masks = np.concatenate([np.ones((1, 4, 4), bool), ring_masks(grid, (1.0, 5.0, 9.0))])
    assert iou(overlap(drawn, truth, masks))[0].tolist()[:3] == [2 / 6, 1 / 2, 1 / 4]
    assert math.isnan(iou(overlap(drawn, truth, masks))[0, 3])
    assert overlap(drawn, truth)[:, 0, 0].tolist() == [2, 6]


def test_the_best_map_without_an_image_is_the_best_of_all_maps() -> None:
    rng = np.random.default_rng(0)
    truths = rng.random((7, 1, 3, 3)) < rng.random((3, 3))
    best = best_constant(truths.mean(0)[0])

    def score(drawn: np.ndarray) -> float:
        return float(iou(overlap(np.broadcast_to(drawn, truths.shape), truths))[0, 0])

    every = (np.array(cells, bool).reshape(3, 3) for cells in itertools.product((0, 1), repeat=9))
    assert score(best) == max(score(drawn) for drawn in every if drawn.any())
    assert 0 < best.sum() < 9


def test_a_run_s_encoder_comes_over_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 96)
    own = HybridEncoder(preset("tiny")).eval()
    save_stage1(tmp_path / "stage1" / STAGE1_FILE, own, own.config, {})
    depth_nets = DepthNets(config=own.config, decoder="dpt", scales=(0,))
    files = {"encoder": own, "depth": depth_nets.build_decoder(own)}
    save_weights(
        weights_folder(tmp_path / "stage2", 0),
        files,
        torch.optim.Adam(own.parameters()),
        encoder_extras(depth_nets, 64, 96),
    )
    expected = own.forward_features(image).fused
    for run in ("stage1", "stage2"):
        options = BevOptions(data_path=tmp_path, weights=tmp_path / run)
        options.check()
        found = starting_encoder(options).eval()
        assert found.config is not None
        assert not found.config.pyramid
        assert all(map(torch.equal, found.forward_features(image).fused, expected))
    depth = DepthModel.from_pretrained("tiny-rendered").encoder.forward_features(image).fused
    shipped = starting_encoder(BevOptions(data_path=tmp_path, weights=Path("tiny-rendered"))).eval()
    assert all(map(torch.equal, shipped.forward_features(image).fused, depth))
    with pytest.raises(UserError, match=r"no encoder.pth"):
        open_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": Path("run"), "preset": "tiny"}, "--weights says what the encoder is: leave out --preset"),
        ({"encoder": "resnet", "encoder_option": ("pyramid=true",)}, "leave out --encoder_option"),
        ({"num_layers": 34}, "leave out --num_layers"),
        ({"freeze_encoder": True, "encoder_lr": 1e-4}, "leave out --encoder_lr"),
        ({"classes": ("vehicle", "walker")}, "expected vehicle road"),
        ({"near": 5.0, "far": 5.0}, "expected 0 < near < far"),
        ({"scale_range": (1.1, 0.9)}, "two factors, ascending"),
        ({"height": 100}, "not a multiple of 32"),
    ],
)
def test_options_that_contradict_each_other(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BevOptions(data_path=Path("data"), **changes).check()  # type: ignore[arg-type]


def test_rigs_with_other_cameras_and_without_a_map_are_named(tmp_path: Path) -> None:
    def rig(token: str, *names: str) -> RigSample:
        cameras = tuple(RigCamera(name, tmp_path / "none.jpg", np.eye(3), AHEAD, (96, 64)) for name in names)
        return RigSample(token, "scene-1", cameras, (), np.eye(4), None, None, None)

    rigs = [rig("first", "CAM_FRONT", "CAM_BACK"), rig("second", "CAM_FRONT")]
    dataset = RigDataset(rigs, [0, 1], (64, 96), MapSettings(GRID))
    with pytest.raises(
        UserError, match="sample second of scene-1 has the cameras CAM_FRONT; the first one has CAM_FRONT, CAM_BACK"
    ):
        dataset.rig(1)
    with pytest.raises(UserError, match=r"first of scene-1 has no map: leave the road out \(--classes vehicle\)"):
        dataset.maps.draw(rigs[0])
    with pytest.raises(UserError, match=r"none\.jpg"):
        dataset[0]
    with pytest.raises(UserError, match="ascending"):
        BevEvaluateOptions(data_path=tmp_path, weights=tmp_path, ranges=(20.0, 10.0)).check()


def test_an_interrupted_run_resumes_bit_for_bit(
    run: BevOptions, module_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(run, out=module_path / "resumed")

    def stop(_: BevTask, epoch: int, step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(BevTask, "start_step", stop)
        with pytest.raises(Interrupted, match="step 3"):
            train(options, HERE)
    metrics = train(options, HERE)
    whole, resumed = (read_checkpoint(weights_file(one.out, LAST_FILE)) for one in (run, options))
    assert whole["metrics"] == resumed["metrics"] == metrics
    assert all(torch.equal(value, resumed["model"][name]) for name, value in whole["model"].items())
    lines = [list(read_metrics(one.out)) for one in (run, options)]
    losses = [[line["loss"] for line in found if line["kind"] == "train"] for found in lines]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


def test_a_run_with_other_maps_is_another_run(run: BevOptions) -> None:
    with pytest.raises(UserError, match=r"extent was 16\.0, is 12\.0"):
        train(replace(run, extent=12.0), HERE)


def test_evaluation_says_what_counting_cells_says(
    run: BevOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, maps = load_bev(run.out), MapSettings(BevGrid(-16, 16, -16, 16, 1.0))
    training, validation = (NuScenesSource(run.data_path, part) for part in ("train", "val"))
    mean = np.mean([maps.draw(training[index]) for index in range(4)], axis=0)
    assert np.allclose(saved.mean_maps.numpy(), mean)
    dataset = RigDataset(validation, [0, 1], (32, 96), maps)
    batch = to_batch(default_collate([dataset[0], dataset[1]]), HERE.device)
    with torch.no_grad():
        logits = saved.model.logits(batch.images, batch.intrinsics, batch.camera_to_ego)
        middle = logits.movedim(1, 0).flatten(1).median(dim=1).values
        saved.model.decoder.out.bias -= middle  # so that some cells are drawn and some are not
    save_bev(tmp_path / "half.pth", saved.model, saved.mean_maps, {})

    command = ["evaluate", "bev", "--weights", str(tmp_path / "half.pth"), "--data_path", str(run.data_path)]
    assert main([*command, "--ranges", "12", "30", "--num_workers", "0", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out.splitlines()
    drawn = (logits > middle[:, None, None]).numpy()
    truth = np.stack([maps.draw(validation[index]) for index in range(2)]).astype(bool)
    near = np.hypot(*np.mgrid[-15.5:16:1, -15.5:16:1]) < 12
    for row, k in ((1, 0), (3, 1)):
        constant = np.broadcast_to(best_constant(mean[k]), truth[:, k].shape)
        for line, found in ((printed[row], drawn[:, k]), (printed[row + 1], constant)):
            columns = [np.ones_like(near), near, ~near]
            expected = [(found & truth[:, k] & c).sum() / ((found | truth[:, k]) & c).sum() for c in columns]
            assert [float(value) for value in line.split()[-3:]] == pytest.approx(expected, abs=2e-3)
            assert 0 < expected[0] < 1
    assert printed[-1] == "2 samples"


def test_pictures_show_images_beside_the_maps(run: BevOptions, tmp_path: Path) -> None:
    command = ["predict", "bev", "--weights", str(run.out), "--data_path", str(run.data_path), "--samples", "1"]
    assert main([*command, "--part", "train", "--device", "cpu", "--out", str(tmp_path)]) == 0
    (picture,) = tmp_path.iterdir()
    rig = NuScenesSource(run.data_path, "train")[0]
    assert picture.name == f"{rig.scene}_{rig.token}.jpg"
    pixels = read_image(picture)
    strip = 256 // 12
    # six images of 256 x 768 in two rows of three, then two maps of 512 x 512 brought to the rows' height
    side = round((512 + 512 // 12) and 512 * (2 * (256 + strip)) / (512 + 512 // 12))
    assert pixels.shape == (2 * (256 + strip), 3 * 768 + 2 * side, 3)
    front = cv2.resize(read_image(rig.cameras[1].image), (768, 256))
    assert np.abs(pixels[strip : strip + 256, 768 : 2 * 768].astype(float) - front).mean() < 4


def test_a_damaged_file_of_weights_is_named(run: BevOptions, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no models/bev\.pth: give the folder of a run of `train bev`"):
        load_bev(tmp_path)
    content = read_checkpoint(weights_file(run.out))
    torch.save(
        {**content, "bev_nets": content["bev_nets"].replace('"stride": 16', '"stride": 5')}, tmp_path / "stride.pth"
    )
    with pytest.raises(UserError, match="does not describe BEV nets"):
        load_bev(tmp_path / "stride.pth")
    torch.save({"model": content["model"]}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="is no BEV model"):
        load_bev(tmp_path / "other.pth")


def test_a_missing_image_is_named_before_anything_is_written(run: BevOptions, tmp_path: Path) -> None:
    shutil.copytree(run.data_path, tmp_path / "rigs")
    image = NuScenesSource(tmp_path / "rigs", "train")[3].cameras[2].image
    image.unlink()
    with pytest.raises(UserError, match=image.name):
        train(replace(run, data_path=tmp_path / "rigs", out=tmp_path / "run"), HERE)
    assert not (tmp_path / "run").exists()


def test_bf16_changes_little() -> None:
    model = BevModel(nets(), HybridEncoder(TINY)).eval()
    with torch.no_grad():
        exact = model(batch())["loss"]
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(batch())["loss"]
    assert rough.dtype == torch.float32
    assert torch.isclose(rough, exact, rtol=0.02)
    assert rough != exact
