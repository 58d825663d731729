"""Reads tensors from pickled archives without building the objects that a file asks for: no code of the file runs.

For files that `torch.load(weights_only=True)` refuses: Lightning checkpoints, whose hyper-parameters are objects of
libraries that may not be installed, and TorchScript archives such as OpenAI's CLIP models. Nothing is unpacked to disk,
so that names in an archive cannot lead outside it.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

_STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
STATE_KEYS = ("state_dict", "model_state_dict", "model")
"""Entries under which checkpoints of training libraries keep the model's tensors."""


class UnsafeArchiveError(ValueError):
    """The archive is not as torch writes it; the message says what is wrong."""


class Inert:
    """A placeholder for an object of a class that is not built: keeps the state that the file gives it, does nothing.

    Attributes:
        class_name: the class that the file asks for.
        state: the state that the file sets on the object.
    """

    class_name: ClassVar[str] = ""
    state: Any

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        made = object.__new__(cls)
        made.state = None
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Pickle fills lists, sets and mappings by such methods; here they do nothing."""

    extend = add = append


class _Dict(dict[Any, Any]):
    """A plain dictionary in place of the standard library's dictionaries."""

    def __init__(self, *given: Any) -> None:
        super().__init__(given[0] if given and isinstance(given[0], list) else ())

    def __setstate__(self, state: Any) -> None:
        pass


class _Storage:
    """A storage of the archive, which is not read yet."""

    def __init__(self, dtype: torch.dtype, key: str) -> None:
        self.dtype = dtype
        self.key = key

    def __setstate__(self, state: Any) -> None:
        pass


class _TensorView:
    """A tensor of the archive, which is not read yet; torch's own rebuilding function is never called."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> None:
        self.storage = storage
        self.offset = offset
        self.size = size
        self.stride = stride

    def __setstate__(self, state: Any) -> None:
        pass


class _First:
    """In place of calls that only wrap their first argument: parameters, sizes."""

    def __new__(cls, first: Any = (), *_: Any) -> Any:
        return first

    def __setstate__(self, state: Any) -> None:
        pass


# Every entry is a class with a `__setstate__`, so that a file's BUILD instruction cannot change the class itself.
_KNOWN: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): _Dict,
    ("collections", "defaultdict"): _Dict,
    ("torch._utils", "_rebuild_tensor"): _TensorView,
    ("torch._utils", "_rebuild_tensor_v2"): _TensorView,
    ("torch._utils", "_rebuild_parameter"): _First,
    ("torch._utils", "_rebuild_parameter_with_state"): _First,
    ("torch", "Size"): _First,
}


class _InertUnpickler(pickle._Unpickler):
    """Based on the unpickler in Python: the one in C allocates memory for as many objects as a file states."""

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        if known is not None:
            return known
        dtype = _STORAGE_TYPES.get(name) if module in ("torch", "torch.storage") else None
        return type("Inert", (Inert,), {"class_name": f"{module}.{name}", "dtype": dtype})

    def persistent_load(self, pid: Any) -> Any:
        # ("storage", type, key, device, length); other ids are not needed.
        if isinstance(pid, tuple) and len(pid) >= 3 and pid[0] == "storage":
            dtype = getattr(pid[1], "dtype", None)
            if isinstance(dtype, torch.dtype) and isinstance(pid[2], str):
                return _Storage(dtype, pid[2])
        return Inert()


def read_archive(path: Path) -> dict[str, Tensor]:
    """The model's tensors of a zip archive written by `torch.save`, Lightning or TorchScript, on the CPU.

    If there is an entry "state_dict" (or "model"), only its tensors are read. Tensors of a TorchScript module get the
    names of its state dict.

    Raises:
        UnsafeArchiveError: the archive is damaged, or torch did not write it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive).tensors()
    except UnsafeArchiveError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise UnsafeArchiveError(f"truncated or damaged ({error})") from error
    except Exception as error:  # a foreign pickle may raise anything
        raise UnsafeArchiveError(f"damaged, or not written by torch ({type(error).__name__}: {error})") from error


class _Archive:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.names = set(archive.namelist())
        roots = [name[: -len("data.pkl")] for name in self.names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise UnsafeArchiveError("a zip archive without torch's data.pkl")
        self.root = roots[0]
        if f"{self.root}byteorder" in self.names and self._bytes("byteorder") != b"little":
            raise UnsafeArchiveError("written on a big-endian machine")
        self.storages: dict[tuple[str, torch.dtype], Tensor] = {}

    def tensors(self) -> dict[str, Tensor]:
        top = _InertUnpickler(io.BytesIO(self._bytes("data.pkl"))).load()
        if isinstance(top, Inert):
            views: dict[str, _TensorView] = {}
            _flatten(top, "", views, set())
        elif isinstance(top, Mapping):
            inner = next((top[key] for key in STATE_KEYS if isinstance(top.get(key), Mapping)), top)
            views = {str(key): value for key, value in inner.items() if isinstance(value, _TensorView)}
        else:
            raise UnsafeArchiveError(f"holds a {type(top).__name__} instead of named tensors")
        return {name: self._build(name, view) for name, view in views.items()}

    def _build(self, name: str, view: _TensorView) -> Tensor:
        if not isinstance(view.storage, _Storage):
            raise UnsafeArchiveError(f"tensor {name} is of a kind that is not supported")
        key = (view.storage.key, view.storage.dtype)
        if key not in self.storages:
            data = bytearray(self._bytes(f"data/{view.storage.key}"))
            if len(data) % key[1].itemsize:
                raise UnsafeArchiveError(f"the numbers of tensor {name} are cut off")
            self.storages[key] = torch.frombuffer(data, dtype=key[1]) if data else torch.empty(0, dtype=key[1])
        # as_strided checks that the view lies inside the storage.
        return self.storages[key].as_strided(tuple(view.size), tuple(view.stride), view.offset)

    def _bytes(self, name: str) -> bytes:
        return self.archive.read(self._info(name))

    def _info(self, name: str) -> zipfile.ZipInfo:
        if self.root + name not in self.names:
            raise UnsafeArchiveError(f"{name} is missing in the archive")
        info = self.archive.getinfo(self.root + name)
        if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses; this bounds memory by the file's size
            raise UnsafeArchiveError(f"{name} is compressed, which torch never does")
        return info


def _flatten(module: Inert, prefix: str, views: dict[str, _TensorView], seen: set[int]) -> None:
    """The tensors of a TorchScript module under the names of its state dict; `seen` breaks cycles of modules."""
    if id(module) in seen or not isinstance(module.state, Mapping):
        return
    seen.add(id(module))
    for name, value in module.state.items():
        if isinstance(value, _TensorView):
            views[f"{prefix}{name}"] = value
        elif isinstance(value, Inert):
            _flatten(value, f"{prefix}{name}.", views, seen)
