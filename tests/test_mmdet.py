"""The encoder as the image backbone of detectors and bird's-eye-view models.

What needs mmdet runs where it is installed. docs/BEV.md says how, and which command that is.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shutil
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.transforms import functional as pictures

from hybrid_encoder.adapters.mmdet.backbone import HybridBackbone
from hybrid_encoder.adapters.mmdet.pixels import NORMALIZATIONS, ToRgb, declared
from hybrid_encoder.adapters.mmdet.weights import backbone_tensors
from hybrid_encoder.config import PRESETS
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.encoder import create_encoder
from hybrid_encoder.weights.in_package import shipped_folder

from .released_files import TINY_RELEASED, write_folder

IMAGENET = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
CHANNELS = (8, 16, 24, 32)


def tiny(**settings: Any) -> HybridBackbone:
    torch.manual_seed(0)
    return HybridBackbone("tiny", **{"pixels": "unit", "channels": CHANNELS, **settings})


def picture() -> np.ndarray:
    """RGB uint8 (40, 60, 3): all values, and a corner that is pure red."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    pixels[:10, :10] = 255, 0, 0
    return pixels


def as_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels, np.float32)).permute(2, 0, 1)[None]


# Pixels


def torchvision_pixels(rgb: np.ndarray) -> Tensor:
    return pictures.normalize(pictures.to_tensor(rgb), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])[None]


def read_as_bgr_less_a_mean(rgb: np.ndarray) -> Tensor:
    """OpenCV reads BGR, which Caffe's nets see without a deviation."""
    return as_tensor(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) - np.array([103.53, 116.28, 123.675], np.float32))


def swapped_twice(rgb: np.ndarray) -> Tensor:
    """Pillow reads RGB, mmcv's imnormalize takes it for BGR and swaps: a red pixel is (0, 0, 255) before the mean."""
    assert cv2.cvtColor(rgb, cv2.COLOR_BGR2RGB)[0, 0].tolist() == [0, 0, 255]
    return as_tensor((cv2.cvtColor(rgb, cv2.COLOR_BGR2RGB) - IMAGENET[0]) / IMAGENET[1])


PIPELINES: dict[str, Callable[[np.ndarray], Tensor]] = {
    "torchvision": torchvision_pixels,
    "caffe": read_as_bgr_less_a_mean,
    "bevdet": swapped_twice,
    "fbbev": swapped_twice,
    "unit": lambda rgb: as_tensor(rgb / 255),
}


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_red_stays_red(name: str) -> None:
    rgb = picture()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = ToRgb(NORMALIZATIONS[name])(PIPELINES[name](rgb))
    assert seen[0, :, 0, 0] == pytest.approx([1, 0, 0], abs=1e-5)
    torch.testing.assert_close(seen, as_tensor(rgb / 255), atol=1e-5, rtol=0)


def test_the_encoder_sees_the_same_through_every_pipeline() -> None:
    backbone, rgb = tiny(out_indices=(3,)).eval(), np.tile(picture(), (2, 2, 1))
    with torch.no_grad():
        (expected,) = backbone.encoder(as_tensor(rgb / 255))
        for name, pipeline in PIPELINES.items():
            backbone.to_rgb = ToRgb(NORMALIZATIONS[name])
            torch.testing.assert_close(backbone(pipeline(rgb))[0], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("said", NORMALIZATIONS)
@pytest.mark.parametrize("done", NORMALIZATIONS)
def test_values_that_cannot_be_what_was_declared_are_warned_of(said: str, done: str) -> None:
    """Once, at the first batch. The order of channels cannot be seen, so torchvision's and BEVDet's pass for each
    other."""
    to_rgb, batch = ToRgb(NORMALIZATIONS[said]), PIPELINES[done](picture())
    alike = {"torchvision": "imagenet", "bevdet": "imagenet", "fbbev": "imagenet"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        to_rgb(batch)
        to_rgb(batch)
    wrong = alike.get(said, said) != alike.get(done, done)
    assert len(caught) == wrong
    if wrong:
        assert "Names that fit" in str(caught[0].message)
        assert repr(done) in str(caught[0].message).split("Names that fit")[1]


def test_brightness_that_augmentation_adds_is_cut_off_without_a_warning() -> None:
    """mmdet's PhotoMetricDistortion: up to 1.5 times the contrast and 32 more."""
    batch = (as_tensor(picture()) * 1.5 + 32 - torch.tensor(IMAGENET[0]).view(3, 1, 1)) / torch.tensor(
        IMAGENET[1]
    ).view(3, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = ToRgb(NORMALIZATIONS["torchvision"])(batch)
    assert 0 <= float(seen.min()) <= float(seen.max()) == 1


def test_pixels_by_hand() -> None:
    by_hand = declared(None, "bgr", [103.53, 116.28, 123.675], [1.0, 1.0, 1.0])
    assert by_hand == NORMALIZATIONS["caffe"] == declared("torchvision", by_hand.channel_order, by_hand.mean, (1, 1, 1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give pixels=NAME, one of 'torchvision', 'caffe'"),
        ({"pixels": None, "mean": (0, 0, 0), "std": (1, 1, 1)}, "or channel_order, mean and std"),
        ({"pixels": "imagenet"}, "pixels='imagenet': expected one of 'torchvision'"),
        ({"pixels": "unit", "channel_order": "gbr"}, "expected 'rgb' or 'bgr'"),
        ({"pixels": "unit", "std": (1, 0, 1)}, "those of std above 0"),
    ],
)
def test_pixels_that_are_not_declared_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        HybridBackbone("tiny", **given)


# Maps and what trains


@pytest.mark.parametrize("wanted", [(3,), (2, 3), (1, 2, 3), (0, 1, 2, 3), (0, 2)])
def test_only_the_maps_asked_for_are_built(wanted: tuple[int, ...]) -> None:
    """At any size, rounded up as a ResNet does; and nothing trains without a gradient."""
    backbone = tiny(out_indices=wanted)
    maps = backbone(torch.rand(2, 3, 70, 100))
    assert isinstance(maps, tuple)
    sizes = {0: (18, 25), 1: (9, 13), 2: (5, 7), 3: (3, 4)}
    assert [tuple(m.shape) for m in maps] == [(2, CHANNELS[i], *sizes[i]) for i in wanted]
    sum(m.square().mean() for m in maps).backward()  # type: ignore[union-attr]
    assert not [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"out_indices": (3, 2)}, "expected ascending ones of 0, 1, 2, 3"),
        ({"out_indices": ()}, "expected ascending ones of 0, 1, 2, 3"),
        ({"out_indices": (4,)}, "expected ascending ones of 0, 1, 2, 3"),
        ({"channels": (8, 16)}, "expected four numbers"),
        ({"frozen_stages": 5}, "expected -1 to 4"),
        ({"frozen_stages": 1, "options": {"image_tower": None}}, "use -1 or 4"),
        ({"init_cfg": {"type": "Kaiming"}}, "expected dict\\(type='Pretrained', checkpoint=PATH\\)"),
        ({"init_cfg": [{"type": "Pretrained", "checkpoint": "x"}]}, "expected dict\\(type='Pretrained'"),
    ],
)
def test_backbones_that_cannot_be_built_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(**given)


def test_frozen_stages_and_batch_norms() -> None:
    """Through `.train()`, as frameworks call it at every epoch."""

    def trains(part: nn.Module) -> bool:
        return any(p.requires_grad for p in part.parameters())

    backbone = tiny(frozen_stages=1, norm_eval=False).train()
    tower: Any = backbone.encoder.image_tower
    assert [trains(part) for part in (tower.stem, tower.layer1, tower.layer2)] == [False, False, True]
    norms = {n: m.training for n, m in backbone.encoder.named_modules() if isinstance(m, _BatchNorm)}
    assert {n for n, training in norms.items() if not training} == {
        n for n in norms if n.startswith(("image_tower.stem.", "image_tower.layer1."))
    }
    backbone = tiny(norm_eval=True).train()
    norms = {n: m.training for n, m in backbone.encoder.named_modules() if isinstance(m, _BatchNorm)}
    assert len(norms) > 10
    assert all(training == n.startswith("pyramid.") for n, training in norms.items())
    backbone = tiny(frozen_stages=4).train()
    assert {n.split(".")[1] for n, p in backbone.named_parameters() if p.requires_grad} == {"pyramid"}
    sum(m.square().mean() for m in backbone(torch.rand(2, 3, 64, 64))).backward()  # type: ignore[union-attr]


def test_with_cp_computes_the_same() -> None:
    image, found = torch.rand(2, 3, 64, 64), []
    for with_cp in (False, True):
        backbone = tiny(with_cp=with_cp, out_indices=(2, 3))
        maps = backbone(image)
        sum(m.square().mean() for m in maps).backward()  # type: ignore[union-attr]
        found.append([*maps, *(p.grad for p in backbone.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 20
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain)


# Weights


def tensors_of(backbone: HybridBackbone, maps: bool = False) -> dict[str, Tensor]:
    state = backbone.encoder.state_dict()
    return {name: value for name, value in state.items() if maps or not name.startswith("pyramid.")}


def assert_filled(backbone: HybridBackbone, expected: dict[str, Tensor]) -> None:
    own = tensors_of(backbone)
    assert {name for name in expected if not name.startswith("pyramid.")} == own.keys()
    assert all(torch.equal(value, expected[name]) for name, value in own.items())


def pretrained(checkpoint: Path | str, **more: Any) -> dict[str, Any]:
    return {"type": "Pretrained", "checkpoint": str(checkpoint), **more}


def test_shipped_weights_and_stage1_fill_the_encoder(tmp_path: Path) -> None:
    """As `source`, which says what the encoder is, and as `init_cfg`, which the frameworks read."""
    folder = shipped_folder("tiny-rendered")
    assert folder is not None
    source = HybridBackbone("tiny-rendered", pixels="unit", channels=CHANNELS)
    later = tiny(init_cfg=pretrained(folder))
    before = tensors_of(later, maps=True)["language.tokens"].clone()
    later.init_weights()
    assert not torch.equal(before, tensors_of(later)["language.tokens"])
    assert_filled(later, tensors_of(source))
    shutil.copy(folder / "stage1.pth", tmp_path)
    stage1 = tiny(init_cfg=pretrained(tmp_path))
    stage1.init_weights()
    assert_filled(stage1, tensors_of(HybridBackbone(str(folder / "stage1.pth"), pixels="unit", channels=CHANNELS)))
    assert not torch.equal(tensors_of(stage1)["language.tokens"], tensors_of(later)["language.tokens"])


def test_saved_encoders_and_the_authors_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = create_encoder("tiny")
    encoder.save_pretrained(tmp_path / "saved")
    backbone = tiny(init_cfg=pretrained(tmp_path / "saved"))
    backbone.init_weights()
    assert_filled(backbone, encoder.state_dict())
    monkeypatch.setitem(PRESETS, "released", TINY_RELEASED)
    folder = write_folder(tmp_path / "released")
    released = HybridBackbone(str(folder), pixels="unit", channels=CHANNELS)
    assert released.encoder.config.normalization == "none"
    with pytest.raises(UserError, match="was trained with normalization='none', not 'own': build the encoder with it"):
        tiny(init_cfg=pretrained(folder)).init_weights()


@pytest.mark.parametrize("prefix", ["img_backbone.", "backbone.", "model.backbone.img_backbone.", ""])
def test_a_backbone_is_found_in_a_detectors_file(prefix: str) -> None:
    names = ("encoder.language.tokens", "encoder.pyramid.smooth.0.bias")
    file = {f"{prefix}{name}": torch.zeros(1) for name in names} | {"img_neck.encoder.weight": torch.ones(1)}
    for given in (None, prefix, prefix.removesuffix(".")):
        assert list(backbone_tensors(file, "d.pth", given) or {}) == ["language.tokens", "pyramid.smooth.0.bias"]


def test_a_detectors_checkpoint_fills_the_backbone(tmp_path: Path) -> None:
    """The layers of its maps, too, where they are the same."""
    trained = tiny(out_indices=(2, 3))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.01)
    file = {f"img_backbone.{name}": value for name, value in trained.state_dict().items()}
    torch.save({"meta": {"epoch": 1}, "state_dict": {**file, "img_neck.weight": torch.zeros(1)}}, tmp_path / "d.pth")
    same, other = (tiny(out_indices=wanted, init_cfg=pretrained(tmp_path / "d.pth")) for wanted in ((2, 3), (1, 2, 3)))
    same.init_weights()
    assert all(torch.equal(v, trained.encoder.state_dict()[n]) for n, v in tensors_of(same, maps=True).items())
    with pytest.warns(UserWarning, match="maps of other widths or strides"):
        other.init_weights()
    assert_filled(other, trained.encoder.state_dict())


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = tiny().state_dict()
    both = {f"{prefix}{name}": value for prefix in ("student.", "teacher.") for name, value in state.items()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(UserError, match=r"several encoders: give prefix=\.\.\., one of 'student\.', 'teacher\.'"):
        tiny(init_cfg=pretrained(tmp_path / "both.pth")).init_weights()
    with pytest.raises(UserError, match="no hybrid encoder under 'neck': its prefixes of one are 'student"):
        tiny(init_cfg=pretrained(tmp_path / "both.pth", prefix="neck")).init_weights()
    tiny(init_cfg=pretrained(tmp_path / "both.pth", prefix="teacher")).init_weights()
    torch.save({f"backbone.{name}": value for name, value in state.items()}, tmp_path / "d.pth")
    with pytest.raises(UserError, match="does not fit HybridEncoder"):
        tiny(init_cfg=pretrained(tmp_path / "d.pth"), options={"num_tokens": 8}).init_weights()
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    with pytest.raises(UserError, match="stage-1 checkpoint"):
        tiny(init_cfg=pretrained(tmp_path / "resnet.pth")).init_weights()


# mmdet and mmdet3d themselves


@pytest.fixture(scope="module")
def frameworks() -> Iterator[types.SimpleNamespace]:
    """mmengine, mmcv, mmdet and mmdet3d with the backbone registered."""
    for name in ("mmengine", "mmcv", "mmdet", "mmdet3d"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: docs/BEV.md says how")
    if importlib.util.find_spec("mmcv.runner") is not None:
        pytest.skip("mmcv 1.x is installed, and these are of mmcv 2")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stand_in_for_operators(patch)
        names = ("mmengine.config", "mmengine.registry", "mmcv", "mmdet.models", "mmdet3d.models", "mmdet3d.structures")
        found = {name.replace(".", "_"): importlib.import_module(name) for name in names}
        importlib.import_module("hybrid_encoder.adapters.mmdet.register")
        yield types.SimpleNamespace(**found)


class _Operators(types.ModuleType):
    """Has an operator of every name, none of which can be called."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def stand_in_for_operators(patch: pytest.MonkeyPatch) -> None:
    """mmdet imports mmcv's compiled operators, which mmcv-lite lacks."""
    if importlib.util.find_spec("mmcv._ext") is None:
        patch.setitem(sys.modules, "mmcv._ext", _Operators("mmcv._ext"))


def config_of(frameworks: Any, package: str, name: str) -> Any:
    """One of the configs that a package brings along, its backbone replaced by ours with the shipped weights.

    Their FPN is given C2 and starts at C3 (start_level=1): what makes our C2 would get no gradient. The same neck on C3
    to C5 alone is written as below.
    """
    config = frameworks.mmengine_config.Config.fromfile(
        str(Path(sys.modules[package].__file__ or "").parent / ".mim" / "configs" / name)
    )
    config.model.backbone = {"type": "HybridBackbone", "source": "tiny-rendered", "out_indices": (1, 2, 3)}
    config.model.neck.update(in_channels=[512, 1024, 2048], start_level=0)
    return config


def build(frameworks: Any, package: str, config: Any) -> Any:
    """The model of a config, with its initial weights."""
    torch.manual_seed(0)
    with frameworks.mmengine_registry.DefaultScope.overwrite_default_scope(package):
        model = importlib.import_module(f"{package}.registry").MODELS.build(config.model)
        model.init_weights()
    return model.train()


def keyframe(frameworks: Any, folder: Path, shrink: int) -> tuple[np.ndarray, Any, Any, dict[str, Any]]:
    """The front camera of the real keyframe, 1 / shrink of its size.

    Returns:
        BGR uint8; boxes as mmdet3d has them in 3D, those whose centre the camera sees; and in the image; metainfo.
    """
    from mmengine.structures import InstanceData

    sample = json.loads((folder / "nuscenes_sample" / "sample.json").read_text())
    camera, structures = sample["images"]["CAM_FRONT"], frameworks.mmdet3d_structures
    image = cv2.imread(str(folder / "nuscenes_sample" / camera["img_path"]))
    height, width = image.shape[0] // shrink, image.shape[1] // shrink
    k = np.array(camera["cam2img"], np.float32) / np.float32([[shrink], [shrink], [1]])
    known = [i for i in sample["instances"] if i["bbox_label_3d"] >= 0]
    boxes = structures.LiDARInstance3DBoxes(
        torch.tensor([[*i["bbox_3d"], *np.nan_to_num(i["velocity"])] for i in known]).float(), box_dim=9
    ).convert_to(structures.Box3DMode.CAM, rt_mat=np.array(camera["lidar2cam"], np.float32))
    project = frameworks.mmdet3d_structures.points_cam2img
    centers = project(boxes.gravity_center, k, with_depth=True)
    seen = (centers[:, 2] > 1) & (boxes.corners[..., 2] > 0).all(1)
    seen &= (centers[:, 0] >= 0) & (centers[:, 0] < width) & (centers[:, 1] >= 0) & (centers[:, 1] < height)
    corners = project(boxes[seen].corners, k)
    limits = torch.tensor([width, height]).float()
    low, high = (found.clamp(min=torch.zeros(2), max=limits) for found in (corners.amin(1), corners.amax(1)))
    labels = torch.tensor([i["bbox_label_3d"] for i in known])[seen]
    in_3d = InstanceData(
        bboxes_3d=boxes[seen], labels_3d=labels, centers_2d=centers[seen, :2], depths=centers[seen, 2],
        attr_labels=torch.zeros(len(labels), dtype=torch.long),
    )  # fmt: skip
    info = {"cam2img": k.tolist(), "scale_factor": (1.0, 1.0), "box_type_3d": structures.CameraInstance3DBoxes}
    shape = dict.fromkeys(("img_shape", "ori_shape"), (height, width))
    picture = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return picture, in_3d, InstanceData(bboxes=torch.cat([low, high], 1), labels=labels), info | shape


def train_once(model: Any, batch: dict[str, Any]) -> dict[str, float]:
    """The losses of a batch after one backward pass; every trainable tensor has a gradient, none of them only zeros in
    the backbone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the first batch")
        ready = model.data_preprocessor(batch, training=True)
        total, logged = model.parse_losses(model(**ready, mode="loss"))
    total.backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert not [name for name, p in trainable.items() if p.grad is None]
    assert all(p.grad.isfinite().all() for p in trainable.values())
    dead = [name for name, p in trainable.items() if name.startswith("backbone.") and not p.grad.any()]
    assert not dead
    return {name: float(value) for name, value in logged.items()}


def test_every_registry_finds_the_backbone(frameworks: Any) -> None:
    wanted = {"type": "HybridBackbone", "source": "tiny", "out_indices": (3,), "pixels": "unit"}
    for registry in (
        frameworks.mmengine_registry.MODELS,
        importlib.import_module("mmdet.registry").MODELS,
        importlib.import_module("mmdet3d.registry").MODELS,
    ):
        assert type(registry.build(wanted)) is HybridBackbone


def test_mmdet_2_finds_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """BEVDet, FB-BEV and BEVDepth build theirs by this list of mmcv 1.x."""
    pytest.importorskip("mmcv.runner", reason="mmcv 1.x with mmdet 2 is not installed: docs/BEV.md says how")
    stand_in_for_operators(monkeypatch)
    importlib.import_module("hybrid_encoder.adapters.mmdet.register")
    build = importlib.import_module("mmdet.models").build_backbone
    wanted = {"type": "HybridBackbone", "source": "tiny", "out_indices": (3,), "pixels": "unit"}
    assert type(build(wanted)) is HybridBackbone


@pytest.mark.parametrize("name", ["torchvision", "fbbev", "bevdet"])
def test_red_stays_red_through_mmcv(frameworks: Any, name: str) -> None:
    """mmcv's own function, on what OpenCV reads and on what Pillow reads."""
    rgb = picture()
    given = rgb[..., ::-1].copy() if name == "torchvision" else rgb
    arrived = as_tensor(frameworks.mmcv.imnormalize(given, *IMAGENET, to_rgb=True))
    torch.testing.assert_close(ToRgb(NORMALIZATIONS[name])(arrived), as_tensor(rgb / 255), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["torchvision", "caffe"])
def test_red_stays_red_through_mmdets_preprocessor(frameworks: Any, name: str) -> None:
    config = {"torchvision": "retinanet_r50_fpn_1x_coco", "caffe": "retinanet_r50-caffe_fpn_1x_coco"}[name]
    settings = config_of(frameworks, "mmdet", f"retinanet/{config}.py").model.data_preprocessor
    preprocessor = importlib.import_module("mmdet.registry").MODELS.build(settings)
    bgr = torch.from_numpy(picture()[..., ::-1].copy()).permute(2, 0, 1)
    arrived = preprocessor({"inputs": [bgr], "data_samples": None})["inputs"]
    seen = ToRgb(NORMALIZATIONS[name])(arrived)[..., :40, :60]
    torch.testing.assert_close(seen, as_tensor(picture() / 255), atol=1e-5, rtol=0)


def test_retinanet_trains_on_the_real_keyframe(frameworks: Any, real_data: Path) -> None:
    from mmdet.structures import DetDataSample

    config = config_of(frameworks, "mmdet", "retinanet/retinanet_r50_fpn_1x_coco.py")
    config.model.backbone.update(pixels="torchvision", frozen_stages=1)
    model = build(frameworks, "mmdet", config)
    image, _, instances, info = keyframe(frameworks, real_data, shrink=4)
    assert len(instances) > 10
    sample = DetDataSample(metainfo=info, gt_instances=instances)
    batch = {"inputs": [torch.from_numpy(image).permute(2, 0, 1)], "data_samples": [sample]}
    losses = train_once(model, batch)
    print(len(instances), losses)
    assert losses.keys() == {"loss", "loss_cls", "loss_bbox"}
    assert min(losses.values()) > 0


def test_fcos3d_trains_on_the_real_keyframe(frameworks: Any, real_data: Path) -> None:
    """mmdet3d's own config; the deformable convolution of its head is an operator that mmcv-lite lacks."""
    config = config_of(frameworks, "mmdet3d", "fcos3d/fcos3d_r101-caffe-dcn_fpn_head-gn_8xb2-1x_nus-mono3d.py")
    config.model.backbone.update(pixels="caffe", frozen_stages=1)
    config.model.bbox_head.dcn_on_last_conv = False
    model = build(frameworks, "mmdet3d", config)
    image, in_3d, in_image, info = keyframe(frameworks, real_data, shrink=2)
    sample = frameworks.mmdet3d_structures.Det3DDataSample(metainfo=info, gt_instances_3d=in_3d, gt_instances=in_image)
    batch = {"inputs": {"img": [torch.from_numpy(image).permute(2, 0, 1)]}, "data_samples": [sample]}
    losses = train_once(model, batch)
    print(len(in_3d), losses)
    assert {"loss", "loss_cls", "loss_depth", "loss_offset", "loss_size", "loss_rotsin"} <= losses.keys()
    assert losses["loss_depth"] > 0


# What docs/BEV.md tells a user to type in other people's models

PAGE = (Path(__file__).parents[1] / "docs" / "BEV.md").read_text(encoding="utf-8")


def typed(name: str, module: str, patch: pytest.MonkeyPatch) -> Any:
    """The class that the page has a user write, around the tiny preset; `module` is the host's, which it goes into."""
    (block,) = (text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"class {name}" in text)
    package, _, file = module.partition(".")
    host = types.ModuleType(module)
    patch.setitem(sys.modules, package, types.ModuleType(package))
    patch.setattr(sys.modules[package], file, host, raising=False)
    patch.setitem(sys.modules, module, host)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(block.replace('"paper"', '"tiny"'), names)  # the page's own lines
    assert names[name] in vars(host).values()
    return names[name]


def test_the_trunk_for_lift_splat_shoot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pixel's features spread over the depths: they sum up to what they were."""
    trunk = typed("HybridCamEncode", "src.models", monkeypatch)(41, 64, 16)
    lifted = trunk(torchvision_pixels(np.tile(picture(), (4, 4, 1))[:128]))
    assert lifted.shape == (1, 64, 41, 8, 15)
    shares = lifted / lifted.sum(2, keepdim=True)
    torch.testing.assert_close(shares[:, :1].expand_as(shares), shares, atol=1e-3, rtol=1e-3)
    lifted.square().mean().backward()
    assert not [n for n, p in trunk.named_parameters() if p.requires_grad and p.grad is None]


def test_the_trunk_for_simple_bev(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = typed("HybridTrunk", "nets.segnet", monkeypatch)(128)
    found = trunk(torchvision_pixels(np.tile(picture(), (4, 4, 1))[:128]))
    assert found.shape == (1, 128, 16, 30)
    found.square().mean().backward()
    assert not [n for n, p in trunk.named_parameters() if p.requires_grad and p.grad is None]


def test_the_page_names_every_way_to_declare_pixels() -> None:
    assert all(f'`"{name}"`' in PAGE for name in NORMALIZATIONS)


def test_the_pages_config_builds(frameworks: Any, tmp_path: Path) -> None:
    """Its first block, as a config file with the shipped weights."""
    (block,) = (text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "channels=" in text)
    folder = str(shipped_folder("tiny-rendered"))
    file = tmp_path / "config.py"
    file.write_text(block.replace('"paper"', '"tiny"').replace("runs/stage2", folder))
    config = frameworks.mmengine_config.Config.fromfile(str(file))
    backbone = frameworks.mmengine_registry.MODELS.build(config.model.backbone)
    backbone.init_weights()
    assert [m.shape[1] for m in backbone(torchvision_pixels(picture()))] == [512, 1024, 2048]
