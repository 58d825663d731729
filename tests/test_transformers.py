"""Depth models in the library transformers: the same folder, the same depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hybrid_encoder import DepthModel, UserError, create_encoder
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.resnet import ResnetEncoder, UNetDecoder

transformers: Any = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'hybrid-encoder[transformers]'"
)
IMAGES = [
    np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8) for i, size in enumerate([(70, 100), (40, 60)])
]


@pytest.fixture(scope="module", params=["hybrid", "resnet"])
def model(request: pytest.FixtureRequest) -> DepthModel:
    torch.manual_seed(0)
    if request.param == "resnet":
        resnet = ResnetEncoder(18, "random")
        return DepthModel(resnet, UNetDecoder(resnet.num_ch_enc), 64, 96, 0.5, 20.0, "lanczos").eval()
    encoder = create_encoder("tiny", pyramid=False)
    return DepthModel(encoder, DPTDecoder(encoder, (0, 1)), 64, 96, 0.5, 20.0).eval()


@pytest.fixture(scope="module")
def folder(model: DepthModel, module_path: Path) -> Path:
    import hybrid_encoder.adapters.transformers  # noqa: F401 (registers)

    return model.save_pretrained(module_path / type(model.encoder).__name__, transformers=True)


def test_the_pipeline_gives_the_depth_of_predict(model: DepthModel, folder: Path) -> None:
    pipe = transformers.pipeline("depth-estimation", str(folder))
    assert {parameter.device.type for parameter in pipe.model.parameters()} == {"cpu"}
    found = pipe([Image.fromarray(image) for image in IMAGES])
    for one, image in zip(found, IMAGES, strict=True):
        np.testing.assert_allclose(one["predicted_depth"].numpy(), model.predict(image), rtol=1e-5, atol=0)
        assert one["depth"].size == (image.shape[1], image.shape[0])


def test_one_folder_serves_both_libraries_and_comes_back_from_either(
    model: DepthModel, folder: Path, tmp_path: Path
) -> None:
    expected = model.predict(IMAGES[0])
    np.testing.assert_array_equal(DepthModel.from_pretrained(folder).predict(IMAGES[0]), expected)
    theirs = transformers.AutoModelForDepthEstimation.from_pretrained(folder)
    own = dict(model.state_dict())
    assert {name: tuple(value.shape) for name, value in theirs.state_dict().items()} == {
        name: tuple(value.shape) for name, value in own.items()
    }
    assert all(torch.equal(value, own[name]) for name, value in theirs.state_dict().items())
    theirs.save_pretrained(tmp_path / "theirs")
    np.testing.assert_array_equal(DepthModel.from_pretrained(tmp_path / "theirs").predict(IMAGES[0]), expected)


def test_a_batch_of_tensors_passes_the_model_itself(model: DepthModel, folder: Path) -> None:
    theirs = transformers.AutoModelForDepthEstimation.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=IMAGES, return_tensors="pt")
    assert inputs["pixel_values"].shape == (2, 3, 64, 96)
    with torch.no_grad():
        depth = theirs(**inputs).predicted_depth
    torch.testing.assert_close(depth, 1 / model.disparity(inputs["pixel_values"])[:, 0])


def test_without_the_flag_the_folder_is_as_before(model: DepthModel, folder: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    added = (
        json.loads((folder / "config.json").read_text()).keys()
        - json.loads((tmp_path / "config.json").read_text()).keys()
    )
    assert added == {"model_type", "architectures", "dtype"}


def test_a_config_of_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["encoder"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"describes no depth model .*'encoder'"):
        transformers.AutoModelForDepthEstimation.from_config(transformers.AutoConfig.from_pretrained(tmp_path))
