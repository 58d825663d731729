"""What makes a run the same run: it goes on in its folder only with the options that it began with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError


def identity(options: Any, free: Collection[str]) -> dict[str, Any]:
    """The options (a dataclass) that a run cannot change on its way, as JSON has them.

    Args:
        free: names of those that it can: where it runs, what it logs.
    """
    values = {k: v for k, v in dataclasses.asdict(options).items() if k not in free}
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found


def check_same_run(folder: Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Compares the identity of the run in a folder with the one asked for.

    Raises:
        UserError: they differ; names the options, where both have the same ones.
    """
    remedy = "choose another folder (--model_name, for stage 1 --out)"
    if set(saved) != set(given):
        raise UserError(f"{folder} holds a run of another trainer, or of another version of this package: {remedy}")
    differing = [name for name in sorted(saved) if saved[name] != given[name]]
    if differing:
        listed = "; ".join(f"{name} was {_show(saved[name])}, is {_show(given[name])}" for name in differing)
        raise UserError(
            f"{folder} holds a run with other options: {listed}. Repeat its own options to go on with it, or {remedy}"
        )


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
