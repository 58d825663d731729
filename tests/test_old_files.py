"""Files that version 0.1.0 wrote open today and compute what they computed then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hybrid_encoder import DepthModel, create_encoder
from hybrid_encoder.commands.convert import open_depth_model
from hybrid_encoder.errors import UserError
from hybrid_encoder.stage1.checkpoint import open_stage1
from hybrid_encoder.two_frame.checkpoint import load_two_frame_model

from .old_files import DATA, old_image, write_old_files


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    write_old_files(folder)
    return folder


@torch.no_grad()
def output(old: Path, what: str) -> Tensor:
    image = old_image()
    if what == "stage1":
        return open_stage1(old / "s1" / "stage1.pth").eval().forward_features(image).aligned[3]
    if what == "hub":
        return DepthModel.from_pretrained(old / "hub").disparity(image)
    if what == "hub_encoder":
        return create_encoder(str(old / "hub_encoder"))(image)[4]
    if what == "teacher":
        return open_depth_model(old / "many", teacher=True).disparity(image)
    if what == "many":
        frames, K = old_image(2), torch.tensor([[[60.0, 0, 48], [0, 60, 32], [0, 0, 1]]])
        return load_two_frame_model(old / "many")({0: frames[:1], -1: frames[1:]}, K)
    return open_depth_model(old / what).disparity(image)


@pytest.mark.parametrize("what", ["mono", "unet", "many", "teacher", "stage1", "hub", "hub_encoder"])
def test_an_old_file_computes_what_it_did(what: str, old: Path) -> None:
    expected = np.load(DATA / "old_files.npz")[what]
    found = output(old, what).numpy()
    # Batched matrix products may add up in another order on another machine.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_file_that_describes_a_larger_net_is_refused_before_it_takes_memory(old: Path) -> None:
    """The net would have a ViT of a billion parameters."""
    for name, key, opened in (
        ("s1/stage1.pth", "config", open_stage1),
        ("many/models/weights_0/encoder.pth", "hybrid_config", lambda path: load_two_frame_model(path.parent)),
    ):
        content = torch.load(old / name, weights_only=True)
        hostile = {**json.loads(content[key]), "dino": "vit_giant_patch14_dinov2"}
        torch.save({**content, key: json.dumps(hostile)}, old / name)
        with pytest.raises(UserError, match="does not fit") as refused:
            opened(old / name)
        assert str(refused.value).count(str(old)) == 1  # the file is named once
        torch.save(content, old / name)
