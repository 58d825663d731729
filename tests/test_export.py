"""Export: the file computes what the model computes, also at sizes and batches that it was not traced at."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

import hybrid_encoder
from hybrid_encoder import DepthModel, DPTDecoder, UserError, create_encoder
from hybrid_encoder.cli import main
from hybrid_encoder.colormap import write_picture
from hybrid_encoder.model import export, onnx_depth
from hybrid_encoder.model.contract import DepthEncoder
from hybrid_encoder.model.export import export_onnx, export_torch
from hybrid_encoder.model.onnx_depth import OnnxDepthModel, OnnxProgram
from hybrid_encoder.model.resnet import ResnetEncoder, UNetDecoder

SIZES = [(1, 64, 96), (4, 96, 64), (2, 224, 160)]


def resnet() -> DepthModel:
    torch.manual_seed(0)
    encoder = ResnetEncoder(18, "random")
    return DepthModel(encoder, UNetDecoder(encoder.num_ch_enc), 64, 96, 0.5, 20.0).eval()


@pytest.fixture(scope="module")
def model() -> DepthModel:
    torch.manual_seed(0)
    encoder = create_encoder("tiny", pyramid=False)
    return DepthModel(encoder, DPTDecoder(encoder), 64, 96, 0.5, 20.0).eval()


@pytest.fixture(scope="module")
def onnx_file(model: DepthModel, module_path: Path) -> Path:
    """As the command writes it."""
    need_onnx()
    model.save_pretrained(module_path / "hub")
    path = module_path / "out" / "depth.onnx"
    assert main(["export", str(module_path / "hub"), "--out", str(path)]) == 0
    return path


def need_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'hybrid-encoder[export]'")


def check_equal(program: Any, model: DepthModel) -> None:
    for batch, height, width in SIZES:
        image = torch.rand(batch, 3, height, width)
        disparity, depth = program(image)
        expected = model.disparity(image)
        assert disparity.shape == depth.shape == (batch, 1, height, width)
        torch.testing.assert_close(disparity, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(depth, 1 / expected, atol=1e-4, rtol=1e-4)


def test_onnx_computes_what_the_model_does(model: DepthModel, onnx_file: Path) -> None:
    runtime = OnnxDepthModel(onnx_file)
    check_equal(runtime, model)
    assert (runtime.height, runtime.width, runtime.min_depth, runtime.max_depth) == (64, 96, 0.5, 20.0)
    assert [path.name for path in onnx_file.parent.iterdir()] == ["depth.onnx"]  # no data beside it


def test_metadata_say_what_goes_in_and_comes_out(onnx_file: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    about = onnxruntime.InferenceSession(str(onnx_file)).get_modelmeta().custom_metadata_map
    assert "RGB in [0, 1]" in about["input"]
    assert (about["height"], about["width"], about["max_depth"]) == ("64", "96", "20.0")
    assert json.loads(about["about"])["preset"].startswith("tiny")


class _Nearest(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows, columns = (side // 14 for side in image.shape[-2:])
        resized = F.interpolate(image[..., ::4, ::4], (rows, columns), mode="nearest")
        return resized, -resized


def test_nearest_resizing_takes_the_same_pixels(tmp_path: Path) -> None:
    """At 224 x 672, 56 x 168 to 16 x 48, onnxruntime's own takes others at four of nine positions."""
    need_onnx()
    onnxruntime = pytest.importorskip("onnxruntime")
    sizes = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(_Nearest(), (torch.rand(1, 3, 96, 160),), dynamic_shapes=(sizes,))
    export._to_onnx(program, ("resized", "negative")).save(tmp_path / "nearest.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "nearest.onnx"))
    for height, width in ((224, 672), (192, 640), (96, 64)):
        image = torch.rand(1, 3, height, width)
        found, _ = session.run(None, {"image": image.numpy()})
        assert np.array_equal(found, _Nearest()(image)[0].numpy())


def test_u_nets_export_too(tmp_path: Path) -> None:
    need_onnx()
    model = resnet()
    assert hybrid_encoder.export_onnx(model, tmp_path / "depth.onnx") < 1e-5
    check_equal(OnnxDepthModel(tmp_path / "depth.onnx"), model)


def test_a_torch_program_of_a_model_in_training_computes_as_in_eval_mode(tmp_path: Path) -> None:
    model, path, extra = resnet().train(), tmp_path / "depth.pt2", {"metadata.json": ""}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert export_torch(model, path) < 1e-5
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    check_equal(torch.export.load(path, extra_files=extra).module(), model.eval())
    assert json.loads(extra["metadata.json"])["width"] == "96"


def check_maps(program: Any, encoder: DepthEncoder) -> None:
    """Three sizes and batches, against the drop-in maps."""
    for batch, height, width in SIZES:
        image = torch.rand(batch, 3, height, width)
        for found, expected in zip(program(image), encoder(image), strict=True):
            assert found.shape == expected.shape
            torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


@torch.no_grad()
def test_an_encoder_alone_exports_its_maps(tmp_path: Path) -> None:
    """From a folder that `save_pretrained` wrote, by the command."""
    need_onnx()
    torch.manual_seed(0)
    encoder = create_encoder("tiny").eval()
    encoder.save_pretrained(tmp_path / "encoder")
    path = tmp_path / "encoder.onnx"
    assert main(["export", str(tmp_path / "encoder"), "--part", "encoder", "--out", str(path)]) == 0
    program = OnnxProgram(path)
    assert program.names == ["image", "stride2", "stride4", "stride8", "stride16", "stride32"]
    check_maps(program, encoder)


@torch.no_grad()
def test_an_encoder_without_maps_exports_its_levels(model: DepthModel, tmp_path: Path) -> None:
    encoder = model.encoder
    assert export_torch(encoder, tmp_path / "encoder.pt2") < 2e-5
    image = torch.rand(1, 3, 64, 96)
    found = torch.export.load(tmp_path / "encoder.pt2").module()(image)
    for one, expected in zip(found, encoder.forward_features(image).fused, strict=True):
        torch.testing.assert_close(one, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "dino", "resize"),
    [
        ("torch", "vit_small_patch14_dinov2", "facebook"),
        ("onnx", "vit_small_patch14_dinov2", "facebook"),
        ("onnx", "vit_small_patch16_dinov3", "timm"),
    ],
)
def test_dino_of_timm_exports_for_any_size(kind: str, dino: str, resize: str, tmp_path: Path) -> None:
    """Also for sides that are multiples of DINOv2's 14 pixels, or as many patches as its position embedding has (37):
    there the released weights' resizing has no offset."""
    if not hasattr(torch.compiler, "is_exporting"):
        pytest.skip("before 2.7 PyTorch does not tell that it exports")
    torch.manual_seed(0)
    changes: dict[str, Any] = {"dino_blocks": (0, 1, 2, 3), "image_tower": None, "alignment": "none", "pyramid": False}
    encoder = create_encoder("tiny", dino=dino, position_resize=resize, **changes).eval()
    if resize == "facebook":
        torch.nn.init.normal_(encoder.dino.vit.pos_embed)
    path = tmp_path / "levels"
    if kind == "onnx":
        need_onnx()
        assert export_onnx(encoder, path) < 1e-5
        program = OnnxProgram(path)
    else:
        assert export_torch(encoder, path) < 1e-5
        program = torch.export.load(path).module()
    for height, width in ((224, 96), (96, 224), (512, 512), (512, 64)):
        image = torch.rand(1, 3, height, width)
        for found, level in zip(program(image), encoder.forward_features(image).fused, strict=True):
            torch.testing.assert_close(found, level, atol=1e-4, rtol=1e-4)


class _Wrong(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        disparity = image[:, :1] + 0.1
        return disparity, 1 / disparity


def test_a_program_that_differs_is_not_written(
    model: DepthModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(_Wrong(), (torch.rand(2, 3, 64, 96),), dynamic_shapes=(sizes,))
    monkeypatch.setattr(export, "_program", lambda _: program)
    path = tmp_path / "depth.pt2"
    path.write_bytes(b"an older file")
    with pytest.raises(UserError, match=r"is not written: at 1 x 64 x 96 .* differs"):
        export_torch(model, path)
    assert path.read_bytes() == b"an older file"
    assert [one.name for one in tmp_path.iterdir()] == ["depth.pt2"]


def test_what_is_not_finite_differs(model: DepthModel) -> None:
    prepared = export._Depths(model)
    with pytest.raises(UserError, match="disparity of the exported program differs from the model's by nan"):
        export._compare(prepared, lambda image: (image[:, :1] * torch.nan, image[:, :1]), "depth.onnx")


def test_what_pytorch_cannot_export_is_told(model: DepthModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("no function for aten::strange\nand more")

    monkeypatch.setattr(export, "_program", refuse)
    with pytest.raises(UserError, match=r"cannot be exported to torch.export: no function for aten::strange$"):
        export_torch(model, tmp_path / "depth.pt2")
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(model: DepthModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"onnx is not installed .*hybrid-encoder\[export\]"):
        export_onnx(model, tmp_path / "depth.onnx")
    assert not list(tmp_path.iterdir())


def test_weights_beyond_one_file_are_refused(
    model: DepthModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_onnx()
    monkeypatch.setattr(export, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match="--format torch"):
        export_onnx(model, tmp_path / "large.onnx")


# The commands


def images(folder: Path) -> Path:
    folder.mkdir()
    for i, size in enumerate([(50, 70), (64, 96), (130, 200)]):
        write_picture(folder / f"{i}.png", np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8))
    return folder


def test_predict_reads_the_file_and_gives_equal_depth(onnx_file: Path, module_path: Path, tmp_path: Path) -> None:
    source = images(tmp_path / "in")
    for name, weights in (("torch", module_path / "hub"), ("onnx", onnx_file)):
        given = ["predict", str(source), "--weights", str(weights), "--npy", "--out", str(tmp_path / name)]
        assert main([*given, "--device", "cpu", "--precision", "float32"]) == 0
    for i in range(3):
        expected = np.load(tmp_path / "torch" / f"{i}.npy")
        np.testing.assert_allclose(np.load(tmp_path / "onnx" / f"{i}.npy"), expected, rtol=1e-5)


def test_the_command_writes_either_format_and_tells_the_difference(
    model: DepthModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def write(_: DepthModel, path: Path) -> float:
        path.write_bytes(bytes(2_000_000))
        return 3e-7

    model.save_pretrained(tmp_path / "hub")
    for kind, path in (("onnx", tmp_path / "depth.onnx"), ("torch", tmp_path / "depth.pt2")):
        monkeypatch.setattr(f"hybrid_encoder.commands.export.export_{kind}", write)
        assert main(["export", str(tmp_path / "hub"), "--format", kind, "--out", str(path)]) == 0
        assert f"{path}: 2 MB, at three sizes within 3e-07 of" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags", [["--sequence"], ["--compile"], ["--precision", "bf16"], ["--device", "cuda"], ["--device", "cuda:1"]]
)
def test_options_of_pytorch_are_refused(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given = ["predict", "x.png", "--weights", "depth.onnx", "--out", str(tmp_path), *flags]
    assert main(given) == 2
    assert f"{' '.join(flags)} is not possible" in capsys.readouterr().err


def test_files_that_are_no_exported_model(onnx_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "cut.onnx").write_bytes(onnx_file.read_bytes()[: -(1 << 12)])
    onnx = pytest.importorskip("onnx")
    foreign = onnx.load(onnx_file)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    for name, message in (
        ("text.onnx", "cannot be opened as an ONNX file"),
        ("cut.onnx", "cannot be opened as an ONNX file"),
        ("foreign.onnx", "does not state its image size"),
        ("none.onnx", "no such file"),
    ):
        given = ["predict", "x.png", "--weights", str(tmp_path / name), "--out", str(tmp_path / "out")]
        assert main(given) == 2
        assert message in capsys.readouterr().err


def test_an_image_that_the_file_cannot_take(onnx_file: Path) -> None:
    with pytest.raises(UserError, match=r"depth.onnx cannot be run on images of 1 x 3 x 64 x 96 x 1 \(.*rank"):
        OnnxProgram(onnx_file)(torch.rand(1, 3, 64, 96, 1))


def test_without_onnxruntime_predict_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["predict", "x.png", "--weights", "depth.ONNX", "--out", str(tmp_path)]) == 2
    assert onnx_depth.EXTRA in capsys.readouterr().err
