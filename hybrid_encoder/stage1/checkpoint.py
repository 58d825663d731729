"""Stage 1's weights: writes `stage1.pth`, and fills stage 2's encoder from it or from the authors' checkpoint."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from ..config import HybridEncoderConfig
from ..errors import UserError, naming
from ..model.encoder import HybridEncoder
from ..released.single_frame import fill_from_stage1
from ..weights.reading import check_described, load_state, read_checkpoint, stated_json
from ..writing import write_torch


def save_stage1(path: Path, encoder: HybridEncoder, config: HybridEncoderConfig, metrics: dict[str, float]) -> None:
    """Writes the encoder and the config that stage 2 continues with."""
    tensors = {k: v for k, v in encoder.state_dict().items() if k != "language.tokens"}
    kept = config.without_downloads().ranked_as(encoder.config).to_dict()
    write_torch(path, {"config": json.dumps(kept), "encoder": tensors, "metrics": metrics})


def is_stage1(path: str | Path) -> bool:
    """Whether a file is one that `save_stage1` wrote.

    Raises:
        UserError: it cannot be read.
    """
    return _has_both(read_checkpoint(path))


def open_stage1(path: str | Path) -> HybridEncoder:
    """The encoder that `hybrid-encoder pretrain` trained, as stage 2 builds it; on the CPU in eval mode.

    Raises:
        UserError: no such file, a damaged one, or one of another kind.
    """
    config = _stated_config(Path(path)).without_downloads()
    build = naming(path)(partial(HybridEncoder, config))
    check_described(build, read_checkpoint(path)["encoder"], str(path), _is_untrained)
    encoder = build()
    load_stage1(encoder, path)
    return encoder.eval()


def load_stage1(encoder: HybridEncoder, path: str | Path, any_pixels: bool = False) -> None:
    """Fills an encoder with the towers and the fusion of stage 1. The pyramid does not change; tokens change only where
    they start from the words.

    Args:
        encoder: of the same architecture.
        path: `stage1.pth`, or the authors' Lightning `.ckpt`.
        any_pixels: accept a stage 1 that saw pixels with another mean and standard deviation; the encoder keeps its
            own.

    Raises:
        UserError: no such file, damaged, or of another architecture.
    """
    path = Path(path)
    if path.suffix == ".ckpt":
        fill_from_stage1(encoder, path)
        return
    saved, tensors = _stated_config(path), read_checkpoint(path)["encoder"]
    pixels = ("normalization", "dino_normalization") if any_pixels else ()
    encoder.config.check_same_features(saved, str(path), ignore=("text_norm", "strides", "decoder_style", *pixels))
    kept = ("image_tower.mean", "image_tower.std", "dino.mean", "dino.std") if any_pixels else ()
    own = encoder.state_dict()
    untrained = {name: value for name, value in own.items() if _is_untrained(name) or name in kept}
    load_state(encoder, {**tensors, **untrained}, str(path))
    encoder.config = encoder.config.ranked_as(saved)
    if encoder.config.token_init == "words":
        encoder.language.reset_tokens()


def _is_untrained(name: str) -> bool:
    """Whether stage 1 does not train a tensor; its file may lack it."""
    return name == "language.tokens" or name.startswith("pyramid.")


def _stated_config(path: Path) -> HybridEncoderConfig:
    """The config that `save_stage1` wrote.

    Raises:
        UserError: no such file, or another kind of file.
    """
    content = read_checkpoint(path)
    if not _has_both(content):
        raise UserError(f"{path} is no stage-1 checkpoint: expected the stage1.pth of `hybrid-encoder pretrain`")
    config = stated_json(content, "config", str(path))
    with naming(path):
        return HybridEncoderConfig.from_dict(config)


def _has_both(content: dict[str, Any]) -> bool:
    return isinstance(content.get("encoder"), dict) and "config" in content
