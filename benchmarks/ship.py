"""Makes the weights in the package (hybrid_encoder/weights/shipped/NAME) from a trained folder.

    python benchmarks/ship.py runs/mdp --stage1 runs/stage1/stage1.pth \\
        --training_data "rendered scenes of this package" --command "hybrid-encoder demo --from_scratch --out runs"

Leaves out what inference does not need: coarser output scales, pose nets, the optimiser. Matrices and kernels are
stored in half precision; norms, biases and statistics stay in float32. The unit of depth becomes a metre of rendered
scenes. Evaluates the trained and the stored model on held-out scenes and writes the model card. Refuses a model that is
too large for the package, or worse in half precision.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybrid_encoder.commands.convert import open_depth_model
from hybrid_encoder.errors import UserError
from hybrid_encoder.evaluation import DepthErrors
from hybrid_encoder.model.depth_model import DepthModel
from hybrid_encoder.stage2.evaluate import evaluate, prior_errors
from hybrid_encoder.stage2.options import EvaluateOptions
from hybrid_encoder.weights.card import model_card
from hybrid_encoder.weights.hub import CARD_FILE, TENSOR_FILE
from hybrid_encoder.weights.in_package import DEFAULT
from hybrid_encoder.weights.reading import read_checkpoint
from hybrid_encoder.weights.run_files import STAGE1_FILE
from hybrid_encoder.writing import whole_folder, write_text, write_torch

MAX_MODEL, MAX_FOLDER = 4_000_000, 4_900_000
"""Largest sizes in bytes of model.safetensors and of the whole folder: a wheel may grow by 5 MB."""
MAX_WORSE = 0.002
"""By how much AbsRel may be worse in half precision."""
SHIPPED = Path(__file__).resolve().parents[1] / "hybrid_encoder" / "weights" / "shipped"


def main(arguments: list[str] | None = None) -> int:
    """Writes the folder; returns status 2 if it is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="folder of a trainer, or of save_pretrained")
    parser.add_argument("--stage1", type=Path, help="stage1.pth, from which `hybrid-encoder demo` starts")
    parser.add_argument("--training_data", required=True, help="what it was trained on, in words")
    parser.add_argument("--command", required=True, help="the command that trained it")
    parser.add_argument("--scenes", type=int, default=40, help="rendered scenes to train on, of which a few are tests")
    parser.add_argument("--out", type=Path, default=SHIPPED / DEFAULT, help="folder to write")
    options = parser.parse_args(arguments)
    try:
        ship(options)
    except UserError as error:
        print(f"ship: {error}", file=sys.stderr)
        return 2
    return 0


def ship(options: argparse.Namespace) -> None:
    """Writes the folder of `options.out`, whole or not at all.

    Raises:
        UserError: unreadable weights, too many bytes, or errors that grow in half precision.
    """
    trained = open_depth_model(options.weights)
    model = halved(one_scale(trained))
    model.about = {**trained.about, "origin": f"`{options.command}`", "training_data": options.training_data}
    test = EvaluateOptions(
        dataset="synthetic", height=model.height, width=model.width, scenes=options.scenes, weights=options.weights
    )
    found = evaluate(test, trained)
    model = in_rendered_metres(model, found.ratio_median or 1.0)
    before, after = found.mean, evaluate(test, as_loaded(model)).mean
    if after.abs_rel > before.abs_rel + MAX_WORSE:
        raise UserError(f"AbsRel is {before.abs_rel:.4f} in float32 and {after.abs_rel:.4f} in half precision")
    with whole_folder(options.out) as folder:
        model.save_pretrained(folder)
        if options.stage1 is not None:
            write_torch(folder / STAGE1_FILE, halved_stage1(options.stage1))
        write_text(folder / CARD_FILE, card(model, options.command, after, prior_errors(test).mean))
        check_size(folder)
    size = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"{options.out}: {size / 1e6:.2f} MB, AbsRel {after.abs_rel:.4f} ({before.abs_rel:.4f} in float32)")


def one_scale(model: DepthModel) -> DepthModel:
    """The same model without the layers of coarser output scales.

    Raises:
        UserError: the model is none of this package's.
    """
    nets = dataclasses.replace(model.nets, scales=(0,))
    slim = DepthModel(*nets.build(), model.height, model.width, nets.min_depth, nets.max_depth, model.resize)
    tensors = model.state_dict()
    slim.load_state_dict({name: tensors[name] for name in slim.state_dict()})
    return slim.eval()


def in_rendered_metres(model: DepthModel, ratio: float) -> DepthModel:
    """The same model with depth limits times `ratio`, so that the median depth of rendered scenes is right. The unit of
    training is arbitrary, and 16-bit depth maps have steps of 1/256 of it."""
    near, far = ratio * model.min_depth, ratio * model.max_depth
    scaled = DepthModel(model.encoder, model.decoder, model.height, model.width, near, far, model.resize)
    scaled.about = model.about
    return scaled.eval()


def halved(model: DepthModel) -> DepthModel:
    """The model itself, with matrices and kernels rounded to half precision."""
    for value in model.parameters():
        value.data = half(value.data)
    return model


def half(value: Tensor) -> Tensor:
    """A matrix or a kernel in half precision; other tensors do not change."""
    return value.half() if value.is_floating_point() and value.ndim > 1 else value


def as_loaded(model: DepthModel) -> DepthModel:
    """The model as it is after loading: with rounded weights, in float32."""
    nets = model.nets
    loaded = DepthModel(*nets.build(), model.height, model.width, nets.min_depth, nets.max_depth, model.resize)
    loaded.load_state_dict(model.state_dict())
    return loaded.eval()


def halved_stage1(path: Path) -> dict[str, Any]:
    """The content of a stage1.pth, in half precision.

    Raises:
        UserError: the file is no stage-1 checkpoint of this package.
    """
    content = read_checkpoint(path)
    if not isinstance(content.get("encoder"), Mapping) or "config" not in content:
        raise UserError(f"{path} is no stage1.pth of `hybrid-encoder pretrain`")
    return {**content, "encoder": {name: half(value) for name, value in content["encoder"].items()}}


def check_size(folder: Path) -> None:
    """Raises `UserError` if the files are too large for the package."""
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    for what, size, most in ((TENSOR_FILE, sizes[TENSOR_FILE], MAX_MODEL), ("all", sum(sizes.values()), MAX_FOLDER)):
        if size > most:
            raise UserError(f"{what}: {size} bytes, expected at most {most}: train a smaller model, or leave --stage1")


def card(model: DepthModel, command: str, errors: DepthErrors, prior: DepthErrors) -> str:
    """The card of `save_pretrained` with licence, measured errors and limits."""
    text = model_card({"kind": model.hub_kind, **model.hub_config(), "about": model.about})
    text = text.replace("---\n", "---\nlicense: apache-2.0\n", 1)
    return f"""{text}
## What it is, and what it is not

Ships with the package, so that `hybrid-encoder predict photo.jpg` works at once. Its towers are tiny and started from
random numbers: it is not the paper's model, and says nothing about it. Depth has no metric scale: its unit is a metre
in the rendered scenes and anything elsewhere. On photos of anything but streets, expect little.

- Licence: Apache-2.0, as the package.
- Precision: matrices and kernels are stored in half precision, and computed with in float32.
- Held-out rendered scenes, median-scaled: AbsRel {errors.abs_rel:.3f}, a1 {errors.a1:.3f}; the best guess that looks at
  no image has {prior.abs_rel:.3f} and {prior.a1:.3f}.

## Made by

```
{command}
python benchmarks/ship.py FOLDER
```
"""


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())
