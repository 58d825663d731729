"""Stage 1's weights: writes `stage1.pth`, and fills stage 2's encoder from it or from the authors' checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from ..config import HybridEncoderConfig
from ..encoder import HybridEncoder
from ..errors import UserError, naming
from ..files import write_torch
from ..released import fill_from_stage1
from ..weights import load_state, read_checkpoint, stated_json

STAGE1_FILE = "stage1.pth"


def save_stage1(path: Path, encoder: HybridEncoder, config: HybridEncoderConfig, figures: dict[str, float]) -> None:
    """Writes the encoder with the config that stage 2 goes on with."""
    tensors = {k: v for k, v in encoder.state_dict().items() if k != "language.tokens"}
    kept = config.without_downloads().to_dict()
    write_torch(path, {"config": json.dumps(kept), "encoder": tensors, "figures": figures})


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
    content = read_checkpoint(path)
    tensors = content.get("encoder")
    if not isinstance(tensors, dict) or "config" not in content:
        raise UserError(f"{path} is no stage-1 checkpoint: expected the stage1.pth of `hybrid-encoder pretrain`")
    config = stated_json(content, "config", str(path))
    with naming(path):
        saved = HybridEncoderConfig.from_dict(config)
    encoder.config.check_same_features(saved, str(path), ignore=("text_norm",))
    own = encoder.state_dict()
    untrained = {k: v for k, v in own.items() if k == "language.tokens" or k.startswith("pyramid.")}
    load_state(encoder, {**tensors, **untrained}, str(path))
    if encoder.config.token_init == "words":
        encoder.language.reset_tokens()
