"""Reads files of tensors safely and fills modules strictly: the only place that opens weights of unknown origin."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import UserError
from .describe import describe_file, describe_tensors, is_zip
from .safe_pickle import STATE_KEYS, UnsafeArchiveError, read_archive

_SHOWN = 3


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """All that a file holds at its top level: tensors and plain values by name, on the CPU, mapped rather than read.

    Reads safetensors, and `torch.save` files of dictionaries with `weights_only=True`. Where those hold objects of
    other classes, or a TorchScript module, only the model's tensors are returned; no code of the file runs.

    Raises:
        UserError: missing, truncated or foreign; the message says what the file seems to be.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected a file of weights")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): expected a file of weights") from error
    try:
        if path.suffix == ".safetensors" or head[8:] == b"{":
            return dict(load_file(path))
        whole_zip = is_zip(path)
        if whole_zip:
            _check_sums(path)
        if whole_zip and _has_code(path):
            return dict(read_archive(path))
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=whole_zip)
        except pickle.UnpicklingError:
            if not whole_zip:
                raise
            return dict(read_archive(path))
    except (SafetensorError, UnsafeArchiveError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise UserError(f"{path} could not be read: {reason}. It seems to be {describe_file(path)}") from error
    except Exception as error:  # torch.load's unpickler raises many kinds, each of them an unreadable file
        raise UserError(f"{path} is no file of tensors. It seems to be {describe_file(path)}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, expected tensors by name")
    return {str(name): value for name, value in content.items()}


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The model's tensors of a file by name, on the CPU: those under "state_dict" or "model" where there is such an
    entry; a "module." before every name, left by data-parallel training, is dropped.

    Raises:
        UserError: missing, truncated or foreign file, or no tensor in it.
    """
    content: Mapping[str, Any] = read_checkpoint(path)
    content = next((content[key] for key in STATE_KEYS if isinstance(content.get(key), Mapping)), content)
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no tensors by name. Its entries are {_some(content)}")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fills every parameter and buffer of a module, or nothing at all.

    Args:
        tensors: by the names of `module.state_dict()`.
        source: names the file in messages.

    Raises:
        UserError: the first missing, surplus and misshapen tensors, and what the file seems to be.
    """
    own = module.state_dict()
    # Files of the oldest torch versions lack these counters; nothing reads them.
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    surplus = [name for name in tensors if name not in own]
    unfit = [
        f"{name} {_kind(tensors[name])}, expected {_kind(value)}"
        for name, value in own.items()
        if name in tensors
        and (tensors[name].shape != value.shape or tensors[name].is_floating_point() != value.is_floating_point())
    ]
    if missing or surplus or unfit:
        found = [
            f"{len(names)} {what} ({_some(names)})"
            for names, what in ((missing, "missing"), (surplus, "surplus"), (unfit, "of another shape"))
            if names
        ]
        raise UserError(
            f"{source} does not fit {type(module).__name__}: of {len(own)} tensors, {'; '.join(found)}. "
            f"It seems to be {describe_tensors(tensors)}"
        )
    module.load_state_dict({**own, **tensors})


def _check_sums(path: Path) -> None:
    """Reads an archive once through: PyTorch itself takes no notice of the sums (CRC-32) that it writes."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise UnsafeArchiveError(f"damaged, the checksum of {damaged} in it is wrong")


def _has_code(path: Path) -> bool:
    """Whether an archive is of TorchScript."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") and name.count("/") == 1 for name in archive.namelist())


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
