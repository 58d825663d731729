"""Habits of a package among others: no waiting without network, nothing left in the user's process, files as options,
rehearsals, completion."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import huggingface_hub
import pytest

from hybrid_encoder import DepthModel, UserError, create_encoder
from hybrid_encoder.model import backbones
from hybrid_encoder.weights import network
from hybrid_encoder.weights.published import TowerSource

SOURCE = TowerSource("dino_weights", "some_vit", "pretrained", (), "", ("timm/some", "model.safetensors"), "MIT")


@pytest.fixture
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network")

    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HYBRID_ENCODER_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.usefixtures("without_network")
def test_without_network_the_answer_comes_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(backbones, "_download", None)  # it would wait for half a minute
    handlers = list(logging.root.handlers)
    with pytest.raises(UserError, match=r"'openai' of RN50-quickgelu could not be loaded \(https://\S+ does not answer"):
        create_encoder("paper")
    with pytest.raises(UserError, match=r"hub could not be reached \(https://\S+ does not answer\)"):
        DepthModel.from_pretrained("some/model")
    assert logging.root.handlers == handlers
    assert not caplog.records


@pytest.mark.usefixtures("without_network")
def test_without_network_the_cache_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = {("timm/some", "pytorch_model.bin"): str(tmp_path / "held.bin")}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *asked: held.get(asked))
    assert backbones._find(SOURCE, None) == tmp_path / "held.bin"


def test_a_proxy_answers_for_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "getproxies", lambda: {"https": "http://proxy:3128"})
    assert network.hub_is_reachable()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert not network.hub_is_reachable()


def test_warnings_that_are_kept_quiet_leave_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    with backbones.quiet():
        logging.warning("No pretrained weights loaded")
    assert logging.root.handlers == []
