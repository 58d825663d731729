"""Reads files of tensors safely and fills modules strictly: the only place that opens weights of unknown origin."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..config import check_image_size
from ..errors import UserError, naming
from .archive import check_stored, has_code, is_zip
from .describe import describe_file, describe_tensors
from .safe_pickle import STATE_KEYS, UnsafeArchiveError, read_archive
from .wrappers import unwrapped

_SHOWN = 3
_DISPENSABLE = ("num_batches_tracked", "image_tower.mean", "image_tower.std", "dino.mean", "dino.std")
"""Ends of names that a file may lack: counters, which old versions of torch did not write and which are never read, and
the normalisation of towers, which files of others do not hold."""

_LARGEST_SHARE = 4
"""How many times as large as their storage the tensors of a file may be; more than 1, since nets may share tensors."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """All entries at the top level of a file: tensors and plain values by name, on the CPU, memory-mapped if possible.

    Reads safetensors, and `torch.save` files of dictionaries with `weights_only=True`. From files with objects of other
    classes, and from TorchScript modules, only the model's tensors are returned; no code of the file runs. Tensors of
    wrapped nets get the names that they have without the wrapper (`unwrapped`).

    Raises:
        UserError: a missing, truncated or foreign file; the message says what it seems to be.
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
            check_stored(path)
        if whole_zip and has_code(path):
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
    except Exception as error:  # torch.load's unpickler raises many classes; all mean an unreadable file
        raise UserError(f"{path} is no file of tensors. It seems to be {describe_file(path)}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, expected tensors by name")
    return unwrapped({str(name): value for name, value in content.items()})


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The model's tensors of a file by name, on the CPU: those in its entry "state_dict" or "model" if it has one,
    under the names that they have without wrappers.

    Raises:
        UserError: a missing, truncated or foreign file, or one without tensors.
    """
    return tensors_of(read_checkpoint(path), str(path))


def tensors_of(content: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """As `read_tensors`, from what `read_checkpoint` returns; `source` names the file in messages."""
    content = next((content[key] for key in STATE_KEYS if isinstance(content.get(key), Mapping)), content)
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{source} holds no tensors by name. Its entries are {_some(content)}")
    return unwrapped(tensors)


def check_described(
    build: Callable[[], nn.Module],
    tensors: Mapping[str, Tensor],
    source: str,
    may_lack: Callable[[str], bool] = lambda name: False,
) -> None:
    """Compares the net that a file describes with the file's tensors, before the net takes memory.

    The net is built on the device "meta", where it takes none: so no description can make us build a net that is larger
    than the file's tensors.

    Args:
        build: makes the net.
        tensors, source: as for `load_state`.
        may_lack: whether the file may lack a tensor of this name.

    Raises:
        UserError: as `check_fit`.
    """
    with torch.device("meta"):
        described = build()
    check_fit(described, tensors, source, may_lack)


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fills every parameter and buffer of a module, or nothing at all.

    Args:
        tensors: by the names of `module.state_dict()`.
        source: names the file in messages.

    Raises:
        UserError: as `check_fit`; non-finite values; or a module on the device "meta".
    """
    check_fit(module, tensors, source)
    own = module.state_dict()
    if any(value.is_meta for value in own.values()):
        raise UserError(
            f"{source} cannot fill {type(module).__name__}, which is on the device 'meta': build it on the CPU, or "
            "call its to_empty(device='cpu') first"
        )
    non_finite = [name for name in own if name in tensors and not tensors[name].isfinite().all()]
    if non_finite:
        raise UserError(
            f"{source} holds values that are not finite in {_some(non_finite)}: it is damaged, or its training went "
            "wrong"
        )
    module.load_state_dict({**own, **tensors})


def check_fit(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    may_lack: Callable[[str], bool] = lambda name: False,
) -> None:
    """Compares names and shapes of tensors with those of a module, which may be on the device "meta"; reads no values.

    Args:
        tensors, source: as for `load_state`.
        may_lack: as for `check_described`.

    Raises:
        UserError: tensors that are missing, surplus or of another shape (the message names the first ones, and what the
            file seems to be); or tensors that state far more elements than the file holds.
    """
    foreign = [name for name, value in tensors.items() if not isinstance(name, str) or not _is_plain(value)]
    if foreign:
        raise UserError(f"{source} does not fit {type(module).__name__}: no plain tensors are {_some(foreign)}")
    own = module.state_dict()
    missing = [name for name in own if name not in tensors and not (name.endswith(_DISPENSABLE) or may_lack(name))]
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
    _check_backed(tensors, source)


def _check_backed(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raises `UserError` where tensors state far more elements than the file holds: views that repeat a few."""
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors.values()}
    stated = sum(value.numel() * value.element_size() for value in tensors.values())
    if stated > _LARGEST_SHARE * sum(storages.values()):
        raise UserError(
            f"{source} states tensors of {stated} bytes and holds {sum(storages.values())}: save them again with "
            "tensor.contiguous()"
        )


def _is_plain(value: Any) -> bool:
    """Whether this is a dense tensor with values, of a dtype that can be computed with."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        return False
    return not value.is_floating_point() or value.dtype.itemsize > 1


def stated_number(entries: Mapping[str, Any], name: str, source: str) -> float:
    """A number that a file states beside its tensors.

    Args:
        entries: what `read_checkpoint` returns.
        source: names the file in messages.

    Raises:
        UserError: there is no such number, or it is not finite.
    """
    value = entries.get(name)
    if isinstance(value, Tensor) and _is_plain(value) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise UserError(f"{source} states no {name}: found {str(value)[:50]}, expected a trainer's encoder.pth")
    return float(value)


def stated_json(entries: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    """The JSON object that a file states under a name; empty where there is none.

    Raises:
        UserError: it is no JSON object; names the file.
    """
    text = entries.get(name)
    if text is None:
        return {}
    try:
        values = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: {name} in it is damaged ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{source}: {name} in it is no JSON object")
    return values


def stated_bins(entries: Mapping[str, Any], source: str) -> tuple[float, float]:
    """Nearest and farthest depth bin that the encoder.pth of a two-frame run states.

    Raises:
        UserError: the bins are not stated, or are no range of depths.
    """
    near, far = (stated_number(entries, name, source) for name in ("min_depth_bin", "max_depth_bin"))
    if not 0 < near < far:
        raise UserError(f"{source} states depth bins from {near:g} to {far:g}: expected 0 < nearest < farthest")
    return near, far


def stated_size(entries: Mapping[str, Any], source: str) -> tuple[int, int]:
    """Height and width of the images that a trainer's encoder.pth is for.

    Raises:
        UserError: the size is not stated, or a side is no multiple of 32.
    """
    height, width = (stated_number(entries, name, source) for name in ("height", "width"))
    with naming(f"{source}, image size {height:g} x {width:g}"):
        check_image_size(int(height) if height.is_integer() else -1, int(width) if width.is_integer() else -1)
    return int(height), int(width)


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _some(names: Iterable[str]) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
