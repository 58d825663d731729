"""The authors' checkpoints: equal outputs at the paper's size, and every kind of file they wrote."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from hybrid_encoder.cli import main
from hybrid_encoder.commands.convert import convert, open_depth_model
from hybrid_encoder.config import PRESETS
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.depth_model import DepthModel
from hybrid_encoder.model.encoder import HybridEncoder, create_encoder
from hybrid_encoder.model.pose import ClassTokenPose, PoseDecoder
from hybrid_encoder.model.resnet import ResnetEncoder
from hybrid_encoder.released.names import UNUSED, decoder_tensors, encoder_tensors
from hybrid_encoder.released.single_frame import (
    fill_from_stage1,
    is_released,
    load_released,
    load_released_model,
    load_released_pose,
    load_released_teacher,
)
from hybrid_encoder.released.two_frame import load_released_matching
from hybrid_encoder.stage2.checkpoint import file_entries, fill
from hybrid_encoder.weights.reading import load_state

from .released_files import (
    DATA,
    TINY_RELEASED,
    no_random_start,
    parity_files,
    parity_image,
    tiny_decoder,
    tiny_encoder,
    write_folder,
)

SIZE = ["--height", "64", "--width", "96"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Released = tuple[HybridEncoder, DPTDecoder, dict[str, dict[str, Tensor]]]


class Hyperparameters:
    """What Lightning pickles beside the weights; the reader need not have the class."""

    def __init__(self) -> None:
        self.lr = 3.57e-4


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    folder = tmp_path_factory.mktemp("released")
    files = parity_files()
    sizes = {"height": 224, "width": 672, "use_stereo": False}
    torch.save({**files["encoder.pth"], **sizes}, folder / "encoder.pth")
    torch.save(files["depth.pth"], folder / "depth.pth")
    with no_random_start():
        encoder, decoder = load_released(folder)
    for path in folder.iterdir():
        path.unlink()
    assert decoder is not None
    return encoder, decoder, files


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "released", TINY_RELEASED)


def test_outputs_equal_the_authors(released: Released) -> None:
    encoder, decoder, _ = released
    with torch.no_grad():
        features = encoder.forward_features(parity_image())
        disparity = decoder(features)["disp", 0]
        text = encoder.language.text_features().T
    ours = {"disp": disparity[0, 0, ::4, ::4], "text": text[::4], "cls": features.class_token}
    ours |= {f"level{i}": level[0, ::16, ::2, ::3] for i, level in enumerate(features.fused)}
    ours["level_mean"] = torch.stack([level.double().mean() for level in features.fused])
    ours["level_absmean"] = torch.stack([level.double().abs().mean() for level in features.fused])
    with np.load(DATA / "released_outputs.npz") as theirs:
        assert set(theirs) == set(ours)
        for name, value in ours.items():
            assert value is not None
            expected = torch.from_numpy(theirs[name])
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
        # The text features are small: an absolute 1e-4 alone would say little of them.
        assert (text[::4] - torch.from_numpy(theirs["text"])).abs().max() < 1e-6


def test_every_parameter_is_filled_and_every_tensor_used(released: Released) -> None:
    encoder, decoder, files = released
    filled = encoder_tensors(files["encoder.pth"], encoder, "encoder.pth")
    own = {name: value for name, value in encoder.state_dict().items() if not name.endswith((".mean", ".std"))}
    assert set(filled) == set(own)
    for name, value in own.items():
        assert torch.equal(value, filled[name]), name
    assert set(decoder_tensors(files["depth.pth"])) == set(decoder.state_dict())
    for name, value in decoder_tensors(files["depth.pth"]).items():
        assert torch.equal(decoder.state_dict()[name], value), name

    names = [*files["encoder.pth"], *files["depth.pth"]]
    unused = {name for name in names if any(fnmatchcase(name, pattern) for pattern in UNUSED)}
    attention_pool = {f"clip.visual.attnpool.{p}_proj.{kind}" for p in "kqvc" for kind in ("weight", "bias")}
    no_neighbour = {
        f"depth_head.scratch.refinenet4.resConfUnit1.conv{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")
    }
    assert unused == attention_pool | no_neighbour | {
        "clip.visual.attnpool.positional_embedding",
        "clip.logit_scale",
        "dinov2.mask_token",
        "depth_head.projects.4.weight",
        "depth_head.projects.4.bias",
    }
    # 16 tokens become one tensor, all else is one to one.
    assert len(names) - len(unused) == len(filled) + 15 + len(decoder.state_dict())


def test_preset_and_quirks_are_read_off_the_file(released: Released) -> None:
    encoder, decoder, files = released
    assert encoder.config.num_tokens == 16
    assert (encoder.config.normalization, encoder.config.text_norm) == ("none", "matrix")
    assert encoder.config.position_resize == "facebook"
    assert decoder.head == "relu"
    assert not encoder.training
    lacking = {k: v for k, v in files["encoder.pth"].items() if k != "dinov2.blocks.3.attn.qkv.weight"}
    with pytest.raises(UserError, match=r"1 missing \(dino\.vit\.blocks\.3\.attn\.qkv\.weight\)"):
        load_state(encoder, encoder_tensors(lacking, encoder, "x"), "x")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("towers", "changes", "channels"),
    [
        ({}, {}, 64 + 64 + 5),
        ({"dino": False}, {"dino": None}, 64 + 5),
        ({"image_tower": False}, {"image_tower": None}, 64 + 5),
        ({}, {"alignment": "replace"}, 5),
        ({}, {"alignment": "none"}, 128),
    ],
)
def test_towers_tokens_and_alignment_are_read_off_the_file(
    towers: dict[str, bool], changes: dict[str, Any], channels: int, tmp_path: Path
) -> None:
    config = TINY_RELEASED.replace(num_tokens=5, pyramid=False, **changes).without_downloads()
    encoder, decoder = load_released(write_folder(tmp_path, config, **towers))
    assert encoder.config == config
    assert encoder.aligned_channels == (channels,) * 4
    assert decoder is not None
    assert decoder(encoder.forward_features(torch.rand(1, 3, 64, 96)))["disp", 0].shape == (1, 1, 64, 96)


@pytest.mark.usefixtures("tiny")
def test_stage_1_lightning_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = {f"model.{k}": v for k, v in tiny_encoder(tokens=0).items()}
    head = {f"model.{name}": torch.zeros(1) for name in tiny_decoder(TINY_RELEASED.replace(num_tokens=5))}
    path = tmp_path / "stage1.ckpt"
    torch.save({"state_dict": {**tensors, **head}, "hyper_parameters": Hyperparameters(), "epoch": 19}, path)
    assert is_released(path)
    assert main(["info", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: stage 1; CLIP and DINO")
    encoder, decoder = load_released(path)
    said = capsys.readouterr().err
    assert (
        f"{path}: stage 1; CLIP and DINO, interp_conv1x1; CLIP sees images with ImageNet's mean and deviation, DINO"
        in said
    )
    assert f"{len(head)} tensors of a depth head, which stage 1 builds and never trains, are left out" in said
    assert decoder is None
    assert encoder.dino.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)  # type: ignore[union-attr]
    assert torch.equal(encoder.fusion.project[1].weight, tensors["model.clip_align_conv.1.weight"])
    words = encoder.language.word_features()
    assert words.shape == (7, 64)
    torch.testing.assert_close(words.norm(dim=1), torch.ones(7))
    # The tokens lie between the words of the file, not between those of the random start.
    expected = encoder.language._interpolated_words(encoder.config.num_tokens)
    assert torch.equal(encoder.language.tokens, expected)

    own = create_encoder("tiny", num_tokens=9, text_norm="prompt")
    pyramid = {k: v.clone() for k, v in own.pyramid.state_dict().items()}  # type: ignore[union-attr]
    fill_from_stage1(own, path)
    assert (own.config.ranking, own.config.rank_order) == ("one_way", "far_to_near")
    assert (
        "in the authors' stage 1, CLIP sees images with ImageNet's mean and deviation, DINO sees images with "
        "ImageNet's mean and deviation; in this encoder, CLIP sees images with its own mean"
    ) in capsys.readouterr().err
    assert torch.equal(own.dino.vit.cls_token, tensors["model.dinov2.cls_token"])  # type: ignore[union-attr]
    assert all(torch.equal(v, own.pyramid.state_dict()[k]) for k, v in pyramid.items())  # type: ignore[union-attr]
    torch.testing.assert_close(own.language.word_features(), words)
    with pytest.raises(UserError, match="predicts no depth yet"):
        load_released_model(path)

    torch.save({"state_dict": {**tensors, "model.extra.weight": torch.ones(1)}}, path)
    with pytest.raises(UserError, match=r"1 surplus \(extra\.weight\)"):
        load_released(path)
    assert load_released(path, ignore=["extra.*"])[1] is None


@pytest.mark.usefixtures("tiny")
def test_wrong_folders_say_what_they_are(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "right")
    with pytest.raises(UserError, match=r"encoder\.pth cannot be read"):
        load_released(tmp_path)
    (tmp_path / "cut").mkdir()
    for name in ("encoder.pth", "depth.pth"):
        data = (folder / name).read_bytes()
        (tmp_path / "cut" / name).write_bytes(data if name == "encoder.pth" else data[:-2000])
    with pytest.raises(UserError, match=r"depth\.pth.*truncated"):
        load_released(tmp_path / "cut")

    swapped = tmp_path / "swapped"
    swapped.mkdir()
    torch.save(tiny_encoder(), swapped / "depth.pth")
    torch.save(torch.load(folder / "depth.pth"), swapped / "encoder.pth")
    with pytest.raises(UserError, match="no encoder of the authors: it seems to be the DPT decoder of a stage-2"):
        load_released(swapped)
    torch.save(tiny_encoder(tokens=7), swapped / "encoder.pth")
    with pytest.raises(UserError, match="no DPT decoder of the authors: it seems to be the encoder of a stage-2"):
        load_released(swapped)
    torch.save(torch.load(folder / "depth.pth"), swapped / "depth.pth")
    with pytest.raises(UserError, match="levels of 133 channels, but the encoder beside it has 7 tokens"):
        load_released(swapped)
    torch.save(torch.load(folder / "encoder.pth", weights_only=True), tmp_path / "one.pth")
    with pytest.raises(UserError, match="no stage-1 checkpoint"):
        load_released(tmp_path / "one.pth")

    sizeless = {k: v for k, v in torch.load(folder / "encoder.pth").items() if k != "height"}
    torch.save(sizeless, folder / "encoder.pth")
    with pytest.raises(UserError, match="states no height"):
        load_released_model(folder)


@pytest.mark.usefixtures("tiny")
def test_manydepth_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path)
    (tmp_path / "encoder.pth").rename(tmp_path / "mono_encoder.pth")
    (tmp_path / "depth.pth").rename(tmp_path / "mono_depth.pth")
    join = torch.randn(64, 64 + 8, 3, 3)
    matching = {
        **tiny_encoder(seed=1),
        "backprojector.pix_coords": torch.zeros(1),
        "prematching_conv.0.weight": torch.zeros(16, 64, 1, 1),
        "reduce_conv.0.weight": join,
        "reduce_conv.0.bias": torch.zeros(64),
        "min_depth_bin": torch.tensor(0.4),
        "max_depth_bin": 31.5,
        "height": 64,
        "width": 96,
    }
    torch.save(matching, tmp_path / "encoder.pth")
    torch.save(tiny_decoder(TINY_RELEASED.replace(num_tokens=5)), tmp_path / "depth.pth")
    with pytest.raises(UserError, match="ManyDepth folder, whose encoder reads two frames"):
        load_released(tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    student, single = capsys.readouterr().out.splitlines()
    assert "two frames; 5 tokens;" in student
    assert "CLIP sees images with ImageNet's mean and deviation, DINO sees raw [0, 1]" in student
    assert "teacher; 5 tokens;" in single
    teacher = load_released_teacher(tmp_path)
    assert (teacher.height, teacher.width) == (64, 96)
    # The teacher saw raw pixels, the two-frame net's CLIP ImageNet's mean and deviation.
    assert torch.equal(teacher.encoder.image_tower.std, torch.ones(1, 3, 1, 1))  # type: ignore[union-attr]
    assert torch.equal(teacher.encoder.dino.std, torch.ones(1, 3, 1, 1))  # type: ignore[union-attr]

    read = load_released_matching(tmp_path)
    assert read.encoder.image_tower.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)  # type: ignore[union-attr]
    assert read.encoder.image_tower.std.flatten().tolist() == pytest.approx(IMAGENET_STD)  # type: ignore[union-attr]
    assert not read.encoder.dino.mean.any()  # type: ignore[union-attr]
    assert torch.equal(read.encoder.dino.std, torch.ones(1, 3, 1, 1))  # type: ignore[union-attr]
    assert (read.num_bins, read.height, read.width) == (8, 64, 96)
    assert (read.min_depth_bin, read.max_depth_bin) == (pytest.approx(0.4), 31.5)
    assert torch.equal(read.join_weight, join)
    shallow = read.encoder.matching_tower.shallow(torch.rand(1, 3, 64, 96))
    assert shallow.shape[1] + read.num_bins == read.join_weight.shape[1]

    torch.save({**matching, "other.weight": torch.ones(64, 70, 3, 3), "other.bias": torch.ones(64)}, tmp_path / "e.pth")
    (tmp_path / "e.pth").replace(tmp_path / "encoder.pth")
    with pytest.raises(UserError, match=r"found reduce_conv\.0\.weight, other\.weight"):
        load_released_matching(tmp_path)


@pytest.mark.usefixtures("tiny")
def test_pose_networks(tmp_path: Path) -> None:
    encoder, decoder = ResnetEncoder(18, "random", 2), PoseDecoder(512, 1, 2)
    torch.save(encoder.state_dict(), tmp_path / "pose_encoder.pth")
    torch.save(decoder.state_dict(), tmp_path / "pose.pth")
    pair = torch.rand(1, 6, 64, 96)
    # What the ResNet, which normalises, sees as raw pixels.
    seen = {"min_depth_bin": pair, "use_stereo": 0.225 * pair + 0.45}
    for entry in seen:
        torch.save({"clip.x": torch.zeros(1), entry: False}, tmp_path / "encoder.pth")
        read_encoder, read_decoder = load_released_pose(tmp_path)
        assert read_encoder is not None
        assert isinstance(read_decoder, PoseDecoder)
        found, expected = read_decoder([read_encoder(pair)]), decoder([encoder.eval()(seen[entry])])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.save({"clip.x": torch.zeros(1)}, tmp_path / "encoder.pth")
    with pytest.raises(UserError, match="how its nets saw pixels cannot be known"):
        load_released_pose(tmp_path)

    weight, bias = torch.randn(6, 128), torch.randn(6)
    torch.save({"fc.weight": weight, "fc.bias": bias}, tmp_path / "pose.pth")
    none, head = load_released_pose(tmp_path)
    assert none is None
    assert isinstance(head, ClassTokenPose)
    assert torch.equal(head.linear.weight, weight)
    torch.save({"fc.weight": torch.ones(5, 3)}, tmp_path / "pose.pth")
    with pytest.raises(UserError, match=r"pose\.pth does not fit PoseDecoder"):
        load_released_pose(tmp_path)


@pytest.mark.usefixtures("tiny")
def test_conversion_keeps_the_predictions(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "theirs")
    torch.save({"x.weight": torch.randn(6, 128), "x.bias": torch.randn(6)}, folder / "pose.pth")
    image = np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8)
    expected = load_released_model(folder).predict(image)
    assert np.ptp(expected) > 0

    written = convert(folder, tmp_path / "hub", training_data="KITTI raw")
    assert {path.name for path in written} == {"model.safetensors", "config.json", "README.md"}
    card = (tmp_path / "hub" / "README.md").read_text()
    for part in ("authors of Hybrid-depth", "KITTI raw", "MIT", "Apache-2.0", "released"):
        assert part in card, part
    np.testing.assert_array_equal(DepthModel.from_pretrained(tmp_path / "hub").predict(image), expected)
    encoder = create_encoder(tmp_path / "hub")
    assert encoder.about["training_data"] == "KITTI raw"

    written = convert(tmp_path / "theirs", tmp_path / "mono", layout="monodepth2")
    assert {path.name for path in written} == {"encoder.pth", "depth.pth", "pose.pth"}
    np.testing.assert_array_equal(open_depth_model(tmp_path / "mono").predict(image), expected)
    entries = torch.load(tmp_path / "mono" / "encoder.pth", weights_only=True)
    assert (entries["height"], entries["width"], entries["use_stereo"]) == (64, 96, True)
    convert(tmp_path / "mono", tmp_path / "back")
    np.testing.assert_array_equal(open_depth_model(tmp_path / "back").predict(image), expected)
    with pytest.raises(UserError, match="the source itself"):
        convert(folder, folder)

    path = tmp_path / "stage1.ckpt"
    torch.save({"state_dict": {f"model.{k}": v for k, v in tiny_encoder(tokens=0).items()}}, path)
    convert(path, tmp_path / "stage1")
    assert isinstance(create_encoder(tmp_path / "stage1"), HybridEncoder)
    with pytest.raises(UserError, match="no decoder"):
        convert(path, tmp_path / "stage1_mono", layout="monodepth2")


@pytest.mark.usefixtures("tiny")
def test_one_number_for_many_fills_a_stage_1_net(tmp_path: Path) -> None:
    """A checkpoint whose tensors are each one number, expanded: small on disk, and as good as any other."""
    tensors = {f"model.{k}": v.flatten()[0].expand(v.shape) for k, v in tiny_encoder(tokens=0).items()}
    path = tmp_path / "stage1.ckpt"
    torch.save({"state_dict": tensors, "hyper_parameters": Hyperparameters()}, path)
    encoder, _ = load_released(path)
    for level in (1, 2, 3):
        expected = tensors[f"model.clip_align_conv.{level}.weight"]
        assert torch.equal(encoder.fusion.project[level].weight, expected)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("alignment", ["concat", "none"])
@pytest.mark.parametrize("unused", ["image_tower", "dino"])
def test_an_unused_tower_in_the_file_is_left_out(unused: str, alignment: str, tmp_path: Path) -> None:
    """Both towers are in the file, of 64 and 48 channels; how many the decoder reads tells which were used."""
    config = TINY_RELEASED.replace(
        num_tokens=5, pyramid=False, alignment=alignment, fusion_channels=48, **{unused: None}
    )
    encoder = tiny_encoder()
    for level in (1, 2, 3):
        for kind in ("weight", "bias"):
            name = f"clip_align_conv.{level}.{kind}"
            encoder[name] = encoder[name][:48].clone()
    encoder |= {"clip_align_conv.0.weight": torch.randn(48, 64, 1, 1), "clip_align_conv.0.bias": torch.zeros(48)}
    torch.save({**encoder, "height": 64, "width": 96, "use_stereo": False}, tmp_path / "encoder.pth")
    torch.save(tiny_decoder(config), tmp_path / "depth.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "released", TINY_RELEASED.replace(fusion_channels=48))
        read, decoder = load_released(tmp_path)
    assert read.config == config.without_downloads()
    assert decoder is not None
    assert decoder(read.forward_features(torch.rand(1, 3, 64, 96)))["disp", 0].shape == (1, 1, 64, 96)


@pytest.mark.usefixtures("tiny")
def test_a_width_that_two_towers_share_is_refused(tmp_path: Path) -> None:
    config = TINY_RELEASED.replace(num_tokens=5, pyramid=False, dino=None)
    folder = write_folder(tmp_path)
    torch.save(tiny_decoder(config), folder / "depth.pth")
    with pytest.raises(UserError, match="levels of 69 channels, which may be CLIP with alignment=concat or DINO with"):
        load_released(folder)


@pytest.mark.usefixtures("tiny")
def test_trained_without_text(tmp_path: Path) -> None:
    config = TINY_RELEASED.replace(pyramid=False, alignment="none")
    encoder, decoder = load_released(write_folder(tmp_path, config, tokens=0))
    assert encoder.config == config.without_downloads()
    assert decoder is not None


@pytest.mark.usefixtures("tiny")
def test_the_other_fusion_is_read_off_and_has_no_output_padding(tmp_path: Path) -> None:
    tensors = tiny_encoder()
    for level, given in enumerate((64, 128, 256, 512)):
        shape = ((64, given, 3, 3), (64, given, 3, 3), (64, given, 1, 1), (given, 64, 3, 3))[level]
        tensors[f"clip_align_conv.{level}.weight"] = torch.randn(shape) / given**0.5
        tensors[f"clip_align_conv.{level}.bias"] = torch.randn(64)
    folder = write_folder(tmp_path)
    torch.save({**tensors, "height": 64, "width": 96, "use_stereo": False}, folder / "encoder.pth")
    encoder, _ = load_released(folder)
    assert encoder.config.fusion == "convs2_interp"
    maps = [torch.rand(1, channels, 56 >> i, 168 >> i) for i, channels in enumerate((64, 128, 256, 512))]
    fused = encoder.fusion(maps, None, (16, 48))
    weight, bias = (tensors[f"clip_align_conv.3.{kind}"] for kind in ("weight", "bias"))
    theirs = torch.nn.functional.conv_transpose2d(maps[3], weight, bias, stride=2, padding=1)
    assert theirs.shape[-2:] == (13, 41)
    torch.testing.assert_close(fused[3], torch.nn.functional.interpolate(theirs, (16, 48)))
    # Ours adds a row and a column; files that were written so keep it.
    ours = create_encoder("tiny", fusion="convs2_interp").fusion.project[3](maps[3])
    assert ours.shape[-2:] == (14, 42)
    assert PRESETS["paper"].convs2_output_padding


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("prefix", ["resnet.", "clip.visual."])
def test_an_imagenet_resnet_in_clips_place(prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole of CLIP may be in the file all the same, unless the ResNet has taken the place of its image half."""
    torch.manual_seed(1)
    resnet = timm.create_model("resnet50", pretrained=False)
    tensors = tiny_encoder()
    if prefix == "clip.visual.":
        tensors = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
    tensors |= {f"{prefix}{name}": value for name, value in resnet.state_dict().items()}
    for level, given in enumerate((256, 512, 1024, 2048)):
        tensors[f"clip_align_conv.{level}.weight"] = torch.randn(64, given, 1, 1) / given**0.5
        tensors[f"clip_align_conv.{level}.bias"] = torch.zeros(64)
    config = TINY_RELEASED.replace(num_tokens=5, pyramid=False, image_tower="resnet50").without_downloads()
    torch.save({**tensors, "height": 64, "width": 96, "use_stereo": False}, tmp_path / "encoder.pth")
    torch.save(tiny_decoder(config), tmp_path / "depth.pth")
    encoder, decoder = load_released(tmp_path)
    assert "an ImageNet ResNet-50 in CLIP's place and DINO, interp_conv1x1" in capsys.readouterr().err
    assert encoder.config == config.replace(image_tower="resnet50.tv_in1k")
    image = torch.rand(1, 3, 64, 96)
    resnet.eval()
    with torch.no_grad():
        shallow = resnet.layer1(resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(image)))))
        torch.testing.assert_close(encoder.image_tower(image)[0], shallow)  # type: ignore[misc]
        torch.testing.assert_close(encoder.image_tower(image)[3], resnet.forward_features(image))  # type: ignore[misc]
        assert decoder is not None
        assert decoder(encoder.forward_features(image))["disp", 0].shape == (1, 1, 64, 96)


@pytest.mark.usefixtures("tiny")
def test_unknown_normalization_is_refused_until_it_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "unknown")
    entries = torch.load(folder / "encoder.pth")
    del entries["use_stereo"]
    torch.save(entries, folder / "encoder.pth")
    for load in (load_released, load_released_model, open_depth_model):
        with pytest.raises(UserError, match=r"cannot be known.*--normalization none"):
            load(folder)
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8))
    predict = ["predict", str(image), "--weights", str(folder), "--out", str(tmp_path / "out"), "--npy"]
    predict += ["--precision", "float32"]
    evaluate = ["evaluate", "--weights", str(folder), "--dataset", "synthetic", "--scenes", "1", *SIZE]
    for command in (predict, evaluate):
        assert main([*command, "--device", "cpu"]) == 2
        assert "cannot be known" in capsys.readouterr().err
        assert main([*command, "--device", "cpu", "--normalization", "imagenet"]) == 0
        assert "CLIP sees images with ImageNet's mean and deviation" in capsys.readouterr().err
    depth = load_released_model(folder, normalization="imagenet").predict(image)
    np.testing.assert_allclose(np.load(next((tmp_path / "out").glob("*.npy"))), depth, rtol=1e-5)
    encoder, _ = load_released(folder, normalization="imagenet")
    assert encoder.image_tower.mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)  # type: ignore[union-attr]
    out = tmp_path / "known"
    assert main(["convert", str(folder), "--out", str(out), "--normalization", "none"]) == 0
    assert open_depth_model(out).encoder.config.normalization == "none"  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"known states its own pixel normalisation, leave the option out"):
        open_depth_model(out, normalization="none")


@pytest.mark.usefixtures("tiny")
def test_a_pose_resnet_keeps_what_it_does_to_pixels(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "theirs")
    nets = {"pose_encoder": ResnetEncoder(18, "random", 2), "pose": PoseDecoder(512, 1, 2)}
    for name, net in nets.items():
        torch.save(net.state_dict(), folder / f"{name}.pth")
    out = tmp_path / "ours"
    convert(folder, out, layout="monodepth2")
    assert torch.load(out / "pose_encoder.pth")["normalization"] == "none"
    same, other = ResnetEncoder(18, "random", 2, "none"), ResnetEncoder(18, "random", 2)
    fill(same, out / "pose_encoder.pth")
    with pytest.raises(UserError, match="was trained with --pose_normalization none: give the same, not monodepth2"):
        fill(other, out / "pose_encoder.pth")
    with pytest.raises(UserError, match="was trained with --pose_normalization monodepth2"):
        fill(same, folder / "pose_encoder.pth")
    # The second writing keeps it, and the usual way leaves no entry that the original's code would stumble over.
    convert(out, tmp_path / "again", layout="monodepth2")
    assert torch.load(tmp_path / "again" / "pose_encoder.pth")["normalization"] == "none"
    assert set(file_entries(other)) == set(other.state_dict())
