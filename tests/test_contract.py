"""The encoder contract, kept by every encoder; and the one description of nets."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from hybrid_encoder import DepthModel, create_encoder
from hybrid_encoder.config import preset
from hybrid_encoder.errors import UserError
from hybrid_encoder.model.contract import DepthEncoder
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.nets import DepthNets
from hybrid_encoder.model.resnet import ResnetEncoder
from hybrid_encoder.stage2.checkpoint import described_nets, encoder_extras

TINY = preset("tiny").without_downloads()
NETS = [
    DepthNets(),
    DepthNets(num_layers=50, scales=(0, 2), min_depth=0.5, max_depth=10.0),
    DepthNets(config=TINY.replace(pyramid=False), decoder="dpt", scales=(0,), head="relu"),
    DepthNets(config=TINY),
]


@pytest.mark.parametrize("kind", ["resnet", "hybrid"])
def test_every_encoder_keeps_the_contract(kind: str) -> None:
    torch.manual_seed(0)
    encoder: DepthEncoder = ResnetEncoder(18, "random") if kind == "resnet" else create_encoder("tiny")
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        features = encoder.eval().forward_features(image)
        maps = encoder(image)
    assert features.image_size == (64, 96)
    for found, again in zip(encoder.drop_in_maps(features), maps, strict=True):
        torch.testing.assert_close(found, again)
    assert [tuple(m.shape) for m in maps] == [
        (2, int(c), 64 // 2 ** (i + 1), 96 // 2 ** (i + 1)) for i, c in enumerate(encoder.num_ch_enc)
    ]
    assert tuple(level.shape[1] for level in features.fused) == encoder.fused_channels
    assert tuple(level.shape[1] for level in features.aligned) == encoder.aligned_channels
    grouped = [id(p) for group in encoder.parameter_groups(0.1) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in encoder.parameters() if p.requires_grad)
    assert encoder.requires_grad_(False).parameter_groups(0.1) == []
    if kind == "resnet":
        assert (encoder.class_width, features.class_token) == (0, None)
        with pytest.raises(UserError, match="ResnetEncoder has no class token"):
            encoder.class_token(image)
        with pytest.raises(UserError, match="reads the levels of a HybridEncoder"):
            DPTDecoder(encoder)
    else:
        assert features.class_token is not None
        assert features.class_token.shape == (2, encoder.class_width)
        torch.testing.assert_close(encoder.class_token(image), features.class_token)


def test_no_class_token_without_dino() -> None:
    encoder = create_encoder("tiny", dino=None)
    with pytest.raises(UserError, match="use a hybrid encoder with DINO"):
        encoder.class_token(torch.rand(1, 3, 64, 96))


@pytest.mark.parametrize("nets", NETS)
def test_descriptions_come_back(nets: DepthNets) -> None:
    assert DepthNets.from_dict(json.loads(json.dumps(nets.to_dict()))) == nets
    encoder, decoder = nets.build()
    assert DepthNets.of(encoder, decoder, nets.min_depth, nets.max_depth) == nets
    assert DepthModel(encoder, decoder, 64, 96, nets.min_depth, nets.max_depth).nets == nets
    extras = encoder_extras(nets, 64, 96)
    if nets.config is not None or nets.num_layers == 18:  # encoder.pth leaves the layers to its tensors
        assert described_nets(extras, "encoder.pth") == nets


def test_nothing_described_is_the_originals() -> None:
    assert described_nets({}, "encoder.pth") == DepthNets()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 19}, "num_layers=19"),
        ({"decoder": "dpt"}, "reads a hybrid encoder"),
        ({"decoder": "fpn"}, "no decoder 'fpn'"),
        ({"head": "tanh"}, "the head 'tanh'"),
        ({"scales": (1,)}, "expected 0 and any of"),
        ({"scales": (0, True)}, "whole numbers"),
        ({"min_depth": 5.0, "max_depth": 1.0}, "min_depth=5.0"),
        ({"max_depth": float("inf")}, "max_depth=inf"),
        ({"min_depth": float("nan")}, "min_depth=nan"),
    ],
)
def test_nets_that_do_not_exist_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DepthNets(**changes)


@pytest.mark.parametrize("entry", [{"decoder": "dpt"}, {"num_layers": 34}, {"config": {}}, {"kind": []}])
def test_unknown_entries_of_a_file_are_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"encoder\.pth does not describe nets of this package"):
        described_nets({"decoder_config": json.dumps(entry)}, "encoder.pth")
