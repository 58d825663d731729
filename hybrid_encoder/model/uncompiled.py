"""Python that `torch.compile` leaves alone; a module of its own, since importing it imports the compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

T = TypeVar("T")


@torch.compiler.disable
def uncompiled(function: Callable[..., T], *arguments: Any) -> T:
    """The function's result; a compiled graph breaks here."""
    return function(*arguments)
