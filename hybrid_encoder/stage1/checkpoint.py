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

STAGE1_FILE = "stage1.pth"


def save_stage1(path: Path, encoder: HybridEncoder, config: HybridEncoderConfig, metrics: dict[str, float]) -> None:
    """Writes the encoder with the config that stage 2 goes on with."""
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
    """The encoder that `hybrid-encoder pretrain` trained, as stage 2 goes on with it; on the CPU in eval mode.

    Raises:
        UserError: no such file, damaged, or something else.
    """
    config = _stated_config(Path(path)).without_downloads()
    build = naming(path)(partial(HybridEncoder, config))
    check_described(build, read_checkpoint(path)["encoder"], str(path), _is_untrained)
    encoder = build()
    load_stage1(encoder, path)
    return encoder.eval()


def load_stage1(encoder: HybridEncoder, path: str | Path) -> None:
    """Fills an encoder with what stage 1 trained: towers and fusion; the pyramid stays as it is, and so do tokens that
    do not start from words.

    Args:
        encoder: of the same architecture.
        path: `stage1.pth`, or the authors' Lightning `.ckpt`.

    Raises:
        UserError: no such file, damaged, or of another architecture.
    """
    path = Path(path)
    if path.suffix == ".ckpt":
        fill_from_stage1(encoder, path)
        return
    saved, tensors = _stated_config(path), read_checkpoint(path)["encoder"]
    encoder.config.check_same_features(saved, str(path), ignore=("text_norm", "strides", "decoder_style"))
    untrained = {name: value for name, value in encoder.state_dict().items() if _is_untrained(name)}
    load_state(encoder, {**tensors, **untrained}, str(path))
    encoder.config = encoder.config.ranked_as(saved)
    if encoder.config.token_init == "words":
        encoder.language.reset_tokens()


def _is_untrained(name: str) -> bool:
    """Whether stage 1 leaves a tensor as it is; its file need not hold it."""
    return name == "language.tokens" or name.startswith("pyramid.")


def _stated_config(path: Path) -> HybridEncoderConfig:
    """What `save_stage1` wrote of the config, beside a dictionary of tensors.

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
