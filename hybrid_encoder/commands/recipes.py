"""`--recipe released`: the settings of the authors' released code as our options (docs/METHOD.md, section 7).

Each command has one mapping from options to values. A run with a recipe is the same as a run with these options.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from ..config import HybridEncoderConfig
from ..options import Options, option_fields, parse_settings
from ..stage1.options import PretrainOptions
from ..stage2.options import Monodepth2Options
from ..two_frame.options import ManydepthOptions

T = TypeVar("T", bound=Options)

_ENCODER = ("position_resize=facebook", "convs2_output_padding=false")

_STAGE1: dict[str, Any] = {
    "height": 224,
    "width": 392,
    "encoder_option": (*_ENCODER, "normalization=imagenet", "dino_normalization=same"),
    "epochs": 20,
    "sampling": "released",
    "train_on": "all",
    "batch_size": 6,
    "mirror_probability": 0.0,
    "jitter_probability": 1.0,
    "point_scale": "height",
    "lr": 3.57e-4,
    "weight_decay": 0.1,
    "clip_grad": 0.1,
    "ranking_mean": "images",
    "word_norm": "matrix",
    "margin": 0.0,
    "contrastive_weight": 1.0,
}

_STAGE2: dict[str, Any] = {
    "height": 224,
    "width": 672,
    "encoder": "hybrid",
    "head": "relu",
    "stage1_pixels": "any",
    "batch_size": 16,
    "num_epochs": 30,
    "scheduler_step_size": 15,
    "decay_on": "all",
    "resize": "lanczos",
    "jitter": "frame",
    "kitti_camera": "average",
    "pose_model_type": "separate_resnet",
}

RECIPES: dict[str, dict[type[Options], dict[str, Any]]] = {
    "released": {
        PretrainOptions: _STAGE1,
        Monodepth2Options: {
            **_STAGE2,
            "encoder_option": (
                *_ENCODER,
                "decoder_style=published",
                "text_norm=matrix",
                "normalization=none",
                "dino_normalization=same",
                "num_tokens=256",
                "token_init=random",
                "train_dino_blocks=1",
                "train_text=ends",
            ),
            "learning_rate": 1e-4,
            "pose_normalization": "none",
            "frames_in_one_batch": True,
        },
        ManydepthOptions: {
            **_STAGE2,
            "encoder_option": (
                *_ENCODER,
                "decoder_style=published",
                "text_norm=matrix",
                "normalization=imagenet",
                "dino_normalization=none",
                "num_tokens=128",
                "token_init=random",
                "train_dino_blocks=0",
                "train_text=all",
            ),
            "teacher_encoder": "hybrid",
            "teacher_encoder_option": ("normalization=none", "dino_normalization=same"),
            "learning_rate": 1e-5,
            "clip_grad": 10.0,
            "clip_over": "encoder_decoder",
            "freeze_teacher_epoch": 15,
            "on_freeze": "fresh_adam",
            "num_depth_bins": 96,
            "pose_normalization": "monodepth2",
        },
    }
}
"""Values by name of the recipe and options of the command."""


def with_recipe(options: type[T], given: Mapping[str, Any]) -> T:
    """The options of a command: given values, else values of the given recipe, else the defaults.

    >>> asked = with_recipe(Monodepth2Options, {"recipe": "released", "batch_size": 4})
    >>> asked.num_epochs, asked.batch_size
    (30, 4)

    Args:
        given: values by name. Given settings NAME=VALUE are added to those of the recipe, unless they start with the
            recipe's settings, as those in the options file of a run with the recipe do.

    Raises:
        UserError: a number out of range.
    """
    values = dict(RECIPES[given["recipe"]][options]) if given.get("recipe") else {}
    fields = option_fields(options)
    for name, value in given.items():
        known = values.get(name, ())
        adds = fields[name].repeat and value[: len(known)] != known
        values[name] = (*known, *value) if adds else value
    return options(**values)


def recipe_table(options: Any) -> str:
    """A table of the options that a recipe sets: our default, the recipe's value, and this run's value if it differs.

    Args:
        options: of a command, with `recipe` set.
    """
    rows = [("option", "ours", options.recipe, "")]
    for name, ours, theirs, found in _entries(options):
        given = "" if found == theirs else f"this run: {_show(found)}"
        rows.append((name, _show(ours), _show(theirs), given))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _entries(options: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """Name, default, recipe's value and this run's value of each option and encoder field that the recipe sets."""
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    for name, value in RECIPES[options.recipe][type(options)].items():
        if not name.endswith("encoder_option"):
            yield name, defaults[name], value, getattr(options, name)
            continue
        config = options.config() if name == "encoder_option" else options.teacher_config(options.config())
        for field, setting in parse_settings(name, value).items():
            yield f"{name} {field}", getattr(HybridEncoderConfig(), field), setting, getattr(config, field)


def _show(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | None) else str(value)
